"""Moving all addresses of a host: the same addresses on another host or in another zone."""

from collections.abc import Callable, Iterable

from kazoo_ips.errors import RuleBroken
from kazoo_ips.model import Changes, DedicatedIP, EventKind
from kazoo_ips.model.jobs import ItemResult, Job, JobItem, JobPart, Position
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.jobs.job_addresses import JobAddresses, Results, with_results
from kazoo_ips.services.states.places import PlaceService


class Mover:
    """Moves addresses. Each moves by itself, and its account's copy follows."""

    def __init__(
        self, addresses: JobAddresses, views: ListRepository, places: PlaceService
    ) -> None:
        self._addresses = addresses
        self._views = views
        self._places = places

    def listed(
        self, host: str, after: Position, limit: int
    ) -> tuple[list[JobItem], Position | None]:
        """Return a part of the addresses of a host, and the position after it; None at the end."""
        lines, more = self._views.of_host(host, None, after, limit)
        return [JobItem(line.address, line.zone, line.assigned_to) for line in lines], more

    def execute(self, job: Job, part: JobPart, _save: Callable[[JobPart], JobPart]) -> JobPart:
        """Move the addresses of a part of a job, and return it with their results.

        If a part is executed again after a crash, an address that the job has moved counts as
        moved.

        :raises DatastoreUnreachable: CouchDB does not answer; some addresses may have moved
        """
        for _ in self._addresses.rounds():
            left = [item.address for item in part.items if item.result is None]
            part = with_results(part, self._move(job, self._addresses.find(left).values()))
            if part.is_done:
                break
        return self._addresses.unfinished(part)

    def _move(self, job: Job, ips: Iterable[DedicatedIP]) -> Results:
        """Move addresses, and return the results of those that are done."""
        results: Results = {}
        changes: list[tuple[DedicatedIP, DedicatedIP]] = []
        where = Changes(zone=job.to_zone, host=job.to_host)
        for ip in ips:
            place = self._places.rules(ip, where)
            try:
                after = ip.change(where, place=place, **self._addresses.stamp(job))
            except RuleBroken:
                results[ip.address] = ItemResult.UNKNOWN_STATUS
                continue
            if after is ip:
                moved = ip.event(EventKind.CHANGED, None, job.request_id)
                results[ip.address] = ItemResult.MOVED if moved else ItemResult.UNCHANGED
            elif ip.host != job.host:  # another client has moved it meanwhile
                results[ip.address] = ItemResult.UNCHANGED
            else:
                changes.append((ip, after))
        return results | dict.fromkeys(self._addresses.change(changes), ItemResult.MOVED)
