"""Reservations: addresses set aside for an account, until it takes them or their time is over.

The addresses are reserved by a transaction, all or none, as they would be assigned. There is no
copy in the account's database, so they are not billed. They count against the account's limits.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

from kazoo_ips.errors import (
    DatastoreUnreachable,
    NotReserved,
    OutOfService,
    ReservationExpired,
    ReservationLimitReached,
    ReservationNotFound,
    ValidationFailed,
)
from kazoo_ips.model import AllocateIPs, AssignIPs, Attempt, DedicatedIP
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.model.reservations import MAX_OPEN, MAX_SECONDS, Reservation, ReservationBook
from kazoo_ips.model.trail import EventKind
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.reservations import ReservationRepository
from kazoo_ips.repositories.transaction_log import Action
from kazoo_ips.services.assigning.allocation import AllocationService
from kazoo_ips.services.assigning.assignment import changed, own_conflict
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.pool.lists import CHUNK
from kazoo_ips.services.states.places import PlaceService

_TRIES = 50
"""Maximum number of tries to write a book while other requests write it."""


class ReservationService:
    """The use cases of reservations.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        reservations: ReservationRepository,
        ips: IPRepository,
        reader: IPReader,
        writer: PoolWriter,
        allocation: AllocationService,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        places: PlaceService,
        *,
        now: Callable[[], int],
    ) -> None:
        self._reservations = reservations
        self._ips = ips
        self._reader = reader
        self._writer = writer
        self._allocation = allocation
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._places = places
        self._now = now

    # Reading.

    def all_open(self, account_id: str) -> list[Reservation]:
        """Return the open reservations of an account, the earliest first."""
        listed = self._reservations.book(account_id).open_at(self._now())
        return self._open(listed)

    def fetch(self, account_id: str, reservation_id: str) -> Reservation:
        """Return an open reservation.

        :raises ReservationNotFound: the account has no open reservation with this id
        """
        listed = self._reservations.book(account_id).reservations.get(reservation_id)
        opened = self._open([listed] if listed else [])
        if not opened:
            raise ReservationNotFound(reservation_id)
        return opened[0]

    def _fetch(
        self, account_id: str, reservation_id: str
    ) -> tuple[Reservation, list[DedicatedIP]]:
        """Return an open reservation and its addresses, which are going to be written to.

        :raises ReservationNotFound: the account has no open reservation with this id
        :raises Conflict: a transaction of one of the addresses is pending
        """
        listed = self._reservations.book(account_id).reservations.get(reservation_id)
        if listed is None:
            raise ReservationNotFound(reservation_id)
        found = self._reader.find(listed.addresses)
        ips = [found[address] for address in listed.addresses if address in found]
        held = [ip for ip in ips if listed.holds(ip, self._now())]
        if len(held) < len(listed.addresses):
            raise ReservationNotFound(reservation_id)
        return _as_held(listed, held), held

    def _open(self, listed: Sequence[Reservation]) -> list[Reservation]:
        """Return those of these reservations whose addresses are all held."""
        now = self._now()
        found = self._by_id([address for each in listed for address in each.addresses])
        opened = []
        for reservation in listed:
            ips = [found.get(address) for address in reservation.addresses]
            held = [ip for ip in ips if ip and reservation.holds(ip, now)]
            if len(held) == len(ips) and not self._is_pending(held):
                opened.append(_as_held(reservation, held))
        return opened

    def addresses(self, reservation: Reservation) -> list[DedicatedIP]:
        """Return the addresses of a reservation as they are now, in its order."""
        found = self._by_id(reservation.addresses)
        return [found[address] for address in reservation.addresses if address in found]

    def _by_id(self, addresses: Sequence[str]) -> dict[str, DedicatedIP]:
        found: dict[str, DedicatedIP] = {}
        for start in range(0, len(addresses), CHUNK):
            found |= self._ips.by_id(addresses[start : start + CHUNK])[0]
        return found

    def _is_pending(self, ips: Sequence[DedicatedIP]) -> bool:
        names = {ip.transaction for ip in ips if ip.transaction}
        return any(self._recovery.is_uncommitted(name) for name in names)

    # Reserving.

    def reserve(
        self,
        command: ReserveIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> Reservation:
        """Reserve addresses for an account, all or none.

        :raises ValidationFailed: an address is unknown or not available
        :raises InsufficientIPs: fewer addresses are available than requested
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises ReservationLimitReached: the account has too many open reservations
        :raises Conflict: another writer was faster; this request has changed nothing
        """
        account_id = command.wanted.account_id
        done, _ = self._recovery.end_attempts(attempt, Action.RESERVE, account_id, request_id)
        reservation_id = _id(attempt)
        if done:
            until = done.at + command.seconds
            return Reservation(reservation_id, account_id, done.addresses, done.at, until)
        now = self._now()
        new = Reservation(reservation_id, account_id, (), now, now + command.seconds)
        self._with_room(account_id)
        take = partial(
            DedicatedIP.reserve, account_id=account_id, reservation=new.id, until=new.until,
            **audit.stamp(now, request_id, attempt),
        )  # fmt: skip

        def record(transaction: str, ips: Sequence[DedicatedIP]) -> None:
            addresses = tuple(ip.address for ip in ips)
            self._record(replace(new, addresses=addresses, transaction=transaction))

        if isinstance(command.wanted, AllocateIPs):
            ips = self._allocation.reserve(
                command.wanted, take, record, attempt=attempt, dry_run=dry_run
            )
        else:
            ips = self._reserve_named(command.wanted, take, record, attempt, dry_run=dry_run)
        return replace(new, addresses=tuple(ip.address for ip in ips))

    def _reserve_named(
        self,
        command: AssignIPs,
        take: Callable[..., DedicatedIP],
        record: Callable[[str, Sequence[DedicatedIP]], None],
        attempt: Attempt | None,
        *,
        dry_run: bool,
    ) -> list[DedicatedIP]:
        found = self._reader.find(command.addresses)
        others = self._reader.others(found.values())
        before = [found.get(address) for address in command.addresses]
        after = changed(
            command.addresses,
            before,
            lambda ip: take(ip, others=others[ip.address], place=self._places.rules(ip)),
        )
        if dry_run:
            self._transactions.check(after)
            return after
        with own_conflict(attempt):
            known = [ip for ip in before if ip]
            return self._transactions.reserve(known, after, record, attempt)

    def _with_room(self, account_id: str) -> ReservationBook:
        """Return the book of an account without reservations that have ended, if it is full.

        :raises ReservationLimitReached: the account has too many open reservations
        """
        now, book = self._now(), self._reservations.book(account_id)
        if len(listed := book.open_at(now)) >= MAX_OPEN:
            opened = {each.id for each in self._open(listed)}
            book = book.without(frozenset(r.id for r in listed if r.id not in opened))
            if len(opened) >= MAX_OPEN:
                raise ReservationLimitReached(MAX_OPEN, len(opened))
        return book

    def _record(self, reservation: Reservation) -> None:
        """Write a reservation into its account's book, unless the book has it as it is.

        :raises ReservationLimitReached: the account has too many open reservations
        :raises DatastoreUnreachable: it is unknown whether it was written
        """
        for _ in range(_TRIES):
            book = self._reservations.book(reservation.account_id)
            if book.reservations.get(reservation.id) == reservation:
                return
            if reservation.id not in book.reservations:
                book = self._with_room(reservation.account_id)
            if self._reservations.put(book.with_reservation(reservation, self._now())):
                return
        raise DatastoreUnreachable(f"the book of {reservation.account_id} changes all the time")

    # Assigning, extending and cancelling.

    def assign(
        self,
        command: AssignReserved,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Assign all addresses of a reservation to its account, or none.

        :raises ReservationExpired: the reservation is over; nothing is assigned
        :raises Conflict: another writer was faster; this request has changed nothing
        """
        account_id = command.account_id
        done, _ = self._recovery.end_attempts(attempt, Action.ASSIGN, account_id, request_id)
        if done:
            return self._resumption.of_transaction(done)
        try:
            _, before = self._fetch(account_id, command.reservation_id)
        except ReservationNotFound:
            raise ReservationExpired(command.reservation_id) from None
        others = self._reader.others(before)
        stamp = audit.stamp(self._now(), request_id, attempt)
        try:
            after = [
                ip.assign(
                    account_id,
                    others=others[ip.address],
                    reservation=command.reservation_id,
                    place=self._places.rules(ip),
                    **stamp,
                )
                for ip in before
            ]
        except (NotReserved, OutOfService):
            raise ReservationExpired(command.reservation_id) from None
        if dry_run:
            return after
        with own_conflict(attempt):
            if len(before) == 1 and attempt is None:
                return [self._transactions.assign_one(before[0], after[0])]
            return self._transactions.assign(before, after, attempt)

    def extend(
        self,
        command: ExtendReservation,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> Reservation:
        """Let a reservation end a number of seconds from now, later or earlier than before.

        :raises ReservationNotFound: the account has no open reservation with this id
        :raises ValidationFailed: it would last too long, from its start
        :raises Conflict: another writer was faster
        """
        reservation, ips = self._fetch(command.account_id, command.reservation_id)
        at = self._now()
        if is_resumed(attempt):  # an earlier attempt may have extended some of the addresses
            events = (ip.event(EventKind.RESERVED, command.account_id, request_id) for ip in ips)
            at = next((event.at for event in events if event), at)
        until = at + command.seconds
        _check_length(reservation, until, command.seconds)
        stamp = audit.stamp(at, request_id, attempt)
        due = [ip for ip in ips if ip.reserved_until != until]
        try:
            after = [ip.extend(reservation.id, until, **stamp) for ip in due]
        except NotReserved:
            raise ReservationNotFound(reservation.id) from None
        extended = replace(reservation, until=until)
        if not dry_run:
            self._write(due, after, audit.Change.RESERVED)
            self._record(extended)
        return extended

    def cancel(
        self,
        account_id: str,
        reservation_id: str,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> Reservation:
        """End a reservation; return it as it was.

        :raises ReservationNotFound: the account has no open reservation with this id
        :raises Conflict: another writer was faster
        """
        listed = self._reservations.book(account_id).reservations.get(reservation_id)
        if listed is None:
            raise ReservationNotFound(reservation_id)
        found = self._reader.find(listed.addresses).values()
        ips = [ip for ip in found if listed.holds(ip, self._now())]
        if not ips:
            if is_resumed(attempt) and _is_cancelled(found, account_id, request_id):
                return listed
            raise ReservationNotFound(reservation_id)
        reservation = _as_held(listed, ips)
        stamp = audit.stamp(self._now(), request_id, attempt)
        after = [
            ip.end_reservation(reservation_id, place=self._places.rules(ip), **stamp) for ip in ips
        ]
        if not dry_run:
            self._write(ips, after, audit.Change.RELEASED)
            self._record(replace(reservation, cancelled_by=request_id))
        return reservation

    def _write(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP], kind: audit.Change
    ) -> None:
        """Write each of these addresses by itself. A repeated request writes the rest.

        :raises Conflict: another writer was faster at one of them
        :raises DatastoreUnreachable: the outcome of a write is unknown
        """
        if not before:
            return
        results = self._writer.write(before, after)
        done = [n for n, each in enumerate(results) if each.outcome is FinalOutcome.DONE]
        audit.changed(kind, [before[n] for n in done], [after[n] for n in done])
        self._transactions.require(results)


def _is_cancelled(ips: Iterable[DedicatedIP], account_id: str, request_id: str) -> bool:
    """Return whether a request has ended the reservation of one of these addresses."""
    return any(ip.event(EventKind.RELEASED, account_id, request_id) for ip in ips)


def _as_held(reservation: Reservation, ips: Sequence[DedicatedIP]) -> Reservation:
    """Return a reservation with the time that the documents say."""
    return replace(reservation, until=min(ip.reserved_until or 0 for ip in ips))


def _check_length(reservation: Reservation, until: int, seconds: int) -> None:
    most = reservation.started + MAX_SECONDS - until + seconds
    if until > reservation.started + MAX_SECONDS:
        text = f"Value must be at most {most}"
        rule = {"message": text, "target": most, "value": seconds}
        raise ValidationFailed({"seconds": {"maximum": rule}})


def _id(attempt: Attempt | None) -> str:
    """Return the id of a new reservation, the same for all attempts of a request with a key."""
    key = attempt.key if attempt else uuid4().hex
    return hashlib.sha256(key.encode()).hexdigest()[:32]
