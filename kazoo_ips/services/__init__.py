"""The use cases. They know neither HTTP nor CouchDB."""

from dataclasses import dataclass

from kazoo_ips.services.accounts import AccountService
from kazoo_ips.services.additions import AdditionService
from kazoo_ips.services.allocation import AllocationService
from kazoo_ips.services.auth import AuthService
from kazoo_ips.services.copies import CopyService
from kazoo_ips.services.doctor import DoctorService
from kazoo_ips.services.filling import FillingService
from kazoo_ips.services.housekeeping import HousekeepingService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.ips import IPService
from kazoo_ips.services.lists import ListService
from kazoo_ips.services.pool import PoolService
from kazoo_ips.services.watch import WatchService


@dataclass(frozen=True)
class Services:
    """Everything the service can do, ready to be called."""

    accounts: AccountService
    auth: AuthService
    pool: PoolService
    additions: AdditionService
    filling: FillingService
    lists: ListService
    ips: IPService
    allocation: AllocationService
    copies: CopyService
    idempotency: IdempotencyService
    housekeeping: HousekeepingService
    doctor: DoctorService
    watch: WatchService
