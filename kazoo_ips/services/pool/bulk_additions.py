"""Many addresses added to the pool at once, in one write: all or none, or each for itself.

What CouchDB leaves open is read back by the id of the request, as for one address: what is there
by this request is added, what is not there is written again. Knows neither files nor HTTP.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from kazoo_ips.errors import Conflict, DatastoreUnreachable, IPNotFound, IPsExist
from kazoo_ips.model import Attempt, CreateIP, DedicatedIP, EventKind, Outcome, Written
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.resumption import is_resumed

log = logging.getLogger(__name__)

_WRITES = 2
"""Times that an address is written when nobody says what became of it."""


class AdditionOutcome(StrEnum):
    """What became of the wish to have an address in the pool."""

    ADDED = "added"
    WOULD_BE_ADDED = "would be added"
    UNCHANGED = "unchanged"
    """It was there, in this zone and on this host; assigned or not."""
    DIFFERENT = "different"
    """It was there, in another zone or on another host, and stays so."""
    FAILED = "failed"
    """It is not there: CouchDB refused it, or it had no quorum and was dropped."""
    UNKNOWN = "unknown"
    """CouchDB did not say, and it could not be found out."""


@dataclass(frozen=True, slots=True)
class AdditionResult:
    """One address of many.

    :param ip: as the pool has it; None where it does not, or nobody knows
    :param revision: of one that is added; `ip` itself may lack it
    """

    verdict: AdditionOutcome
    ip: DedicatedIP | None = None
    revision: str | None = None


class BulkAdditionService:
    """Adds lists of addresses.

    :param now: the time in Gregorian seconds
    """

    def __init__(
        self,
        ips: IPRepository,
        lists: ListRepository,
        conflicts: ConflictResolver,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._lists = lists
        self._conflicts = conflicts
        self._now = now

    def create_all(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Add addresses to the pool: all of them, in the order given, or none.

        :param commands: no address twice
        :param attempt: of a request with an Idempotency-Key: what an earlier one has added is told
        :param dry_run: say what would be done, and write nothing
        :raises IPsExist: these are there already, in whatever spelling; none was added
        :raises DatastoreUnreachable: it is not known what became of one; the others are not added
        """
        there, gone = self._known([c.address for c in commands], self.respelled(commands))
        resumed = is_resumed(attempt)
        since = 0 if resumed else self._now()
        done = {a: ip for a, ip in there.items() if _is_made(ip, request_id, since)}
        if len(there) > len(done):
            raise IPsExist(*(address for address in there if address not in done))
        if dry_run:
            return list(self._new(commands, request_id, {}).values())
        rest = [command for command in commands if command.address not in done]
        written = self._write(rest, request_id, gone)
        added = dict(zip((c.address for c in rest), written, strict=True))
        if resumed:  # what an earlier attempt has added may have arrived since
            done |= {
                a: each.ip
                for a, each in added.items()
                if each.ip and _is_made(each.ip, request_id, since)
            }
        made = done | {
            address: replace(each.ip, revision=each.revision)
            for address, each in added.items()
            if each.verdict is AdditionOutcome.ADDED and each.ip
        }
        if len(made) < len(commands):
            self._take_out(list(made.values()))
            taken = (AdditionOutcome.UNCHANGED, AdditionOutcome.DIFFERENT)
            exist = [address for address, each in added.items() if each.verdict in taken]
            if exist:
                raise IPsExist(*exist)
            raise DatastoreUnreachable("not known whether all are added")
        return [made[command.address] for command in commands]

    def add(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        respelled: Mapping[str, list[str]],
    ) -> list[AdditionResult]:
        """Add addresses to the pool, each for itself, in one write.

        What happened to those that the pool had once is not asked for: no key repeats this.

        :param commands: no address twice
        :param respelled: as `respelled` gives it
        :returns: what became of each, in the order given
        :raises DatastoreUnreachable: nothing was written
        """
        other = self._other_spellings([c.address for c in commands], respelled)
        rest = [command for command in commands if command.address not in other]
        written = iter(self._write(rest, request_id, {}))
        return [
            _compared(command, other[command.address])
            if command.address in other
            else next(written)
            for command in commands
        ]

    def preview(
        self, commands: Sequence[CreateIP], respelled: Mapping[str, list[str]]
    ) -> list[AdditionResult]:
        """What `add` would do. Writes nothing."""
        wanted = [command.address for command in commands]
        there, _ = self._known(wanted, respelled)
        return [
            _compared(command, there[command.address])
            if command.address in there
            else AdditionResult(AdditionOutcome.WOULD_BE_ADDED)
            for command in commands
        ]

    def respelled(self, commands: Sequence[CreateIP] | None = None) -> dict[str, list[str]]:
        """The ids of the pool that are not canonical, by canonical address.

        :param commands: only those among these addresses matter; None: all of the pool's
        """
        if commands is None:
            return self._lists.other_spellings()
        return self._lists.other_spellings([command.address for command in commands])

    def _known(
        self, wanted: Sequence[str], respelled: Mapping[str, list[str]]
    ) -> tuple[dict[str, DedicatedIP], dict[str, DedicatedIP]]:
        """Those that the pool has, in whatever spelling, and what those were that it had once."""
        there, gone = self._ips.by_id(wanted)
        return there | self._other_spellings(wanted, respelled), gone

    def _other_spellings(
        self, wanted: Sequence[str], respelled: Mapping[str, list[str]]
    ) -> dict[str, DedicatedIP]:
        ids = {i: a for a in wanted for i in respelled.get(a, ())} if respelled else {}
        found = self._ips.by_id(ids)[0] if ids else {}
        return {ids[i]: ip for i, ip in found.items()}

    def _there(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Those that the pool has, put in order where a cluster left a disorder."""
        found, gone = self._ips.by_id(wanted)
        for address in [*gone, *(a for a, ip in found.items() if ip.conflicted)]:
            with suppress(IPNotFound, Conflict):  # not there; or there, and too fresh to tell
                found[address] = self._conflicts.resolve(address)
        return found

    def _new(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        gone: Mapping[str, DedicatedIP],
    ) -> dict[str, DedicatedIP]:
        """What is to be added, by address."""
        now = self._now()
        return {
            c.address: DedicatedIP.new(
                c.address,
                c.zone,
                c.host,
                at=now,
                request_id=request_id,
                trail=gone[c.address].trail if c.address in gone else (),
            )
            for c in commands
        }

    def _write(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        gone: Mapping[str, DedicatedIP],
    ) -> list[AdditionResult]:
        """Write them, and again what is not there although nobody says why.

        Should a first write arrive after all, it is refused or finds its own revision.

        :raises DatastoreUnreachable: nothing was written
        """
        additions: dict[str, AdditionResult] = {}
        due = self._new(commands, request_id, gone)
        wishes = {command.address: command for command in commands}
        for attempt in range(_WRITES):
            if not due:
                break
            try:
                written = self._ips.save_all(list(due.values()))
            except DatastoreUnreachable:
                if attempt == 0:
                    raise
                break
            unanswered = self._sort(due, written, additions)
            try:
                there = self._there(list(unanswered)) if unanswered else {}
            except DatastoreUnreachable as error:
                log.warning("request %s: not read back: %s", request_id, error)
                there, unanswered = {}, dict.fromkeys(unanswered, Outcome.UNKNOWN)
            for address, ip in there.items():
                ours = _is_made(ip, request_id, due[address].created)
                additions[address] = (
                    AdditionResult(AdditionOutcome.ADDED, ip, ip.revision)
                    if ours
                    else _compared(wishes[address], ip)
                )
            due = {a: due[a] for a in unanswered if a not in there}
            for address in due:
                refused = unanswered[address] is Outcome.REFUSED
                additions[address] = AdditionResult(
                    AdditionOutcome.FAILED if refused else AdditionOutcome.UNKNOWN
                )
        return [additions[command.address] for command in commands]

    def _sort(
        self,
        due: Mapping[str, DedicatedIP],
        written: Sequence[Written],
        additions: dict[str, AdditionResult],
    ) -> dict[str, Outcome]:
        """Note what is certain, drop what has no quorum, and return what is to be read back."""
        unanswered: dict[str, Outcome] = {}
        alone: list[DedicatedIP] = []
        for (address, ip), answer in zip(due.items(), written, strict=True):
            if answer.outcome is Outcome.DONE:
                additions[address] = AdditionResult(AdditionOutcome.ADDED, ip, answer.revision)
            elif answer.revision:  # no quorum: nobody has been told of it, so it can go
                alone.append(replace(ip, revision=answer.revision))
                additions[address] = AdditionResult(AdditionOutcome.FAILED)
            else:
                unanswered[address] = answer.outcome
        if alone:
            with suppress(DatastoreUnreachable):
                self._ips.drop_all(alone)
        return unanswered

    def _take_out(self, ips: Sequence[DedicatedIP]) -> None:
        """Take out again what was added; what somebody has been given since stays.

        :raises DatastoreUnreachable: it is not known whether all are out
        """
        left = list(ips)
        for _ in range(_WRITES):
            if not left:
                return
            # One that was done after all is refused the next time.
            outcomes = zip(left, self._ips.drop_all(left), strict=True)
            left = [ip for ip, w in outcomes if w.outcome is Outcome.UNKNOWN and not w.revision]
        if left:
            raise DatastoreUnreachable(f"{left[0].address}: not known whether taken out again")


def _is_made(ip: DedicatedIP, request_id: str, since: int) -> bool:
    """Whether this request has added it to the pool, at that time or later."""
    event = ip.event(EventKind.CREATED, None, request_id)
    return event is not None and event.at >= since


def _compared(command: CreateIP, ip: DedicatedIP) -> AdditionResult:
    same = (ip.zone, ip.host) == (command.zone, command.host)
    return AdditionResult(AdditionOutcome.UNCHANGED if same else AdditionOutcome.DIFFERENT, ip)
