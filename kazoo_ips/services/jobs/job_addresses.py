"""The addresses of a job: read, changed each by itself, and tried again while others write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from kazoo_ips.model import DedicatedIP
from kazoo_ips.model.jobs import ItemResult, Job, JobPart
from kazoo_ips.model.stamps import StampFields
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.pool_writes import FinalOutcome
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.transactions import TransactionService

_ROUNDS = 4
"""Maximum number of attempts at the addresses of a part while other clients write to them."""
_PAUSE = 0.5
"""Seconds between two of these attempts."""

Results = dict[str, ItemResult]


class JobAddresses:
    """Reads and changes the addresses of jobs.

    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(
        self,
        ips: IPRepository,
        reader: IPReader,
        transactions: TransactionService,
        now: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._ips = ips
        self._reader = reader
        self._transactions = transactions
        self._now = now
        self._pause = pause

    def rounds(self) -> Iterator[None]:
        """Yield once for each attempt at the addresses of a part, with pauses in between."""
        for attempt in range(_ROUNDS):
            if attempt:
                self._pause(_PAUSE)
            yield

    def stamp(self, job: Job) -> StampFields:
        """Return when, in which request and by whom a job changes an address now."""
        return {"at": self._now(), "request_id": job.request_id, "by": job.by}

    def find(self, addresses: Sequence[str]) -> dict[str, DedicatedIP]:
        """Return those of these addresses that can be written to now."""
        return self._reader.find_each(addresses)

    def change(self, changes: Sequence[tuple[DedicatedIP, DedicatedIP]]) -> set[str]:
        """Change addresses, and return those that no other writer has changed.

        :param changes: each address before and after its change
        :raises DatastoreUnreachable: nothing was written
        """
        if not changes:
            return set()
        before, after = zip(*changes, strict=True)
        results = self._transactions.change_each(before, after)
        return {each.ip.address for each in results if each.outcome is FinalOutcome.DONE}

    def missing(self, addresses: Sequence[str]) -> set[str]:
        """Return those of these addresses that the pool does not have any more."""
        return set(addresses) - set(self._ips.by_id(addresses)[0]) if addresses else set()

    def unfinished(self, part: JobPart) -> JobPart:
        """Return a part with the results of addresses that could not be changed.

        They have conflicts, or were deleted.
        """
        left = [item.address for item in part.items if item.result is None]
        deleted = self.missing(left)
        results = {
            address: ItemResult.UNCHANGED if address in deleted else ItemResult.CONFLICT
            for address in left
        }
        return with_results(part, results)


def with_results(part: JobPart, results: Mapping[str, ItemResult]) -> JobPart:
    """Return a part with the results of some of its addresses."""
    items = (replace(item, result=results.get(item.address, item.result)) for item in part.items)
    return replace(part, items=tuple(items))
