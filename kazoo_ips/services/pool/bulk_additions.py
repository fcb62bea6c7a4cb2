"""Adding many addresses in one bulk write: all or none, or each independently of the others.

If the outcome of a write is unknown, the document is read back. If it names this request, the
address was added. If it does not exist, it is written again.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from kazoo_ips.errors import Conflict, DatastoreUnreachable, IPNotFound, IPsExist
from kazoo_ips.model import Attempt, CreateIP, DedicatedIP, EventKind, Outcome, Written, replace
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.resumption import is_resumed
from kazoo_ips.services.states.places import PlaceService

log = logging.getLogger(__name__)

_WRITES = 2
"""Maximum number of writes of an address while the outcome is unknown."""


class AdditionOutcome(StrEnum):
    """The result of adding one address."""

    ADDED = "added"
    WOULD_BE_ADDED = "would be added"
    UNCHANGED = "unchanged"
    """The pool has it already, with this zone and host. It can be assigned or available."""
    DIFFERENT = "different"
    """The pool has it already, with another zone or host. It is not changed."""
    FAILED = "failed"
    """It is not in the pool: CouchDB refused it, or it had no quorum and was deleted again."""
    UNKNOWN = "unknown"
    """CouchDB did not answer, and the outcome could not be determined."""


@dataclass(frozen=True, slots=True)
class AdditionResult:
    """The result of adding one of several addresses.

    :param ip: the dedicated IP in the pool; None if it does not exist, or that is unknown
    :param revision: the revision of an address that was added, which `ip` may lack
    """

    outcome: AdditionOutcome
    ip: DedicatedIP | None = None
    revision: str | None = None


class BulkAdditionService:
    """Adds lists of addresses to the pool.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        ips: IPRepository,
        lists: ListRepository,
        conflicts: ConflictResolver,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._lists = lists
        self._conflicts = conflicts
        self._places = places
        self._now = now

    def create_all(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Add addresses to the pool: all of them, in the given order, or none.

        :param commands: for different addresses
        :param attempt: the attempt of a request with an Idempotency-Key: addresses that an earlier
            attempt has added count as added
        :param dry_run: whether to return what would be written, and write nothing
        :raises IPsExist: the pool has these already, in any spelling; none was added
        :raises DatastoreUnreachable: the outcome of one is unknown; the others are not added
        """
        existing, deleted = self._existing([c.address for c in commands], self.respelled(commands))
        resumed = is_resumed(attempt)
        since = 0 if resumed else self._now()
        done = {a: ip for a, ip in existing.items() if _is_added_by(ip, request_id, since)}
        if len(existing) > len(done):
            raise IPsExist(*(address for address in existing if address not in done))
        if dry_run:
            return list(self._new(commands, request_id, {}, keyed=attempt is not None).values())
        rest = [command for command in commands if command.address not in done]
        results = dict(
            zip(
                (c.address for c in rest),
                self._write(rest, request_id, deleted, keyed=attempt is not None),
                strict=True,
            )
        )
        if resumed:  # a write of an earlier attempt may have arrived since
            done |= {
                a: result.ip
                for a, result in results.items()
                if result.ip and _is_added_by(result.ip, request_id, since)
            }
        added = done | {
            address: replace(result.ip, revision=result.revision)
            for address, result in results.items()
            if result.outcome is AdditionOutcome.ADDED and result.ip
        }
        if len(added) < len(commands):
            self._undo(list(added.values()))
            existed = (AdditionOutcome.UNCHANGED, AdditionOutcome.DIFFERENT)
            exist = [address for address, result in results.items() if result.outcome in existed]
            if exist:
                raise IPsExist(*exist)
            raise DatastoreUnreachable("not known whether all are added")
        audit.created([ip for address, ip in added.items() if address not in done])
        audit.created(done.values(), recovered=True)
        return [added[command.address] for command in commands]

    def add_each(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[AdditionResult]:
        """Do as `add` does, for the list of one request.

        :param attempt: the attempt of a request with an Idempotency-Key: addresses that an earlier
            attempt has added count as added
        :param dry_run: whether to return the results of a write, and write nothing
        """
        respelled = self.respelled(commands)
        if dry_run:
            would_be, added = AdditionOutcome.WOULD_BE_ADDED, AdditionResult(AdditionOutcome.ADDED)
            found = self.preview(commands, respelled)
            return [added if each.outcome is would_be else each for each in found]
        results = self.add(commands, request_id, respelled, keyed=attempt is not None)
        if not is_resumed(attempt):
            return results
        return [
            AdditionResult(AdditionOutcome.ADDED, result.ip, result.ip.revision)
            if result.ip and _is_added_by(result.ip, request_id, 0)
            else result
            for result in results
        ]

    def add(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        respelled: Mapping[str, list[str]],
        *,
        keyed: bool = False,
    ) -> list[AdditionResult]:
        """Add addresses to the pool in one write, each independently of the others.

        New documents continue the trails of deleted ones, which the archive may not have yet.

        :param commands: for different addresses
        :param respelled: the result of the method `respelled`
        :param keyed: whether the request has an Idempotency-Key
        :returns: the result for each address, in the given order
        :raises DatastoreUnreachable: nothing was written
        """
        other = self._other_spellings([c.address for c in commands], respelled)
        rest = [command for command in commands if command.address not in other]
        deleted = self._ips.by_id([command.address for command in rest])[1]
        results = self._write(rest, request_id, deleted, keyed=keyed)
        audit.created(r.ip for r in results if r.outcome is AdditionOutcome.ADDED and r.ip)
        written = iter(results)
        return [
            _compared(command, other[command.address])
            if command.address in other
            else next(written)
            for command in commands
        ]

    def preview(
        self, commands: Sequence[CreateIP], respelled: Mapping[str, list[str]]
    ) -> list[AdditionResult]:
        """Return the results that `add` would have. Nothing is written."""
        existing, _ = self._existing([command.address for command in commands], respelled)
        return [
            _compared(command, existing[command.address])
            if command.address in existing
            else AdditionResult(AdditionOutcome.WOULD_BE_ADDED)
            for command in commands
        ]

    def respelled(self, commands: Sequence[CreateIP] | None = None) -> dict[str, list[str]]:
        """Return the document ids that are not canonical, by canonical address.

        :param commands: the addresses to look for; None returns all ids of the pool
        """
        if commands is None:
            return self._lists.other_spellings()
        return self._lists.other_spellings([command.address for command in commands])

    def _existing(
        self, wanted: Sequence[str], respelled: Mapping[str, list[str]]
    ) -> tuple[dict[str, DedicatedIP], dict[str, DedicatedIP]]:
        """Return the dedicated IPs in the pool, in any spelling, and those that were deleted."""
        existing, deleted = self._ips.by_id(wanted)
        return existing | self._other_spellings(wanted, respelled), deleted

    def _other_spellings(
        self, wanted: Sequence[str], respelled: Mapping[str, list[str]]
    ) -> dict[str, DedicatedIP]:
        ids = {i: a for a in wanted for i in respelled.get(a, ())} if respelled else {}
        found = self._ips.by_id(ids)[0] if ids else {}
        return {ids[i]: ip for i, ip in found.items()}

    def _read_back(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Return those of these addresses that are in the pool, after resolving conflicts."""
        found, deleted = self._ips.by_id(wanted)
        for address in [*deleted, *(a for a, ip in found.items() if ip.conflicted)]:
            with suppress(IPNotFound, Conflict):  # deleted; or too recent to resolve
                found[address] = self._conflicts.resolve(address)
        return found

    def _new(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        deleted: Mapping[str, DedicatedIP],
        *,
        keyed: bool,
    ) -> dict[str, DedicatedIP]:
        """Return the dedicated IPs to add, by address.

        :param deleted: the last state of addresses that were deleted, whose trails are continued
        """
        now, by, places = self._now(), audit.author(), self._places.places()
        return {
            c.address: DedicatedIP.new(
                c.address,
                c.zone,
                c.host,
                at=now,
                request_id=request_id,
                by=by,
                keyed=keyed,
                trail=deleted[c.address].trail if c.address in deleted else (),
                tombstone=deleted[c.address].revision if c.address in deleted else None,
                place=places.rules(c.zone, c.host),
            )
            for c in commands
        }

    def _write(
        self,
        commands: Sequence[CreateIP],
        request_id: str,
        deleted: Mapping[str, DedicatedIP],
        *,
        keyed: bool,
    ) -> list[AdditionResult]:
        """Write new addresses. Repeat a write with an unknown outcome if the address is missing.

        If the first write arrives later, CouchDB refuses it, or it has the same revision.

        :raises DatastoreUnreachable: nothing was written
        """
        results: dict[str, AdditionResult] = {}
        due = self._new(commands, request_id, deleted, keyed=keyed)
        by_address = {command.address: command for command in commands}
        for attempt in range(_WRITES):
            if not due:
                break
            try:
                written = self._ips.save_all(list(due.values()))
            except DatastoreUnreachable:
                if attempt == 0:
                    raise
                break
            uncertain = self._sort(due, written, results)
            try:
                found = self._read_back(list(uncertain)) if uncertain else {}
            except DatastoreUnreachable as error:
                log.warning("request %s: not read back: %s", request_id, error)
                found, uncertain = {}, dict.fromkeys(uncertain, Outcome.UNKNOWN)
            for address, ip in found.items():
                added = _is_added_by(ip, request_id, due[address].created)
                results[address] = (
                    AdditionResult(AdditionOutcome.ADDED, ip, ip.revision)
                    if added
                    else _compared(by_address[address], ip)
                )
            due = {a: due[a] for a in uncertain if a not in found}
            for address in due:
                refused = uncertain[address] is Outcome.REFUSED
                results[address] = AdditionResult(
                    AdditionOutcome.FAILED if refused else AdditionOutcome.UNKNOWN
                )
        return [results[command.address] for command in commands]

    def _sort(
        self,
        due: Mapping[str, DedicatedIP],
        written: Sequence[Written],
        results: dict[str, AdditionResult],
    ) -> dict[str, Outcome]:
        """Store the results of certain outcomes, and return the outcomes to determine.

        Documents without a quorum are deleted again: no client has got a reply about them.
        """
        uncertain: dict[str, Outcome] = {}
        without_quorum: list[DedicatedIP] = []
        for (address, ip), write in zip(due.items(), written, strict=True):
            if write.outcome is Outcome.DONE:
                results[address] = AdditionResult(AdditionOutcome.ADDED, ip, write.revision)
            elif write.revision:
                without_quorum.append(replace(ip, revision=write.revision))
                results[address] = AdditionResult(AdditionOutcome.FAILED)
            else:
                uncertain[address] = write.outcome
        if without_quorum:
            with suppress(DatastoreUnreachable):
                self._ips.drop_all(without_quorum)
        return uncertain

    def _undo(self, ips: Sequence[DedicatedIP]) -> None:
        """Delete the addresses that were added. An address that another writer has changed stays.

        Audit lines name the addresses that stay or may stay.

        :raises DatastoreUnreachable: it is unknown whether all are deleted
        """
        remaining = list(ips)
        for number in range(_WRITES):
            if not remaining:
                return
            # If an unanswered deletion was done, the next one is refused.
            outcomes = list(zip(remaining, self._ips.drop_all(remaining), strict=True))
            if number == 0:
                audit.created(ip for ip, w in outcomes if w.outcome is Outcome.REFUSED)
            remaining = [
                ip for ip, w in outcomes if w.outcome is Outcome.UNKNOWN and not w.revision
            ]
        if remaining:
            audit.created(remaining)
            raise DatastoreUnreachable(f"{remaining[0].address}: not known whether deleted again")


def _is_added_by(ip: DedicatedIP, request_id: str, since: int) -> bool:
    """Whether this request has added the address, at that time or later."""
    event = ip.event(EventKind.CREATED, None, request_id)
    return event is not None and event.at >= since


def _compared(command: CreateIP, ip: DedicatedIP) -> AdditionResult:
    same = (ip.zone, ip.host) == (command.zone, command.host)
    return AdditionResult(AdditionOutcome.UNCHANGED if same else AdditionOutcome.DIFFERENT, ip)
