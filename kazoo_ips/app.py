"""The composition root: settings in, a service or a Flask application out.

The one module that knows every layer. Flask and what speaks HTTP are imported when an application
is made: commands do without, and start in half the time.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from kazoo_ips import shared_table, shared_writes
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.couch.login_breaker import LoginBreaker
from kazoo_ips.metrics import Metrics
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories.access import AccessRepository
from kazoo_ips.repositories.accounts import AccountRepository
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.copies import CopyRepository
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.idempotency_records import IdempotencyRecords
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.keys import KeyRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import TransactionLog
from kazoo_ips.services import Services
from kazoo_ips.services.access import AccessService
from kazoo_ips.services.accounts import AccountService
from kazoo_ips.services.additions import AdditionService
from kazoo_ips.services.allocation import AllocationService
from kazoo_ips.services.attempts import LoginAttempts
from kazoo_ips.services.auth import AuthService
from kazoo_ips.services.copies import CopyService
from kazoo_ips.services.doctor import DoctorService
from kazoo_ips.services.filling import FillingService
from kazoo_ips.services.follower import Follower
from kazoo_ips.services.healing import DELAY, HealingService
from kazoo_ips.services.holdings import Holdings
from kazoo_ips.services.housekeeping import HousekeepingService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.ips import IPService
from kazoo_ips.services.lists import ListService
from kazoo_ips.services.lookup import Lookup
from kazoo_ips.services.pool import PoolService
from kazoo_ips.services.recovery import RecoveryService
from kazoo_ips.services.resumption import Resumption
from kazoo_ips.services.retries import RetryQueue
from kazoo_ips.services.settlement import Settlement
from kazoo_ips.services.transactions import TransactionService
from kazoo_ips.services.watch import WatchService
from kazoo_ips.services.writes import PoolWriter

if TYPE_CHECKING:
    from flask import Flask

_INDEX_TIMEOUT = 3600.0
"""Seconds that building an index may take."""
_PATIENCE = 1.0
"""Seconds that a look at CouchDB may take, for load balancers and Prometheus."""


def connect(
    settings: Settings,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Couch:
    """The CouchDB of the settings. Sends nothing yet."""
    return Couch(
        settings.couchdb_url,
        settings.prefix,
        settings.connect_timeout,
        settings.read_timeout,
        settings.threads,
        trace,
        metrics.count_call if metrics else None,
        LoginBreaker(shared_table.shared("logins"), metrics.logins_refused.inc)
        if metrics
        else LoginBreaker(shared_table.shared("logins")),
    )


def databases(settings: Settings) -> Databases:
    """What the service needs in CouchDB, with time enough to build an index.

    Databases and design documents take an administrator.
    """
    return Databases(connect(replace(settings.as_administrator(), read_timeout=_INDEX_TIMEOUT)))


def access(settings: Settings) -> AccessService:
    """Who may use the databases: an administrator says so, and the service's user is let in."""
    member = connect(settings)
    administrator = connect(settings.as_administrator())
    return AccessService(AccessRepository(administrator), AccessRepository(member))


def build(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Services:
    """Connect repositories and services. Sends nothing to CouchDB yet.

    :param clock: the time in Unix seconds
    :param pause: waits so many seconds
    :param trace: called with method and URL of every request sent to CouchDB
    :param metrics: where what happens is counted
    """

    def now() -> int:
        return int(clock()) + GREGORIAN_EPOCH

    metrics = metrics or Metrics()
    couch = connect(settings, trace, metrics)
    keys = KeyRepository(couch, now)
    # What a token is known by rests on what accounts are known by: each for half of the time.
    remember = settings.identity_cache / 2
    accounts = AccountService(AccountRepository(couch), now, remember)
    auth = AuthService(
        keys,
        accounts,
        LoginAttempts(shared_table.shared("attempts"), settings.login_limit, clock),
        clock=clock,
        lifetime=settings.token_lifetime,
        remember=remember,
        refusal_time=settings.refusal_time,
    )
    views, records = ListRepository(couch), Records(couch)
    transaction_log = TransactionLog(records)
    ips = IPRepository(couch, views, settings.write_quorum == "all")
    kept_copies = CopyRepository(couch)
    retries = RetryQueue()
    settlement = Settlement(ips, kept_copies, now, metrics)
    recovery = RecoveryService(
        ips, transaction_log, settlement, retries.look_again, now, pause, metrics
    )
    holdings = Holdings(ips, kept_copies, views, recovery, shared_writes.shared(), pause)
    lists, lookup = ListService(views, holdings), Lookup(ips, settlement, recovery)
    copies = CopyService(ips, kept_copies, lists, settlement, holdings, retries.look_again)
    writer = PoolWriter(ips, settlement, retries.look_again)
    transactions = TransactionService(ips, writer, transaction_log, copies, recovery, retries)
    resumption = Resumption(ips, lookup, writer, copies)
    idempotency = IdempotencyService(IdempotencyRecords(records), transactions, retries, now)
    healing = HealingService(ips, kept_copies, settlement, recovery, now, metrics)
    follower = Follower(
        "healing", ips, Checkpoints(records), healing.look, delay=DELAY, now=now, metrics=metrics
    )
    additions = AdditionService(ips, views, settlement, now)
    return Services(
        accounts=accounts,
        auth=auth,
        pool=PoolService(ips, lookup, copies, settlement, resumption, now),
        additions=additions,
        filling=FillingService(additions),
        lists=lists,
        ips=IPService(lookup, holdings, accounts, transactions, recovery, resumption, now=now),
        allocation=AllocationService(
            ips, views, transactions, recovery, resumption, now=now, pause=pause
        ),
        copies=copies,
        idempotency=idempotency,
        housekeeping=HousekeepingService(
            retries, settlement, recovery, idempotency, follower, metrics
        ),
        doctor=DoctorService(ips, kept_copies, accounts, recovery, settlement, now),
        watch=_watch(settings, metrics),
    )


def _watch(settings: Settings, metrics: Metrics) -> WatchService:
    """What is asked by those who do not wait long."""
    couch = connect(
        replace(
            settings,
            connect_timeout=min(settings.connect_timeout, _PATIENCE),
            read_timeout=min(settings.read_timeout, _PATIENCE),
            threads=2,
        ),
        metrics=metrics,
    )
    return WatchService(Databases(couch), ListRepository(couch))


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
) -> "Flask":
    """The Flask application; the settings are the environment's unless given."""
    from flask import Flask  # noqa: PLC0415 - see above

    from kazoo_ips import api  # noqa: PLC0415

    app = Flask("kazoo_ips", static_folder=None)
    settings = settings or Settings.load(os.environ)
    metrics = Metrics(version("kazoo_ips"))
    services = build(settings, clock=clock, pause=pause, trace=trace, metrics=metrics)
    api.init_app(
        app,
        services,
        clock,
        metrics,
        metrics_token=settings.metrics_token,
        proxies=settings.trusted_proxies,
    )
    metrics.worker_started()
    return app
