"""Evacuating a host: each account there gets additional addresses on other hosts.

Each account keeps its old addresses, whose documents name the new ones. The service stores a part
of the job with the chosen addresses before it assigns them. So a process that continues the job
after a crash finds them again, and gives no account two addresses for one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from kazoo_ips.errors import RuleBroken
from kazoo_ips.model import Changes, DedicatedIP, EventKind, Status
from kazoo_ips.model.jobs import ItemResult, Job, JobItem, JobPart, Position
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.jobs.job_addresses import JobAddresses, Results, with_results
from kazoo_ips.services.jobs.replacements import ReplacementPicker
from kazoo_ips.services.states.places import PlaceService

Save = Callable[[JobPart], JobPart]


class Evacuator:
    """Assigns other addresses to the accounts on a host."""

    def __init__(
        self,
        addresses: JobAddresses,
        ips: IPRepository,
        views: ListRepository,
        transactions: TransactionService,
        places: PlaceService,
    ) -> None:
        self._addresses = addresses
        self._ips = ips
        self._views = views
        self._transactions = transactions
        self._places = places
        self._picker = ReplacementPicker(views, places)

    def listed(
        self, host: str, after: Position, limit: int
    ) -> tuple[list[JobItem], Position | None]:
        """Return a part of the addresses on a host that have to be replaced.

        :returns: the addresses, and the position after them; None at the end
        """
        lines, more = self._views.of_host(host, Status.ASSIGNED, after, limit)
        found = self._ips.by_id([line.address for line in lines])[0]
        replaced = self.replaced(found.values())
        items = [
            JobItem(ip.address, ip.zone, ip.assigned_to)
            for line in lines
            if (ip := found.get(line.address)) and ip.address not in replaced
        ]
        # Addresses of one account follow each other, so that they get addresses of several hosts.
        return sorted(items, key=lambda item: (item.zone, item.account_id or "")), more

    def replaced(self, ips: Iterable[DedicatedIP]) -> set[str]:
        """Return those of these addresses whose account still has the address that replaces it."""
        replacements = {ip.address: ip.replaced_by for ip in ips if ip.replaced_by}
        owners = {ip.address: ip.assigned_to for ip in ips}
        found = self._ips.by_id(replacements.values())[0] if replacements else {}
        return {
            address
            for address, replacement in replacements.items()
            if replacement in found and found[replacement].assigned_to == owners[address]
        }

    def plan(self, host: str, limit: int = 1000) -> Iterator[list[JobItem]]:
        """Yield the addresses that a job would replace, with addresses that are available now.

        If an address gets none, its zone has too few available addresses.

        :param limit: the maximum number of addresses that are yielded at a time
        """
        after: Position | None = ()
        taken: set[str] = set()
        while after is not None:
            items, after = self.listed(host, after, limit)
            yield self._chosen(host, items, taken)

    def available(self, zone: str, host: str) -> int:
        """Return how many addresses of a zone are available on other hosts."""
        return self._picker.available(zone, host)

    def execute(self, job: Job, part: JobPart, save: Save) -> JobPart:
        """Replace the addresses of a part of a job, and return it with their results.

        :param save: writes the part with the chosen addresses, and returns it
        :raises DatastoreUnreachable: CouchDB does not answer; some addresses may be replaced
        """
        lost: set[str] = set()
        for _ in self._addresses.rounds():
            chosen = self._choose(job, part, lost)
            if chosen != part:
                part = save(chosen)
            part = self._replace(job, part, lost)
            if part.is_done:
                return part
        return self._addresses.unfinished(part)

    # Choosing.

    def _choose(self, job: Job, part: JobPart, lost: set[str]) -> JobPart:
        """Return a part with addresses chosen where it has none, or with results without them."""
        unchosen = [i for i in part.items if i.result is None and i.replacement is None]
        if not unchosen:
            return part
        found = self._addresses.find([item.address for item in unchosen])
        replaced = self.replaced(found.values())
        results: Results = {}
        to_choose = []
        for item in (each for each in unchosen if each.address in found):
            ip = found[item.address]
            if not _is_as_planned(job, item, ip) or item.address in replaced:
                results[item.address] = ItemResult.UNCHANGED
            else:
                to_choose.append(item)
        taken = lost | {item.replacement for item in part.items if item.replacement}
        chosen = {item.address: item for item in self._chosen(job.host, to_choose, taken)}
        for item in chosen.values():
            if item.replacement is None:
                results[item.address] = ItemResult.INSUFFICIENT
        items = tuple(chosen.get(item.address, item) for item in part.items)
        return with_results(replace(part, items=items), results)

    def _chosen(self, host: str, items: Sequence[JobItem], taken: set[str]) -> list[JobItem]:
        """Return items with an address each, as far as there are enough.

        :param taken: addresses that are left out; those that are chosen are added
        """
        chosen: list[JobItem] = []
        for zone, group in groupby(sorted(items, key=lambda i: i.zone), key=lambda i: i.zone):
            wanted = list(group)
            free = iter(self._picker.pick(zone, host, len(wanted), taken))
            for item in wanted:
                address = next(free, None)
                chosen.append(replace(item, replacement=address))
                if address:
                    taken.add(address)
        return chosen

    # Assigning, and recording the replacements.

    def _replace(self, job: Job, part: JobPart, lost: set[str]) -> JobPart:
        """Assign the chosen addresses, and record which ones they replace; return the results."""
        open_ = {i.replacement: i for i in part.items if i.result is None and i.replacement}
        if not open_:
            return part
        has, refused = self._assign(job, open_, lost)
        results = self._record_replacements(job, [open_[address] for address in has])
        results |= {open_[address].address: ItemResult.LIMIT_REACHED for address in refused}
        rechosen = {item.address for address, item in open_.items() if address in lost}
        items = tuple(
            replace(item, replacement=None) if item.address in rechosen else item
            for item in part.items
        )
        return with_results(replace(part, items=items), results)

    def _assign(
        self, job: Job, items: Mapping[str, JobItem], lost: set[str]
    ) -> tuple[set[str], set[str]]:
        """Assign addresses to the accounts of items.

        :returns: the addresses that the accounts have then, and those that limits do not permit
        :param items: the items by the addresses that their accounts get
        :param lost: addresses that other accounts have; those that are found here are added
        """
        found = self._addresses.find(list(items))
        others = self._ips.others_by_view(found.values())
        has: set[str] = set()
        changes = []
        for address, ip in found.items():
            account_id = items[address].account_id or ""
            if ip.assigned_to == account_id and self._is_own(job, ip):
                has.add(address)
                continue
            try:
                after = ip.assign(
                    account_id,
                    others=others[ip.address],
                    place=self._places.rules(ip),
                    **self._addresses.stamp(job),
                )
                changes.append((ip, after))
            except RuleBroken:
                lost.add(address)
        lost |= self._addresses.missing([address for address in items if address not in found])
        if not changes:
            return has, set()
        before, after_ = zip(*changes, strict=True)
        assigned, refused = self._transactions.assign_each(before, after_)
        return has | {ip.address for ip in assigned}, refused

    @staticmethod
    def _is_own(job: Job, ip: DedicatedIP) -> bool:
        return ip.event(EventKind.ASSIGNED, ip.assigned_to, job.request_id) is not None

    def _record_replacements(self, job: Job, items: Sequence[JobItem]) -> Results:
        """Write the new address into the document of each old one, and return the results."""
        found = self._addresses.find([item.address for item in items])
        results: Results = {}
        changes = []
        for item in items:
            ip = found.get(item.address)
            if ip is None:
                continue
            if not _is_as_planned(job, item, ip):  # its account has released it meanwhile
                results[item.address] = ItemResult.REPLACED
                continue
            mark = Changes(replaced_by=item.replacement)
            after = ip.change(mark, **self._addresses.stamp(job))
            if after is ip:
                results[item.address] = ItemResult.REPLACED
            else:
                changes.append((ip, after))
        return results | dict.fromkeys(self._addresses.change(changes), ItemResult.REPLACED)


def _is_as_planned(job: Job, item: JobItem, ip: DedicatedIP) -> bool:
    has = (ip.host, ip.status, ip.assigned_to)
    return has == (job.host, Status.ASSIGNED, item.account_id)
