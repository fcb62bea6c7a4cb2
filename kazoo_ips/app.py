"""The composition root: builds the services and the Flask application from the settings.

This is the only module that imports every layer. Flask and the HTTP layer are imported only when
an application is created, so commands start in half the time.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from kazoo_ips.background.change_follower import ChangeFollower
from kazoo_ips.background.repair import DELAY, RepairService
from kazoo_ips.background.worker import BackgroundWorker
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import recent_writes, shared_table
from kazoo_ips.processes.token_buckets import TokenBuckets
from kazoo_ips.repositories.access import AccessRepository
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.accounts import AccountRepository
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.filtered_lists import FilteredListRepository
from kazoo_ips.repositories.idempotency_records import IdempotencyRecords
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.signing_keys import SigningKeyRepository
from kazoo_ips.repositories.transaction_log import TransactionLog
from kazoo_ips.services import Services
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.authentication import AuthenticationService
from kazoo_ips.services.accounts.login_rate_limit import LoginRateLimit
from kazoo_ips.services.accounts.rate_limits import RateLimits
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.account_holdings import AccountHoldings
from kazoo_ips.services.assigning.allocation import AllocationService
from kazoo_ips.services.assigning.assignment import IPService
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.pool_writes import PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.maintenance.database_access import DatabaseAccessService
from kazoo_ips.services.maintenance.doctor import DoctorService
from kazoo_ips.services.maintenance.health import HealthService
from kazoo_ips.services.pool.bulk_additions import BulkAdditionService
from kazoo_ips.services.pool.imports import ImportService
from kazoo_ips.services.pool.lists import ListService
from kazoo_ips.services.pool.membership import PoolService
from kazoo_ips.services.retry_queue import RetryQueue

if TYPE_CHECKING:
    from flask import Flask

_INDEX_TIMEOUT = 3600.0
"""Seconds that CouchDB may take to build an index."""
_HEALTH_TIMEOUT = 1.0
"""Seconds that a health check may wait for CouchDB: load balancers and Prometheus do not wait
long."""


@dataclass(frozen=True)
class Instance(Services):
    """All services of one process, and its background work."""

    background: BackgroundWorker


def connect(
    settings: Settings,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Couch:
    """Return a client for the CouchDB of the settings. It sends nothing yet."""
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
    """Return the databases and design documents of the service, for an administrator to set up.

    The client waits long enough for an index to be built.
    """
    return Databases(connect(replace(settings.as_administrator(), read_timeout=_INDEX_TIMEOUT)))


def access(settings: Settings) -> DatabaseAccessService:
    """Return the service that gives the service's CouchDB user access to the databases.

    An administrator's client changes the permissions. The user's own client checks them.
    """
    member = connect(settings)
    administrator = connect(settings.as_administrator())
    return DatabaseAccessService(AccessRepository(administrator), AccessRepository(member))


def build(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Instance:
    """Connect repositories and services. They send nothing to CouchDB yet.

    :param clock: returns the time in Unix seconds
    :param pause: sleeps for a number of seconds
    :param trace: called with method and URL of every request that is sent to CouchDB
    :param metrics: the metrics to count in; new ones by default
    """

    def now() -> int:
        return int(clock()) + GREGORIAN_EPOCH

    metrics = metrics or Metrics()
    couch = connect(settings, trace, metrics)
    keys = SigningKeyRepository(couch, now)
    # The cache of tokens is filled from the cache of accounts, so their ages add up. Each cache
    # keeps entries for half of the time.
    cache_time = settings.identity_cache / 2
    accounts = AccountService(AccountRepository(couch), now, cache_time)
    auth = AuthenticationService(
        keys,
        accounts,
        LoginRateLimit(shared_table.shared("attempts"), settings.login_limit, clock),
        clock=clock,
        lifetime=settings.token_lifetime,
        cache_time=cache_time,
        refusal_time=settings.refusal_time,
    )
    rate_limits = RateLimits(
        TokenBuckets(shared_table.shared("requests"), clock),
        metrics,
        per_account=settings.account_limit,
        per_client=settings.client_limit,
        keys=settings.key_limit,
    )
    views, records = ListRepository(couch), Records(couch)
    transaction_log = TransactionLog(records)
    ips = IPRepository(couch, views, settings.write_quorum == "all")
    copy_documents = AccountCopyRepository(couch)
    retries = RetryQueue()
    conflicts = ConflictResolver(ips, copy_documents, now, metrics)
    recovery = RecoveryService(
        ips, transaction_log, conflicts, retries.schedule_check, now, pause, metrics
    )
    holdings = AccountHoldings(ips, copy_documents, views, recovery, recent_writes.shared(), pause)
    lists = ListService(views, FilteredListRepository(couch, views), holdings)
    reader = IPReader(ips, conflicts, recovery)
    copies = AccountCopyService(
        ips, copy_documents, lists, conflicts, holdings, retries.schedule_check
    )
    writer = PoolWriter(ips, conflicts, retries.schedule_check)
    transactions = TransactionService(ips, writer, transaction_log, copies, recovery, retries)
    resumption = Resumption(ips, reader, writer, copies)
    idempotency = IdempotencyService(
        IdempotencyRecords(records), transactions, retries, rate_limits, now
    )
    repair = RepairService(ips, copy_documents, conflicts, recovery, now, metrics)
    follower = ChangeFollower(
        "healing", ips, Checkpoints(records), repair.check, delay=DELAY, now=now, metrics=metrics
    )
    additions = BulkAdditionService(ips, views, conflicts, now)
    return Instance(
        accounts=accounts,
        auth=auth,
        rate_limits=rate_limits,
        pool=PoolService(ips, reader, copies, conflicts, resumption, now),
        bulk_additions=additions,
        imports=ImportService(additions),
        lists=lists,
        ips=IPService(reader, holdings, accounts, transactions, recovery, resumption, now=now),
        allocation=AllocationService(
            ips, views, transactions, recovery, resumption, now=now, pause=pause
        ),
        copies=copies,
        idempotency=idempotency,
        background=BackgroundWorker(
            ips, retries, conflicts, recovery, idempotency, follower, metrics
        ),
        doctor=DoctorService(ips, copy_documents, accounts, recovery, conflicts, now),
        health=_health_service(settings, metrics),
    )


def _health_service(settings: Settings, metrics: Metrics) -> HealthService:
    """Return the health checks, with a client of short timeouts."""
    couch = connect(
        replace(
            settings,
            connect_timeout=min(settings.connect_timeout, _HEALTH_TIMEOUT),
            read_timeout=min(settings.read_timeout, _HEALTH_TIMEOUT),
            threads=2,
        ),
        metrics=metrics,
    )
    return HealthService(Databases(couch), ListRepository(couch))


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
) -> "Flask":
    """Return the Flask application. By default, the settings are those of the environment."""
    from flask import Flask  # noqa: PLC0415 - see the module's docstring

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
