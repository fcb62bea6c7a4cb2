"""A dedicated IP and the rules of its transitions. Standard library only.

This module knows neither HTTP nor CouchDB nor the clock. Times (Gregorian seconds) and request ids
are parameters. A transition returns a new object, or raises the rule that it would break.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from kazoo_ips.errors import (
    AlreadyAssigned,
    AssignedToAnother,
    NotAssigned,
    UnknownStatus,
    Unusable,
)
from kazoo_ips.model import addresses

GREGORIAN_EPOCH = 62_167_219_200
"""Seconds from the year 0, the epoch of Erlang's and Kazoo's times, to 1970, the epoch of Unix."""

TRAIL_LENGTH = 16
"""Maximum number of events in a document's trail."""
TRAIL_SECONDS = 24 * 3600
"""Seconds that an event stays in the trail: as long as replies to Idempotency-Keys are kept."""


class Status(StrEnum):
    """The states of a dedicated IP that this release knows.

    Any other status is that of a newer release. An address with such a status is shown and counted
    by the name of the status, and is not changed.
    """

    AVAILABLE = "available"
    ASSIGNED = "assigned"


class EventKind(StrEnum):
    """What a write of this service did to a dedicated IP."""

    CREATED = "created"
    ASSIGNED = "assigned"
    RELEASED = "released"
    DELETED = "deleted"
    UNDONE = "undone"
    """An assignment that was not acknowledged was undone."""


class Event(NamedTuple):
    """One write of this service, as the trail of the document records it.

    :param kind: an `EventKind`, or a kind that only a newer release knows
    :param account_id: the account that has the address after an assignment, or had it before a
        release or an undo; None for other events
    :param at: the time in Gregorian seconds
    """

    kind: str
    account_id: str | None
    at: int
    request_id: str


@dataclass(frozen=True, slots=True)
class DedicatedIP:
    """An address that the operator owns and can assign to an account.

    * `address` is the document id, as the address was first written.
    * `status` is a `Status`, or the unchanged name of one that only a newer release knows.
    * `conflicted` says whether the database has other live revisions of the document.
    * `trail` is what this service did with the address in the last day, the latest event last.
    * `transaction` is the id of the transaction that wrote the document last. It may be pending.
    * `source` is the document that it was read from. Only the repository reads it, so that fields
      which this service does not know survive every write.
    """

    address: str
    zone: str
    host: str
    created: int
    modified: int
    status: str = Status.AVAILABLE
    assigned_to: str | None = None
    request_id: str | None = None
    revision: str | None = None
    conflicted: bool = field(default=False, compare=False)
    trail: tuple[Event, ...] = field(default=(), compare=False)
    transaction: str | None = field(default=None, compare=False)
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def has_known_status(self) -> bool:
        """Whether this release knows the status, and so may change the address."""
        return isinstance(self.status, Status)

    @classmethod
    def new(  # noqa: PLR0913 - one for each field
        cls,
        address: str,
        zone: str,
        host: str,
        *,
        at: int,
        request_id: str,
        trail: tuple[Event, ...] = (),
    ) -> "DedicatedIP":
        """Return an available dedicated IP for an address that the pool does not have.

        :param trail: the trail of the same address when it was last deleted, if any. From it,
            later attempts read earlier results, and the repair reads the accounts that had it
        """
        ip = cls(address, zone, host, at, at, request_id=request_id, trail=trail)
        return replace(ip, trail=ip._trail_with(EventKind.CREATED, None, at, request_id))

    def assign(
        self,
        account_id: str,
        *,
        at: int,
        request_id: str,
        others: Iterable["DedicatedIP"] = (),
    ) -> "DedicatedIP":
        """Return this address, assigned to an account.

        :param others: the pool's other documents of the same address, under other spellings
        :raises UnknownStatus: this release does not know the status
        :raises AlreadyAssigned: it is assigned to the account already
        :raises AssignedToAnother: it is assigned to another account, or has no known owner
        :raises Unusable: no proxy can have the address, or another document of the same address
            is the one to assign
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        for ip in (self, *others):
            if ip.status is not Status.AVAILABLE:
                own = ip.assigned_to == account_id
                raise (AlreadyAssigned if own else AssignedToAnother)(self.address)
        unusable = addresses.unusable(self.address)
        if unusable:
            raise Unusable(self.address, unusable)
        first = min((self, *others), key=DedicatedIP._precedence)
        if first is not self:
            raise Unusable(self.address, f"the pool has it as {first.address} as well")
        return replace(
            self,
            status=Status.ASSIGNED,
            assigned_to=account_id,
            modified=at,
            request_id=request_id,
            trail=self._trail_with(EventKind.ASSIGNED, account_id, at, request_id),
            transaction=None,
        )

    def _precedence(self) -> tuple[bool, str]:
        """Return a sort key. Of several documents of one address, only the first is assigned."""
        return addresses.canonical(self.address) != self.address, self.address

    def release(self, account_id: str | None, *, at: int, request_id: str) -> "DedicatedIP":
        """Return this address, available again.

        :param account_id: the account that releases it; None is the operator, who may release any
        :raises UnknownStatus: this release does not know the status
        :raises NotAssigned: it is not assigned
        :raises AssignedToAnother: it is assigned to another account
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        if self.status is not Status.ASSIGNED:
            raise NotAssigned(self.address)
        if account_id is not None and self.assigned_to != account_id:
            raise AssignedToAnother(self.address)
        return replace(
            self,
            status=Status.AVAILABLE,
            assigned_to=None,
            modified=at,
            request_id=request_id,
            trail=self._trail_with(EventKind.RELEASED, self.assigned_to, at, request_id),
            transaction=None,
        )

    def delete(self, *, at: int, request_id: str) -> "DedicatedIP":
        """Return what the tombstone records: this address, with the deletion in its trail."""
        return replace(
            self,
            request_id=request_id,
            trail=self._trail_with(EventKind.DELETED, None, at, request_id),
            transaction=None,
        )

    def undo(self) -> "DedicatedIP":
        """Return this address, available again as before an assignment that was not acknowledged.

        The trail keeps the account that it was assigned to: that account may have a copy.
        """
        at, request_id = self.modified, self.request_id or ""
        before = replace(self, trail=self.trail[:-1])
        return replace(
            self,
            status=Status.AVAILABLE,
            assigned_to=None,
            trail=before._trail_with(EventKind.UNDONE, self.assigned_to, at, request_id),
            transaction=None,
        )

    @property
    def accounts(self) -> set[str]:
        """The account that has the address, and those in its trail."""
        had = {event.account_id for event in self.trail}
        return {account_id for account_id in (self.assigned_to, *had) if account_id}

    def event(self, kind: str, account_id: str | None, request_id: str) -> Event | None:
        """Return the latest event of a kind that a request caused, or None.

        Later events of other requests do not matter.
        """
        wanted = (kind, account_id, request_id)
        events = (e for e in self.trail if (e.kind, e.account_id, e.request_id) == wanted)
        return max(events, key=lambda event: event.at, default=None)

    def follows_release_of(self, assigned: "DedicatedIP") -> bool:
        """Return whether that very assignment was released before this state, by the trails."""
        if not self.trail:
            return False
        # A write removes the events that are too many or too old.
        oldest, latest = self.trail[0].at, self.trail[-1].at
        if len(self.trail) < TRAIL_LENGTH:
            oldest = latest - TRAIL_SECONDS
        kept = [event for event in assigned.trail if event.at > oldest]
        return any(
            (event.kind, event.account_id) == (EventKind.RELEASED, assigned.assigned_to)
            and event not in assigned.trail
            and all(earlier in self.trail[:n] for earlier in kept)
            for n, event in enumerate(self.trail)
        )

    def as_of(self, event: Event) -> "DedicatedIP":
        """Return this address as it was right after an event."""
        assigned = event.kind == EventKind.ASSIGNED
        return replace(
            self,
            status=Status.ASSIGNED if assigned else Status.AVAILABLE,
            assigned_to=event.account_id if assigned else None,
            modified=event.at,
            request_id=event.request_id,
            transaction=None,
        )

    def _trail_with(
        self, kind: EventKind, account_id: str | None, at: int, request_id: str
    ) -> tuple[Event, ...]:
        recent = [event for event in self.trail if at - event.at < TRAIL_SECONDS]
        event = Event(kind, account_id, at, request_id)
        return (*recent[1 - TRAIL_LENGTH :], event)


class Changed(NamedTuple):
    """An address whose document was written or deleted.

    :param accounts: the account that has the address, and those in its trail
    :param withdrawn: whether the document is deleted and its tombstone is a withdrawal
    """

    address: str
    accounts: frozenset[str] = frozenset()
    withdrawn: bool = False
