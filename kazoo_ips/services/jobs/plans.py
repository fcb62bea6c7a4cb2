"""What a job would do: the replies of dry runs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kazoo_ips.model import EvacuateHost, MoveHost
from kazoo_ips.model.jobs import JobItem
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.jobs.evacuating import Evacuator
from kazoo_ips.services.jobs.management import JobService


@dataclass(frozen=True, slots=True)
class MovePlan:
    """The addresses that would move: their number by status and zone."""

    command: MoveHost
    counts: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """What an evacuation needs of a zone.

    :param needed: addresses that have to be replaced
    :param available: available addresses on other hosts
    """

    zone: str
    needed: int
    available: int

    @property
    def shortfall(self) -> int:
        """How many addresses cannot be replaced."""
        return max(0, self.needed - self.available)


@dataclass(frozen=True, slots=True)
class EvacuationPlan:
    """What an evacuation would do.

    :param items: the first addresses, each with an address that is available now
    """

    command: EvacuateHost
    total: int
    zones: tuple[ZonePlan, ...]
    items: tuple[JobItem, ...]


class PlanService:
    """Returns what jobs would do. It writes nothing.

    :param jobs: knows for which hosts jobs can be created
    """

    def __init__(self, jobs: JobService, views: ListRepository, evacuator: Evacuator) -> None:
        self._jobs = jobs
        self._views = views
        self._evacuator = evacuator

    def move(self, command: MoveHost) -> MovePlan:
        """Return what a move would do.

        :raises BadIdentifier: the host has no addresses and no settings
        :raises JobExists: another job works on the host
        """
        self._jobs.check_host(command.host)
        return MovePlan(command, self._views.count_of_host(command.host))

    def evacuate(self, command: EvacuateHost, shown: int) -> EvacuationPlan:
        """Return what an evacuation would do.

        :param shown: the maximum number of addresses in the plan
        :raises BadIdentifier: the host has no addresses and no settings
        :raises JobExists: another job works on the host
        """
        self._jobs.check_host(command.host)
        needed: Counter[str] = Counter()
        items: list[JobItem] = []
        for part in self._evacuator.plan(command.host):
            needed.update(item.zone for item in part)
            items += part[: shown - len(items)]
        zones = (
            ZonePlan(zone, count, self._evacuator.available(zone, command.host))
            for zone, count in sorted(needed.items())
        )
        return EvacuationPlan(command, needed.total(), tuple(zones), tuple(items))

    def items(self, command: EvacuateHost) -> Iterator[JobItem]:
        """Yield all addresses of the plan of an evacuation."""
        for part in self._evacuator.plan(command.host):
            yield from part
