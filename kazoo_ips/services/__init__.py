"""The use cases. They know neither HTTP nor CouchDB."""

from dataclasses import dataclass

from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.authentication import AuthenticationService
from kazoo_ips.services.accounts.rate_limits import RateLimits
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.allocation import AllocationService
from kazoo_ips.services.assigning.assignment import IPService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.maintenance.doctor import DoctorService
from kazoo_ips.services.maintenance.health import HealthService
from kazoo_ips.services.pool.bulk_additions import BulkAdditionService
from kazoo_ips.services.pool.imports import ImportService
from kazoo_ips.services.pool.lists import ListService
from kazoo_ips.services.pool.membership import PoolService


@dataclass(frozen=True)
class Services:
    """All services of one process, connected and ready to be called."""

    accounts: AccountService
    auth: AuthenticationService
    rate_limits: RateLimits
    pool: PoolService
    bulk_additions: BulkAdditionService
    imports: ImportService
    lists: ListService
    ips: IPService
    allocation: AllocationService
    copies: AccountCopyService
    idempotency: IdempotencyService
    doctor: DoctorService
    health: HealthService
