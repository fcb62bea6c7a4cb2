"""The pool filled from a list of any length: read, written and reported in batches.

While CouchDB writes one batch the next is prepared. Nothing of the list is kept but which
addresses it has named so far. Doing it again does what is left to do. Knows no files.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from kazoo_ips.model import CreateIP, DedicatedIP
from kazoo_ips.model.addresses import Block
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome, BulkAdditionService

BATCH = 1000
"""Addresses in one write: of 500 to 10,000 the fastest on CouchDB 3.5, and far from a timeout."""
_WRITERS = 2
"""Batches under way: while CouchDB stores one, the other is made or its answer read."""


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One line of a list: addresses that shall be in the pool, in a zone and on a host.

    :param line: its number, from 1
    :param given: what it names, as it was written
    :param block: the addresses; None where the line is of no use
    :param problem: why it is not
    """

    line: int
    given: str
    zone: str = ""
    host: str = ""
    block: Block | None = None
    problem: str = ""


@dataclass(slots=True)
class Result:
    """What became of one address of a line, or of a line that is of no use.

    :param verdict: beside the verdicts of `AdditionOutcome`: `invalid`, with the wish's problem;
        `repeated`, an earlier line has the same; `contradictory`, an earlier line has the address
        with another zone or host
    :param there: as the pool has it, where that is known
    """

    wish: ImportRow
    address: str
    verdict: str
    there: DedicatedIP | None = None


GOOD = frozenset(
    {AdditionOutcome.ADDED, AdditionOutcome.WOULD_BE_ADDED, AdditionOutcome.UNCHANGED, "repeated"}
)
"""Verdicts that leave the pool as it was wanted."""

_DUE = ""


class ImportService:
    """Brings lists of addresses into the pool.

    :param batch: addresses in one write
    """

    def __init__(self, additions: BulkAdditionService, batch: int = BATCH) -> None:
        self._additions = additions
        self._batch = batch

    def fill(
        self, wishes: Iterable[ImportRow], request_id: str, *, dry_run: bool = False
    ) -> Iterator[list[Result]]:
        """Add what is not there; what is there stays as it is.

        :param request_id: under which all is written
        :param dry_run: say what would be done, and write nothing
        :returns: batch by batch, the results in the order of the list
        :raises DatastoreUnreachable: CouchDB has gone; what was reported is done
        """
        run = _Run(self._additions, request_id, dry_run)
        under_way: deque[Future[list[Result]]] = deque()
        with ThreadPoolExecutor(_WRITERS) as writers:
            for batch in _batches(wishes, self._batch):
                under_way.append(writers.submit(run.carry_out, batch))
                if len(under_way) > _WRITERS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()


class _Run:
    """One list on its way into the pool."""

    def __init__(self, additions: BulkAdditionService, request_id: str, dry_run: bool) -> None:
        self._additions = additions
        self._request_id = request_id
        self._dry_run = dry_run
        self._respelled: dict[str, list[str]] | None = None

    def carry_out(self, batch: list[Result]) -> list[Result]:
        """Fill in the verdicts that are due."""
        due = [result for result in batch if result.verdict == _DUE]
        commands = [CreateIP(r.address, r.wish.zone, r.wish.host) for r in due]
        if self._respelled is None:
            self._respelled = self._additions.respelled()
        if self._dry_run:
            made = self._additions.preview(commands, self._respelled)
        else:
            made = self._additions.add(commands, self._request_id, self._respelled)
        for result, addition in zip(due, made, strict=True):
            result.verdict, result.there = addition.verdict, addition.ip
        return batch


def _batches(wishes: Iterable[ImportRow], size: int) -> Iterator[list[Result]]:
    batch: list[Result] = []
    for result in _results(wishes):
        batch.append(result)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _results(wishes: Iterable[ImportRow]) -> Iterator[Result]:
    """One for each address, and for each line of no use; those still due have no verdict yet."""
    seen = _Seen()
    for wish in wishes:
        if wish.block is None:
            yield Result(wish, "", "invalid")
            continue
        place = seen.place(wish.zone, wish.host)
        for number, address in wish.block:
            before = seen.note(number, wish.block.version, place)
            verdict = "repeated" if before == place else "contradictory" if before else _DUE
            yield Result(wish, address, verdict)


class _Seen:
    """Which addresses were named, and where they shall be.

    Neighbours lie in one small array, as pools consist of neighbours: a million addresses take
    some 20 MB instead of 100.
    """

    _GROUP = 16

    def __init__(self) -> None:
        self._groups: dict[int, array[int]] = {}
        self._places: dict[tuple[str, str], int] = {}

    def place(self, zone: str, host: str) -> int:
        """A number for a zone and a host, from 1."""
        return self._places.setdefault((zone, host), len(self._places) + 1)

    def note(self, number: int, version: int, place: int) -> int:
        """Note an address's place; the place noted earlier, which stays, or 0."""
        group, index = divmod(number, self._GROUP)
        key = group if version == 4 else group + (1 << 128)
        places = self._groups.get(key)
        if places is None:
            places = self._groups[key] = array("I", [0] * self._GROUP)
        before = places[index]
        if not before:
            places[index] = place
        return before
