"""Imports of lists of any length, in batches.

While CouchDB writes one batch, the next one is prepared. Only the addresses are kept in memory, to
find repetitions. A second import of the same list adds the addresses that are missing.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol

from kazoo_ips.model import CreateIP
from kazoo_ips.model.addresses import Block
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome

BATCH = 1000
"""Addresses in one write. Between 500 and 10,000, this size was the fastest on CouchDB 3.5."""
_WRITERS = 2
"""Number of concurrent batches: while CouchDB writes one, the other is prepared or read."""


class PoolEntry(Protocol):
    """The zone and the host that the pool has for an address."""

    @property
    def zone(self) -> str:
        """The zone."""

    @property
    def host(self) -> str:
        """The host."""


class Addition(Protocol):
    """See `AdditionResult`."""

    @property
    def outcome(self) -> AdditionOutcome:
        """The result of adding one address."""

    @property
    def ip(self) -> PoolEntry | None:
        """The address in the pool; None if it does not exist, or that is unknown."""


class Additions(Protocol):
    """What an import needs of `BulkAdditionService`."""

    def add(
        self, commands: Sequence[CreateIP], request_id: str, respelled: Mapping[str, list[str]]
    ) -> Sequence[Addition]:
        """Add addresses to the pool, each independently of the others."""

    def preview(
        self, commands: Sequence[CreateIP], respelled: Mapping[str, list[str]]
    ) -> Sequence[Addition]:
        """Return the results that `add` would have."""

    def respelled(self) -> dict[str, list[str]]:
        """Return the document ids of the pool that are not canonical, by canonical address."""


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One line of a list: addresses to add, with their zone and host.

    :param line: the number of the line, from 1
    :param given: the addresses as they are written in the line
    :param block: the addresses; None if the line is invalid
    :param problem: why the line is invalid
    """

    line: int
    given: str
    zone: str = ""
    host: str = ""
    block: Block | None = None
    problem: str = ""


@dataclass(slots=True)
class ImportResult:
    """The result for one address of a row, or for an invalid row.

    :param outcome: an `AdditionOutcome`; or `invalid` (the row names the problem), `repeated` (an
        earlier row has the address with the same zone and host), or `contradictory` (an earlier
        row has the address with another zone or host)
    :param existing: the zone and the host of the address in the pool, if they are known
    """

    row: ImportRow
    address: str
    outcome: str
    existing: PoolEntry | None = None


GOOD = frozenset(
    {AdditionOutcome.ADDED, AdditionOutcome.WOULD_BE_ADDED, AdditionOutcome.UNCHANGED, "repeated"}
)
"""Outcomes after which the pool agrees with the list."""

_PENDING = ""


class ImportService:
    """Adds lists of addresses to the pool.

    :param batch: the number of addresses in one write
    """

    def __init__(self, additions: Additions, batch: int = BATCH) -> None:
        self._additions = additions
        self._batch = batch

    def add(
        self, rows: Iterable[ImportRow], request_id: str, *, dry_run: bool = False
    ) -> Iterator[list[ImportResult]]:
        """Add the addresses that the pool does not have. Others are not changed.

        :param request_id: the request id that all documents get
        :param dry_run: whether to return what would be done, and write nothing
        :returns: the results in the order of the list, one batch at a time
        :raises DatastoreUnreachable: CouchDB does not answer; the results returned so far are
            valid
        """
        run = _Import(self._additions, request_id, dry_run)
        pending: deque[Future[list[ImportResult]]] = deque()
        with ThreadPoolExecutor(_WRITERS) as writers:
            for batch in _batches(rows, self._batch):
                pending.append(writers.submit(copy_context().run, run.add, batch))
                if len(pending) > _WRITERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


class _Import:
    """The import of one list."""

    def __init__(self, additions: Additions, request_id: str, dry_run: bool) -> None:
        self._additions = additions
        self._request_id = request_id
        self._dry_run = dry_run
        self._respelled: dict[str, list[str]] | None = None

    def add(self, batch: list[ImportResult]) -> list[ImportResult]:
        """Add the addresses of a batch whose outcome is pending, and set their outcomes."""
        pending = [result for result in batch if result.outcome == _PENDING]
        commands = [CreateIP(r.address, r.row.zone, r.row.host) for r in pending]
        if self._respelled is None:
            self._respelled = self._additions.respelled()
        if self._dry_run:
            additions = self._additions.preview(commands, self._respelled)
        else:
            additions = self._additions.add(commands, self._request_id, self._respelled)
        for result, addition in zip(pending, additions, strict=True):
            result.outcome, result.existing = addition.outcome, addition.ip
        return batch


def _batches(rows: Iterable[ImportRow], size: int) -> Iterator[list[ImportResult]]:
    batch: list[ImportResult] = []
    for result in _results(rows):
        batch.append(result)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _results(rows: Iterable[ImportRow]) -> Iterator[ImportResult]:
    """Yield a result for each address and each invalid row; new addresses are still pending."""
    seen = _Seen()
    for row in rows:
        if row.block is None:
            yield ImportResult(row, "", "invalid")
            continue
        place = seen.place(row.zone, row.host)
        for number, address in row.block:
            earlier = seen.add(number, row.block.version, place)
            outcome = "repeated" if earlier == place else "contradictory" if earlier else _PENDING
            yield ImportResult(row, address, outcome)


class _Seen:
    """The addresses that occurred so far, each with its place: a zone and a host.

    Sixteen consecutive addresses share an array. Most lists contain consecutive addresses, so a
    million addresses take 20 MB instead of 100.
    """

    _GROUP = 16

    def __init__(self) -> None:
        self._groups: dict[int, array[int]] = {}
        self._places: dict[tuple[str, str], int] = {}

    def place(self, zone: str, host: str) -> int:
        """Return the number of a zone and host, from 1."""
        return self._places.setdefault((zone, host), len(self._places) + 1)

    def add(self, number: int, version: int, place: int) -> int:
        """Add an address with its place, unless it has one; return its earlier place, or 0.

        :param number: the address as a number
        """
        group, index = divmod(number, self._GROUP)
        key = group if version == 4 else group + (1 << 128)
        places = self._groups.get(key)
        if places is None:
            places = self._groups[key] = array("I", [0] * self._GROUP)
        earlier = places[index]
        if not earlier:
            places[index] = place
        return earlier
