"""The use cases. They know neither HTTP nor CouchDB."""

from dataclasses import dataclass

from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.authentication import AuthenticationService
from kazoo_ips.services.accounts.rate_limits import RateLimits
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.allocation import AllocationService
from kazoo_ips.services.assigning.assignment import IPService
from kazoo_ips.services.assigning.limits import LimitService
from kazoo_ips.services.assigning.reservations import ReservationService
from kazoo_ips.services.assigning.transfers import TransferService
from kazoo_ips.services.events import EventService
from kazoo_ips.services.history.queries import HistoryService
from kazoo_ips.services.history.tenures import TenureService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.jobs.management import JobService
from kazoo_ips.services.jobs.plans import PlanService
from kazoo_ips.services.maintenance.doctor import DoctorService
from kazoo_ips.services.maintenance.health import HealthService
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
from kazoo_ips.services.states.draining import DrainService
from kazoo_ips.services.states.operator_changes import OperatorChanges
from kazoo_ips.services.states.place_changes import PlaceChanges
from kazoo_ips.services.webhooks.management import WebhookService


@dataclass(frozen=True)
class Services:
    """All services of one process, connected and ready to be called."""

    accounts: AccountService
    auth: AuthenticationService
    rate_limits: RateLimits
    pool: PoolService
    address_changes: AddressChangeService
    bulk_additions: BulkAdditionService
    imports: ImportService
    exports: ExportService
    line_storage: LineStorage
    restores: RestoreService
    lists: ListService
    summaries: SummaryService
    usage: UsageService
    low_zones: LowZoneService
    tree_lists: TreeListService
    history: HistoryService
    tenures: TenureService
    ips: IPService
    allocation: AllocationService
    limits: LimitService
    reservations: ReservationService
    transfers: TransferService
    copies: AccountCopyService
    operator_changes: OperatorChanges
    places: PlaceChanges
    drains: DrainService
    idempotency: IdempotencyService
    changes: EventService
    doctor: DoctorService
    health: HealthService
    status: StatusService
    webhooks: WebhookService
    jobs: JobService
    plans: PlanService
