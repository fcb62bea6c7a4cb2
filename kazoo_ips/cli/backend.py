"""The methods of the services that commands call, in this process or at a URL.

A command that uses only these methods runs on CouchDB and over the API. `Instance` and
`RemoteServices` have them; the type checker compares both with this module.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from kazoo_ips.model import (
    Account,
    AccountPage,
    AssignIP,
    CreateIP,
    DeleteIP,
    Disabled,
    DisableIP,
    EnableIP,
    EndRest,
    EvacuateHost,
    Listing,
    ListIPs,
    MoveHost,
    ReleaseIP,
    ReleaseIPs,
    Summary,
    SummaryPage,
    TransferIPs,
)
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.jobs import Job, JobItem
from kazoo_ips.model.limits import Limits
from kazoo_ips.model.reservations import Reservation
from kazoo_ips.model.timelines import Holder, ListEvents
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.services.assigning.limits import LimitStatus
from kazoo_ips.services.jobs.management import ItemPage
from kazoo_ips.services.jobs.plans import EvacuationPlan, MovePlan
from kazoo_ips.services.pool.exports import Line, Restored
from kazoo_ips.services.pool.imports import ImportResult, ImportRow
from kazoo_ips.services.pool.usage import DAYS
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState


class AddressState(Protocol):
    """An address as in a reply: a `DedicatedIP` or a `Listing`."""

    @property
    def address(self) -> str:
        """The address."""

    @property
    def status(self) -> str:
        """A `Status`, or the name of one that only a newer release knows."""

    @property
    def zone(self) -> str:
        """The zone. Empty for addresses that were released together."""

    @property
    def host(self) -> str:
        """The host. Empty for addresses that were released together."""

    @property
    def assigned_to(self) -> str | None:
        """The account that has the address."""


class ChangedAddress(Protocol):
    """An address that was transferred or assigned. The reply has no other members."""

    @property
    def address(self) -> str:
        """The address."""


class Accounts(Protocol):
    """See `AccountService`."""

    def candidates(self, given: str) -> list[Account]:
        """Return the accounts that an id, a realm or a name means."""

    def list(self) -> list[Account]:
        """Return all accounts, by realm."""

    def page(self, limit: int, first: str | None = None) -> AccountPage:
        """Return a part of the list of accounts, by realm."""

    def names(self, account_ids: Collection[str]) -> dict[str, str]:
        """Return the names of accounts by id."""


class Pool(Protocol):
    """See `PoolService`."""

    def create(self, command: CreateIP, request_id: str) -> AddressState:
        """Add an address to the pool."""

    def delete(self, command: DeleteIP, request_id: str) -> AddressState:
        """Delete an address from the pool."""


class IPs(Protocol):
    """See `IPService`."""

    def fetch(self, address: str) -> AddressState:
        """Return an address."""

    def assign(self, command: AssignIP, request_id: str) -> AddressState:
        """Assign an address to an account."""

    def release(self, command: ReleaseIP, request_id: str) -> AddressState:
        """Release an address."""

    def release_all(self, command: ReleaseIPs, request_id: str) -> Sequence[AddressState]:
        """Release several addresses of an account, or all."""


class Transfers(Protocol):
    """See `TransferService`."""

    def transfer(
        self, command: TransferIPs, request_id: str, *, dry_run: bool = False
    ) -> Sequence[ChangedAddress]:
        """Transfer addresses from an account to another one."""


class Reservations(Protocol):
    """See `ReservationService`."""

    def all_open(self, account_id: str) -> list[Reservation]:
        """Return the open reservations of an account."""

    def reserve(
        self, command: ReserveIPs, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Reserve addresses for an account."""

    def extend(
        self, command: ExtendReservation, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Change the end of a reservation."""

    def cancel(
        self, account_id: str, reservation_id: str, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Cancel a reservation."""

    def assign(
        self, command: AssignReserved, request_id: str, *, dry_run: bool = False
    ) -> Sequence[ChangedAddress]:
        """Assign all addresses of a reservation."""


class Jobs(Protocol):
    """See `JobService`."""

    def create(self, command: MoveHost | EvacuateHost, request_id: str) -> Job:
        """Create a job."""

    def list(self) -> list[Job]:
        """Return all jobs of the last weeks."""

    def fetch(self, job_id: str) -> Job:
        """Return a job."""

    def stop(self, job_id: str) -> Job:
        """Stop a job."""

    def items(self, job: Job, limit: int, *, failed: bool = False) -> ItemPage:
        """Return the first addresses of a job."""


class Plans(Protocol):
    """See `PlanService`."""

    def move(self, command: MoveHost) -> MovePlan:
        """Return what a move would do."""

    def evacuate(self, command: EvacuateHost, shown: int) -> EvacuationPlan:
        """Return what an evacuation would do."""

    def items(self, command: EvacuateHost) -> Iterator[JobItem]:
        """Yield the addresses of the plan of an evacuation."""


class JobThread(Protocol):
    """See `JobThread` of the background work."""

    def round(self) -> bool:
        """Do one step of each job; return whether there was one."""


class ChangedState(Protocol):
    """An address that the operator has disabled or enabled, or whose rest has ended."""

    @property
    def address(self) -> str:
        """The address."""

    @property
    def status(self) -> str:
        """A `Status`, or the name of one that only a newer release knows."""

    @property
    def assigned_to(self) -> str | None:
        """The account that has the address."""

    @property
    def disabled(self) -> Disabled | None:
        """Why it is disabled, or will be when it is released."""


class OperatorChanges(Protocol):
    """See `OperatorChanges` of the services."""

    def disable(
        self, command: DisableIP, request_id: str, *, dry_run: bool = False
    ) -> ChangedState:
        """Disable an address."""

    def enable(self, command: EnableIP, request_id: str, *, dry_run: bool = False) -> ChangedState:
        """Enable an address again."""

    def end_rest(
        self, command: EndRest, request_id: str, *, dry_run: bool = False
    ) -> ChangedState:
        """End the rest of an address before its time."""


class Places(Protocol):
    """See `PlaceChanges`."""

    def fetch(self, place: Place) -> PlaceState:
        """Return a zone or a host."""

    def set(self, command: ChangePlace, *, dry_run: bool = False) -> PlaceState:
        """Change the settings of a zone or a host."""


class Drains(Protocol):
    """See `DrainService`."""

    def carry_out(self, place: Place, request_id: str) -> Iterator[int]:
        """Change the addresses of a place as its settings say; yield the number of each step."""


class Lists(Protocol):
    """See `ListService`."""

    def lines(self, query: ListIPs) -> Iterator[Listing]:
        """Yield the lines of a list of any length."""

    def zones(self) -> list[str]:
        """Return the names of all zones."""

    def hosts(self) -> list[str]:
        """Return the names of all hosts."""


class Summaries(Protocol):
    """See `SummaryService`."""

    def pool(self) -> Summary:
        """Return the counts of the whole pool."""

    def zone(self, name: str) -> Summary:
        """Return the counts of one zone."""

    def zones(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next zones."""

    def hosts(self, after: str | None, limit: int, zone: str | None = None) -> SummaryPage:
        """Return the counts of the next hosts."""

    def accounts(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next accounts."""


class AccountLimits(Protocol):
    """See `LimitService`."""

    def status(self, account_id: str) -> LimitStatus:
        """Return the limits of an account, and what counts against them."""

    def set(
        self, account_id: str, limits: Limits, request_id: str, *, dry_run: bool = False
    ) -> LimitStatus:
        """Set the limits of an account."""


class History(Protocol):
    """See `HistoryService`."""

    def holder(self, address: str, at: int) -> Holder:
        """Return who had an address at a time."""

    def lines(self, query: ListEvents) -> Iterator[HistoryEvent]:
        """Yield the events of a list of any length."""

    def years(self) -> list[int]:
        """Return the years that have a database."""

    def export(self, year: int) -> Iterator[HistoryEvent]:
        """Yield the events in the database of a year, the earliest first."""


class Imports(Protocol):
    """See `ImportService`."""

    def add(
        self, rows: Iterable[ImportRow], request_id: str, *, dry_run: bool = False
    ) -> Iterator[list[ImportResult]]:
        """Add the addresses that the pool does not have."""


class Exports(Protocol):
    """See `ExportService`."""

    def size(self, *, history: bool = True) -> int:
        """Return about how many lines an export has; 0 if that is not known."""

    def lines(self, *, history: bool = True) -> Iterator[Line]:
        """Yield the lines of an export."""


class Restores(Protocol):
    """See `RestoreService`."""

    def restore(self, lines: Iterable[Line], *, dry_run: bool = False) -> Iterator[Restored]:
        """Store the documents of an export."""


class Usage(Protocol):
    """See `UsageService`."""

    def series(self, zone: str, days: int = DAYS) -> UsageSeries:
        """Return the use of a zone, day by day."""


class ServiceStatus(Protocol):
    """See `StatusService`."""

    def as_json(self) -> Mapping[str, Any]:
        """Return the state of all instances as a JSON object."""


class Backend(Protocol):
    """The services that commands call."""

    @property
    def accounts(self) -> Accounts:
        """The accounts."""

    @property
    def pool(self) -> Pool:
        """The pool."""

    @property
    def ips(self) -> IPs:
        """Assignments."""

    @property
    def transfers(self) -> Transfers:
        """Transfers."""

    @property
    def lists(self) -> Lists:
        """Lists of addresses."""

    @property
    def summaries(self) -> Summaries:
        """Counts of addresses."""

    @property
    def limits(self) -> AccountLimits:
        """The limits of accounts."""

    @property
    def reservations(self) -> Reservations:
        """The reservations of accounts."""

    @property
    def jobs(self) -> Jobs:
        """Jobs of the operator."""

    @property
    def plans(self) -> Plans:
        """What jobs would do."""

    @property
    def job_thread(self) -> JobThread:
        """The work on jobs in this process."""

    @property
    def operator_changes(self) -> OperatorChanges:
        """The states of single addresses."""

    @property
    def places(self) -> Places:
        """Zones and hosts."""

    @property
    def drains(self) -> Drains:
        """The work on drained zones and hosts."""

    @property
    def history(self) -> History:
        """The history of addresses."""

    @property
    def imports(self) -> Imports:
        """Imports of lists."""

    @property
    def exports(self) -> Exports:
        """Exports of everything."""

    @property
    def restores(self) -> Restores:
        """Imports of exports."""

    @property
    def usage(self) -> Usage:
        """The use of zones over time."""

    @property
    def status(self) -> ServiceStatus:
        """The state of all instances."""
