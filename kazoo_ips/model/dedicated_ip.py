"""A dedicated IP and the rules of its transitions. Standard library only.

Nothing here knows HTTP, CouchDB or the clock: times (Gregorian seconds) and request ids are
passed in, and a transition returns a new object or raises the rule it would break.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from kazoo_ips.errors import AlreadyAssigned, AssignedToAnother, NotAssigned, UnknownStatus

GREGORIAN_EPOCH = 62_167_219_200
"""Seconds from the year 0, where Erlang counts from, to 1970: Kazoo's documents use it."""

TRAIL_LENGTH = 16
"""Events that a document remembers at the most."""
TRAIL_SECONDS = 24 * 3600
"""Seconds that it remembers them: as long as the replies of requests with a key are kept."""


class Status(StrEnum):
    """The states of a dedicated IP that this release knows.

    Any other is a newer release's: its address is shown, counted under its name, and left alone.
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
    """An assignment that nobody was told of was taken back."""


class Event(NamedTuple):
    """One write of this service, as the document that it wrote remembers it.

    :param kind: an `EventKind`, or one of a newer release
    :param account_id: whose the address was or became; None where it was nobody's
    :param at: Gregorian seconds
    """

    kind: str
    account_id: str | None
    at: int
    request_id: str


@dataclass(frozen=True, slots=True)
class DedicatedIP:
    """An address the operator owns and can give to an account.

    `address` is the id it has, as it was first written. `status` is a `Status`, or the name of one
    that only a newer release knows, kept as it is. `conflicted` says that the database holds
    other revisions beside this one. `trail` is what this service did with it in the last day, the
    latest last. `transaction` is the id of the transaction that wrote it last, which may be
    undecided. `source` is the document it was read from; only the repository looks inside, so
    that fields unknown to us survive every write.
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
        """Whether this release knows what its status means, and so may change it."""
        return isinstance(self.status, Status)

    @classmethod
    def new(  # noqa: PLR0913 - one for each thing that is known of it
        cls,
        address: str,
        zone: str,
        host: str,
        *,
        at: int,
        request_id: str,
        trail: tuple[Event, ...] = (),
    ) -> "DedicatedIP":
        """An address that the pool does not have yet, available.

        :param trail: of the same address when it was deleted, if the pool had it once: retries of
            what was done to it then, and accounts that had it, are known by that
        """
        ip = cls(address, zone, host, at, at, request_id=request_id, trail=trail)
        return replace(ip, trail=ip._followed_by(EventKind.CREATED, None, at, request_id))

    def assign(self, account_id: str, *, at: int, request_id: str) -> "DedicatedIP":
        """This address, assigned to an account.

        :raises UnknownStatus: this release does not know its status
        :raises AlreadyAssigned: it is the account's already
        :raises AssignedToAnother: it is another account's, or assigned to nobody known
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        if self.status is Status.ASSIGNED:
            own = self.assigned_to == account_id
            raise (AlreadyAssigned if own else AssignedToAnother)(self.address)
        return replace(
            self,
            status=Status.ASSIGNED,
            assigned_to=account_id,
            modified=at,
            request_id=request_id,
            trail=self._followed_by(EventKind.ASSIGNED, account_id, at, request_id),
            transaction=None,
        )

    def release(self, account_id: str | None, *, at: int, request_id: str) -> "DedicatedIP":
        """This address, available again.

        :param account_id: who gives it back; None is the operator, who may release any
        :raises UnknownStatus: this release does not know its status
        :raises NotAssigned: it is nobody's
        :raises AssignedToAnother: it is another account's
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
            trail=self._followed_by(EventKind.RELEASED, self.assigned_to, at, request_id),
            transaction=None,
        )

    def delete(self, *, at: int, request_id: str) -> "DedicatedIP":
        """What its tombstone remembers: this address, available, taken out of the pool."""
        return replace(
            self,
            request_id=request_id,
            trail=self._followed_by(EventKind.DELETED, None, at, request_id),
            transaction=None,
        )

    def undo(self) -> "DedicatedIP":
        """This address, available again as before an assignment that nobody was told of.

        The trail keeps whom it was assigned to: that account may have been given a copy.
        """
        at, request_id = self.modified, self.request_id or ""
        before = replace(self, trail=self.trail[:-1])
        return replace(
            self,
            status=Status.AVAILABLE,
            assigned_to=None,
            trail=before._followed_by(EventKind.UNDONE, self.assigned_to, at, request_id),
            transaction=None,
        )

    @property
    def accounts(self) -> set[str]:
        """Those that have it, or had it lately."""
        had = {event.account_id for event in self.trail}
        return {account_id for account_id in (self.assigned_to, *had) if account_id}

    def event(self, kind: str, account_id: str | None, request_id: str) -> Event | None:
        """What a request did to this address last, however many have written since; or None."""
        wanted = (kind, account_id, request_id)
        events = (e for e in self.trail if (e.kind, e.account_id, e.request_id) == wanted)
        return max(events, key=lambda event: event.at, default=None)

    def is_release_of(self, assigned: "DedicatedIP") -> bool:
        """Whether this is the very assignment after its release, by what the trails say."""
        if self.status is not Status.AVAILABLE or not self.trail:
            return False
        last = self.trail[-1]
        if (last.kind, last.account_id) != (EventKind.RELEASED, assigned.assigned_to):
            return False
        recent = {event for event in assigned.trail if last.at - event.at < TRAIL_SECONDS}
        return recent <= set(self.trail)

    def as_of(self, event: Event) -> "DedicatedIP":
        """This address as it was right after one of its events."""
        assigned = event.kind == EventKind.ASSIGNED
        return replace(
            self,
            status=Status.ASSIGNED if assigned else Status.AVAILABLE,
            assigned_to=event.account_id if assigned else None,
            modified=event.at,
            request_id=event.request_id,
            transaction=None,
        )

    def _followed_by(
        self, kind: EventKind, account_id: str | None, at: int, request_id: str
    ) -> tuple[Event, ...]:
        recent = [event for event in self.trail if at - event.at < TRAIL_SECONDS]
        event = Event(kind, account_id, at, request_id)
        return (*recent[1 - TRAIL_LENGTH :], event)


class Changed(NamedTuple):
    """An address whose document was written, or deleted.

    :param accounts: those that have it, or had it lately
    :param withdrawn: whether it is gone and its tombstone is a withdrawal
    """

    address: str
    accounts: frozenset[str] = frozenset()
    withdrawn: bool = False


class Listing(NamedTuple):
    """One line of a list: what the views hold of a dedicated IP. There can be 100,000 of them."""

    address: str
    zone: str
    host: str
    assigned_to: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and where the next part starts: None is the end."""

    items: tuple[Listing, ...]
    after: tuple[str, str, str] | None = None
