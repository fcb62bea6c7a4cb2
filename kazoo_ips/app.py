"""The composition root: creates the services and the Flask application from the settings.

This is the only module that imports every layer. It imports Flask and `api/` only when it creates
an application. Commands, which need neither, start in half the time.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from kazoo_ips.background.change_follower import ChangeFollower, FollowerOptions, Pending
from kazoo_ips.background.consumer import Consumer, Receiver
from kazoo_ips.background.jobs import JobThread
from kazoo_ips.background.lease import Lease
from kazoo_ips.background.repair import DELAY, RepairService
from kazoo_ips.background.scheduled_doctor import ScheduledDoctor
from kazoo_ips.background.state_keeper import StateKeeper
from kazoo_ips.background.webhook_sender import WebhookSender
from kazoo_ips.background.worker import BackgroundWorker
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.model.jobs import JobKind
from kazoo_ips.model.times import gregorian
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.outbound.crossbar import Crossbar
from kazoo_ips.outbound.destinations import Destinations
from kazoo_ips.outbound.http_sender import HTTPSender
from kazoo_ips.processes import recent_writes, shared_table
from kazoo_ips.repositories.access import AccessRepository
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.accounts import AccountRepository
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.cluster import ClusterRepository
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.doctor_reports import DoctorReportRepository
from kazoo_ips.repositories.event_feed import EventFeed
from kazoo_ips.repositories.expiries import ExpiryRepository
from kazoo_ips.repositories.exports import ExportRepository
from kazoo_ips.repositories.filtered_lists import FilteredListRepository
from kazoo_ips.repositories.history import HistoryRepository
from kazoo_ips.repositories.history_archive import HistoryArchive
from kazoo_ips.repositories.history_lookup import HistoryLookup
from kazoo_ips.repositories.history_years import HistoryYears
from kazoo_ips.repositories.idempotency_records import IdempotencyRecords
from kazoo_ips.repositories.instances import WorkerRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.jobs import JobRepository
from kazoo_ips.repositories.limits import LimitRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.low_zones import LowMarkRepository
from kazoo_ips.repositories.place_settings import PlaceSettingsRepository
from kazoo_ips.repositories.pool_feed import PoolFeed
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.reservations import ReservationRepository
from kazoo_ips.repositories.signing_keys import SigningKeyRepository
from kazoo_ips.repositories.transaction_log import TransactionLog
from kazoo_ips.repositories.unarchived_changes import UnarchivedChanges
from kazoo_ips.repositories.usage import UsageRepository
from kazoo_ips.repositories.webhooks import WebhookRepository
from kazoo_ips.services import Services
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.authentication import AuthenticationService
from kazoo_ips.services.accounts.login_rate_limit import LoginRateLimit
from kazoo_ips.services.accounts.rate_limits import RateLimits, TokenBuckets
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.account_holdings import AccountHoldings
from kazoo_ips.services.assigning.allocation import AllocationService
from kazoo_ips.services.assigning.assignment import IPService
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.limits import LimitService
from kazoo_ips.services.assigning.pool_writes import PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.reservations import ReservationService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.supply import SupplyService
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.assigning.transfers import TransferService
from kazoo_ips.services.events import EventService
from kazoo_ips.services.history import archiving
from kazoo_ips.services.history.archiving import Archiver
from kazoo_ips.services.history.queries import HistoryService
from kazoo_ips.services.history.tenures import TenureService
from kazoo_ips.services.history.unarchived import UnarchivedEvents
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.jobs.evacuating import Evacuator
from kazoo_ips.services.jobs.job_addresses import JobAddresses
from kazoo_ips.services.jobs.management import JobService
from kazoo_ips.services.jobs.moving import Mover
from kazoo_ips.services.jobs.plans import PlanService
from kazoo_ips.services.jobs.running import JobExecutor, JobRunner
from kazoo_ips.services.kazoo.bus import Bus
from kazoo_ips.services.kazoo.document_changes import EXCHANGE, DocumentChanges
from kazoo_ips.services.kazoo.reconciliation import Reconciliation
from kazoo_ips.services.maintenance.database_access import DatabaseAccessService
from kazoo_ips.services.maintenance.doctor import DoctorService
from kazoo_ips.services.maintenance.examinations import ExaminationService
from kazoo_ips.services.maintenance.health import HealthService
from kazoo_ips.services.maintenance.retention import RetentionService
from kazoo_ips.services.maintenance.status import StatusService
from kazoo_ips.services.pool.address_changes import AddressChangeService
from kazoo_ips.services.pool.bulk_additions import BulkAdditionService
from kazoo_ips.services.pool.exports import ExportService, LineStorage, RestoreService
from kazoo_ips.services.pool.imports import ImportService
from kazoo_ips.services.pool.lists import ListService
from kazoo_ips.services.pool.low_zones import LowZoneService
from kazoo_ips.services.pool.membership import PoolService
from kazoo_ips.services.pool.summaries import SummaryService
from kazoo_ips.services.pool.tree_lists import TreeListService
from kazoo_ips.services.pool.usage import UsageService
from kazoo_ips.services.retry_queue import RetryQueue
from kazoo_ips.services.states.batches import BatchWriter
from kazoo_ips.services.states.corrections import CorrectionService
from kazoo_ips.services.states.draining import DrainService
from kazoo_ips.services.states.expiry import ExpiryService
from kazoo_ips.services.states.operator_changes import OperatorChanges
from kazoo_ips.services.states.place_changes import PlaceChanges
from kazoo_ips.services.states.places import PlaceService
from kazoo_ips.services.webhooks.delivery import Deliverer
from kazoo_ips.services.webhooks.management import WebhookService
from kazoo_ips.services.webhooks.shared_feed import SharedFeed

if TYPE_CHECKING:
    from flask import Flask

_VERSION = version("kazoo_ips")

_INDEX_TIMEOUT = 3600.0
"""Read timeout, in seconds, of the client that installs design documents: CouchDB may need that
long to build an index."""
_HEALTH_TIMEOUT = 1.0
"""Maximum number of seconds that a health check waits for CouchDB. Load balancers and Prometheus
wait only a short time for its reply."""

ARCHIVER = "history"
"""The name of the change follower that writes the archive."""
_WAIT_FOR_EVENTS = 0.6
"""The part of the read timeout for which one request to CouchDB waits for new events."""


@dataclass(frozen=True)
class Instance(Services):
    """All services of one process, and the objects of its background work.

    :param consumers: creates the consumers of the feed for which the settings name a receiver
    :param archive: the archive of the history
    :param events: the feed of events
    """

    background: BackgroundWorker
    consumers: Callable[[], Sequence[Consumer]]
    archive: HistoryArchive
    events: EventFeed
    webhook_sender: WebhookSender
    examinations: ExaminationService
    scheduled_doctor: ScheduledDoctor
    job_runner: JobRunner
    job_thread: JobThread


def connect(
    settings: Settings,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Couch:
    """Return a client for the CouchDB of the settings. This sends no request yet.

    :param trace: called with method and URL of every request that is sent to CouchDB
    :param metrics: the metrics to count requests and refused logins in; None counts nothing
    """
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
    """Return the databases and design documents of the service, with an administrator's client.

    The client waits until CouchDB has built an index.
    """
    return Databases(connect(replace(settings.as_administrator(), read_timeout=_INDEX_TIMEOUT)))


def history_years(settings: Settings) -> HistoryYears:
    """Return the databases of the history, with an administrator's client."""
    return HistoryYears(connect(settings.as_administrator()), gregorian(time.time))


def retention(settings: Settings) -> RetentionService:
    """Return the service that deletes years of the history, with an administrator's client."""
    checkpoints = Checkpoints(Records(connect(settings.as_administrator())))
    return RetentionService(
        history_years(settings), checkpoints, settings.history_years, gregorian(time.time)
    )


def access(settings: Settings) -> DatabaseAccessService:
    """Return the service that gives the service's CouchDB user access to the databases.

    An administrator's client changes the permissions. The user's own client checks them.
    """
    member = connect(settings)
    administrator = connect(settings.as_administrator())
    return DatabaseAccessService(AccessRepository(administrator), AccessRepository(member))


def build(  # noqa: PLR0915 - one for each service that others need
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
    metrics: Metrics | None = None,
) -> Instance:
    """Create and connect repositories and services. This sends no request to CouchDB yet.

    :param clock: returns the time in Unix seconds
    :param pause: waits for a number of seconds
    :param trace: called with method and URL of every request that is sent to CouchDB
    :param metrics: the metrics to count in; new ones by default
    """

    now = gregorian(clock)
    metrics = metrics or Metrics()
    couch = connect(settings, trace, metrics)
    keys = SigningKeyRepository(couch, now)
    # Entries of the cache of tokens come from the cache of accounts, so their ages add up. Each
    # cache keeps its entries for half of the time.
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
    counts = CountRepository(couch)
    transaction_log = TransactionLog(records)
    ips = IPRepository(couch, views, settings.write_quorum == "all")
    copy_documents = AccountCopyRepository(couch)
    retries = RetryQueue()
    conflicts = ConflictResolver(ips, copy_documents, transaction_log, now, metrics)
    places = PlaceService(PlaceSettingsRepository(records), now)
    recovery = RecoveryService(
        ips, transaction_log, conflicts, places, retries.schedule_check, now, pause, metrics
    )
    recent = recent_writes.shared()
    holdings = AccountHoldings(ips, copy_documents, views, recovery, recent, pause)
    lists = ListService(views, FilteredListRepository(couch, views), holdings)
    reader = IPReader(ips, conflicts, recovery)
    copies = AccountCopyService(
        ips, copy_documents, lists, conflicts, recent, retries.schedule_check
    )
    writer = PoolWriter(ips, conflicts, retries.schedule_check)
    limits = LimitService(
        LimitRepository(records),
        ips,
        ReservationRepository(records),
        accounts,
        holdings,
        recovery,
        metrics,
        now,
        pause,
    )
    transactions = TransactionService(
        ips, writer, transaction_log, copies, recovery, retries, limits
    )
    resumption = Resumption(ips, reader, writer, copies)
    expiries, batches = ExpiryRepository(couch), BatchWriter(reader, writer)
    drains = DrainService(places, views, batches, now)
    keeper = StateKeeper(
        Lease("states", Checkpoints(records), now),
        places,
        ExpiryService(expiries, batches, places, now),
        drains,
    )
    corrections = CorrectionService(ips, writer, places, now, metrics)
    idempotency = IdempotencyService(
        IdempotencyRecords(records), transactions, retries, rate_limits, now
    )
    repair = RepairService(ips, copy_documents, conflicts, recovery, limits, now, metrics)
    follower = ChangeFollower(
        "healing",
        ips,
        Checkpoints(records),
        repair.check,
        options=FollowerOptions(delay=DELAY),
        now=now,
        metrics=metrics,
    )
    additions = BulkAdditionService(ips, views, conflicts, places, now)
    years = HistoryYears(couch, now, metrics.history_years_missing.inc)
    usage = UsageService(UsageRepository(years), counts, now)
    archive = HistoryArchive(years)
    archiver = ChangeFollower(
        ARCHIVER,
        PoolFeed(couch),
        Checkpoints(records),
        Archiver(ips, recovery, archive, HistoryLookup(years), corrections, now, metrics).archive,
        options=FollowerOptions(
            delay=archiving.DELAY,
            poll=archiving.POLL,
            retry_interval=archiving.RETRY_INTERVAL,
            retry_limit=None,
        ),
        now=now,
    )
    events = EventFeed(years, settings.read_timeout * _WAIT_FOR_EVENTS)
    archived = HistoryRepository(years, now)
    exports = ExportRepository(couch, years, copy_documents)
    changes = UnarchivedChanges(couch, ips, PoolFeed(couch), Checkpoints(records), ARCHIVER)
    lookup = HistoryLookup(years)
    unarchived = UnarchivedEvents(ips, changes, lookup, reader, recovery, now, pause)
    history = HistoryService(archived, unarchived, now)
    doctor = DoctorService(
        ips, copy_documents, accounts, recovery, conflicts, limits, views, counts, places, now
    )
    status = _status(couch, years, now)
    reports = DoctorReportRepository(records)
    examinations = ExaminationService(doctor, reports, status, now)
    low_zones = LowZoneService(
        counts,
        LowMarkRepository(records),
        archive,
        settings.low_percent,
        now,
    )
    retention = RetentionService(
        years, Checkpoints(records), settings.history_years, now, metrics.history_not_deleted.inc
    )
    allocation = AllocationService(
        ips,
        SupplyService(views, expiries, places, now),
        transactions,
        recovery,
        resumption,
        places,
        now=now,
        pause=pause,
    )
    webhooks, webhook_sender = _webhooks(settings, records, accounts, events, clock, metrics)
    job_addresses = JobAddresses(ips, reader, transactions, now, pause)
    evacuator = Evacuator(job_addresses, ips, views, transactions, places)
    mover = Mover(job_addresses, views, places)
    executors: dict[JobKind, JobExecutor] = {JobKind.MOVE: mover, JobKind.EVACUATE: evacuator}
    job_runner = JobRunner(JobRepository(records), executors, now, metrics)
    lines = LineStorage(exports)
    place_changes = PlaceChanges(places, drains, counts, pause)
    jobs = JobService(JobRepository(records), place_changes, now)
    return Instance(
        accounts=accounts,
        auth=auth,
        rate_limits=rate_limits,
        pool=PoolService(ips, reader, copies, conflicts, resumption, places, now),
        address_changes=AddressChangeService(reader, transactions, resumption, places, now),
        bulk_additions=additions,
        imports=ImportService(additions),
        exports=ExportService(exports, reader, recovery, events, now),
        line_storage=lines,
        restores=RestoreService(lines),
        lists=lists,
        summaries=SummaryService(counts, accounts, usage, low_zones),
        usage=usage,
        low_zones=low_zones,
        tree_lists=TreeListService(lists, accounts, counts),
        history=history,
        tenures=TenureService(history, archived, unarchived, lists),
        ips=IPService(
            reader, holdings, accounts, transactions, recovery, resumption, places, now=now
        ),
        allocation=allocation,
        reservations=ReservationService(
            ReservationRepository(records),
            ips,
            reader,
            writer,
            allocation,
            transactions,
            recovery,
            resumption,
            places,
            now=now,
        ),
        limits=limits,
        transfers=TransferService(reader, transactions, recovery, resumption, now),
        copies=copies,
        operator_changes=OperatorChanges(reader, writer, resumption, places, now),
        places=place_changes,
        drains=drains,
        idempotency=idempotency,
        background=BackgroundWorker(
            ips,
            retries,
            conflicts,
            recovery,
            limits,
            idempotency,
            follower,
            archiver,
            retention,
            low_zones,
            status,
            keeper,
            metrics,
        ),
        archive=archive,
        events=events,
        consumers=partial(
            _consumers, settings, events, Checkpoints(records), accounts, auth, now, metrics
        ),
        changes=EventService(events),
        webhooks=webhooks,
        webhook_sender=webhook_sender,
        jobs=jobs,
        plans=PlanService(jobs, views, evacuator),
        job_runner=job_runner,
        job_thread=JobThread(Lease("jobs", Checkpoints(records), now), job_runner, metrics),
        doctor=doctor,
        examinations=examinations,
        scheduled_doctor=ScheduledDoctor(
            examinations,
            status,
            Lease("doctor", Checkpoints(records), now),
            hours=settings.doctor_window(),
            now=now,
            pause=pause,
            metrics=metrics,
        ),
        health=_health_service(settings, metrics, now),
        status=status,
    )


def _status(couch: Couch, years: HistoryYears, now: Callable[[], int]) -> StatusService:
    records = Records(couch)
    return StatusService(
        WorkerRepository(records),
        ClusterRepository(couch, years),
        Checkpoints(records),
        LowMarkRepository(records),
        DoctorReportRepository(records),
        _VERSION,
        now,
    )


def _consumers(  # noqa: PLR0913, PLR0917 - one for each collaborator
    settings: Settings,
    events: EventFeed,
    checkpoints: Checkpoints,
    accounts: AccountService,
    auth: AuthenticationService,
    now: Callable[[], int],
    metrics: Metrics,
) -> list[Consumer]:
    """Return a consumer of the feed for each broker and for Crossbar, as far as they are set.

    :raises ImportError: a broker is set, and the extra `kazoo_ips[bus]` is not installed
    """
    consumers = []
    changes = DocumentChanges(_VERSION)

    def add(name: str, receiver: Receiver, pending: Pending | None = None) -> None:
        consumers.append(
            Consumer(
                name,
                events,
                checkpoints,
                receiver,
                now=now,
                metrics=metrics.consumer(name),
                pending=pending,
            )
        )

    for url in settings.brokers():
        from kazoo_ips.outbound.amqp import Broker  # noqa: PLC0415 - the extra may be missing

        broker = Broker(
            url.label,
            url.host,
            url.port,
            user=url.user,
            password=url.password,
            virtual_host=url.virtual_host,
            tls=url.tls,
            exchange=EXCHANGE,
        )
        # The name does not depend on the password or on the order of the brokers.
        name = f"bus-{url.label.replace('/', '%2F')}"
        add(name, Bus(broker, changes, metrics.bus_messages(url.label)))
    if settings.crossbar_url:
        reconciliation = Reconciliation(
            Crossbar(settings.crossbar_url),
            accounts,
            auth,
            now=now,
            token_lifetime=settings.token_lifetime,
            counts=metrics,
        )
        add("crossbar", reconciliation, reconciliation)
    return consumers


def _webhooks(  # noqa: PLR0913, PLR0917 - one for each collaborator
    settings: Settings,
    records: Records,
    accounts: AccountService,
    events: EventFeed,
    clock: Callable[[], float],
    metrics: Metrics,
) -> tuple[WebhookService, WebhookSender]:
    """Return the service that manages webhooks, and the sender that delivers to them."""

    now = gregorian(clock)
    webhooks, feed = WebhookRepository(records), SharedFeed(events)
    destinations = Destinations.parse(settings.webhook_networks)
    deliverer = Deliverer(
        webhooks,
        accounts,
        feed,
        HTTPSender(destinations),
        clock=clock,
        metrics=metrics,
        user_agent=f"kazoo_ips/{_VERSION}",
    )
    service = WebhookService(
        webhooks, events, deliverer, destinations, clock=clock, limit=settings.webhook_limit
    )
    lease = Lease("webhooks", Checkpoints(records), now)
    return service, WebhookSender(lease, webhooks, feed, deliverer, now, metrics)


def _health_service(settings: Settings, metrics: Metrics, now: Callable[[], int]) -> HealthService:
    """Return the health checks, whose own client has short timeouts."""
    couch = connect(
        replace(
            settings,
            connect_timeout=min(settings.connect_timeout, _HEALTH_TIMEOUT),
            read_timeout=min(settings.read_timeout, _HEALTH_TIMEOUT),
            threads=2,
        ),
        metrics=metrics,
    )
    return HealthService(
        Databases(couch),
        ListRepository(couch),
        LowMarkRepository(Records(couch)),
        _status(couch, HistoryYears(couch, now), now),
    )


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
    trace: Callable[[str, str], None] | None = None,
) -> "Flask":
    """Return the Flask application.

    :param settings: those of the environment by default
    :param clock: returns the time in Unix seconds
    :param pause: waits for a number of seconds
    :param trace: called with method and URL of every request that is sent to CouchDB
    :raises BadSetting: a setting of the environment is invalid
    """
    # See the module's docstring.
    from kazoo_ips import api, console  # noqa: PLC0415
    from kazoo_ips.api.application import Application  # noqa: PLC0415

    app = Application("kazoo_ips", static_folder=None)
    settings = settings or Settings.load(os.environ)
    metrics = Metrics(_VERSION)
    services = build(settings, clock=clock, pause=pause, trace=trace, metrics=metrics)
    api.init_app(
        app,
        services,
        clock,
        metrics,
        metrics_token=settings.metrics_token,
        proxies=settings.trusted_proxies,
    )
    console.init_app(app)
    metrics.worker_started()
    return app
