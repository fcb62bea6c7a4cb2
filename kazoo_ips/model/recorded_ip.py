"""A dedicated IP as its document records it, with questions about its trail.

Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

from kazoo_ips.model import trail
from kazoo_ips.model.changes import Labels, Replacement
from kazoo_ips.model.history import State
from kazoo_ips.model.lifecycle import Disabled, Status, known_status
from kazoo_ips.model.trail import Event, EventKind, Trail


@dataclass(frozen=True)
class RecordedIP:
    """An address that the operator owns and can assign to an account.

    * `address` is the document id: the spelling in which the address was added.
    * `created` and `modified` are the times of the addition and of the latest change.
    * `status` is a `Status`, or the unchanged name of one that only a newer release knows.
    * `assigned_to` is the account that has the address.
    * `request_id` is the request of the latest change.
    * `revision` is the revision of the document; None if it is not written yet.
    * `available_at` is the time at which its rest is over. `last_assigned_to` is the account that
      had the address before, and that may have it back during the rest.
    * `reserved_for` is the account of the reservation with the id `reservation`, which ends at
      `reserved_until`.
    * `disabled` is why the address is disabled. If it is assigned, its release disables it.
    * `description` and `labels` are the operator's notes; the labels are sorted by key.
    * `replacement` is the address that its account got in an evacuation to replace this one.
    * `conflicted` is whether the document has other live revisions.
    * `trail` has the latest events of the address, the latest one last.
    * `transaction` is the id of the transaction that wrote the document. It may be pending.
    * `source` is the document that the address was read from. Only the repository uses it, so that
      a write keeps the fields that this service does not know.

    All times are Gregorian seconds.
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
    trail: Trail = field(default=(), compare=False)
    transaction: str | None = field(default=None, compare=False)
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    available_at: int | None = None
    last_assigned_to: str | None = None
    reserved_for: str | None = None
    reserved_until: int | None = None
    reservation: str | None = None
    disabled: Disabled | None = None
    description: str | None = field(default=None, compare=False)
    labels: Labels = field(default=(), compare=False)
    replacement: Replacement | None = field(default=None, compare=False)

    @property
    def state(self) -> State:
        """The fields that the history records."""
        return State(str(self.status), self.assigned_to, self.zone, self.host)

    @property
    def notes(self) -> tuple[str | None, Labels, str | None]:
        """The fields of a change besides the state: description, labels and replacement."""
        return self.description, self.labels, self.replaced_by

    @property
    def replaced_by(self) -> str | None:
        """The address that its account got to replace this one; None if there is none."""
        replacement = self.replacement
        if replacement is None or self.assigned_to != replacement.account_id:
            return None
        return replacement.address

    @property
    def assignment(self) -> Self:
        """This address with the fields that the account's copy has too, and without a revision."""
        return replace(self, revision=None, **NO_REST_OR_RESERVATION, disabled=None)

    @property
    def rests_until(self) -> int | None:
        """The time until which it rests; None if it does not rest."""
        return self.available_at if self.status is Status.AGING else None

    @property
    def status_before(self) -> str:
        """The status before the latest change of the address by this service."""
        event = trail.latest(self.trail)
        return event.origin.status if event and event.origin else Status.AVAILABLE

    def based_on(self, revision: str | None) -> Self:
        """Return this state with another base revision, and with its events at that generation.

        :param revision: the revision to write it on, later than the one that it was made from
        """
        base, to = trail.generation(self.revision), trail.generation(revision)
        return replace(self, revision=revision, trail=trail.rebased(self.trail, base, to))

    def as_committed(self) -> Self:
        """Return this state, whose last event belongs to a transaction that is committed already.

        So no other change of the same assignment can have been acknowledged.
        """
        *earlier, last = self.trail
        return replace(self, trail=(*earlier, last._replace(committed=True)))

    @property
    def accounts(self) -> set[str]:
        """The account that has the address, and those in its trail."""
        had = {event.account_id for event in self.trail}
        had |= {event.origin.account_id for event in self.trail if event.origin}
        return {account_id for account_id in (self.assigned_to, *had) if account_id}

    def event(self, kind: str, account_id: str | None, request_id: str) -> Event | None:
        """Return the latest event of a kind that a request caused; None if there is none.

        There may be later events of other requests.

        :param kind: an `EventKind`
        :param account_id: the account that the event names
        """
        wanted = (kind, account_id, request_id)
        events = (e for e in self.trail if (e.kind, e.account_id, e.request_id) == wanted)
        return max(events, key=lambda event: event.at, default=None)

    def follows_release_of(self, assigned: "RecordedIP") -> bool:
        """Return whether, by the trails, an assignment was released and this state came after it.

        A transfer to another account counts as a release.

        :param assigned: the address as it was assigned
        """
        if not self.trail:
            return False
        # A write removes the earliest events once nobody needs them. An older release can save an
        # assignment again without an event. This release then adds an event of the kind `found`,
        # with the later generation.
        oldest = (self.trail[0].generation, self.trail[0].at)
        kept = [
            event
            for event in assigned.trail
            if (event.generation, event.at) > oldest
            and not (event.kind == EventKind.FOUND and event.account_id == assigned.assigned_to)
        ]
        return any(
            _releases(event, assigned.assigned_to)
            and event not in assigned.trail
            and all(earlier in self.trail[:n] for earlier in kept)
            for n, event in enumerate(self.trail)
        )

    def is_copy_of(self, assigned: "RecordedIP") -> bool:
        """Return whether this copy was written for exactly this assignment, and for no other."""
        return (self.assigned_to, self.request_id, self.modified, self.status) == (
            assigned.assigned_to,
            assigned.request_id,
            assigned.modified,
            assigned.status,
        )

    def as_copied(self, copy: Self) -> Self | None:
        """Return this assignment as it was when a copy was written.

        Its trail ends with the event that the copy belongs to.

        :returns: None if the copy belongs to no event of this assignment
        """
        if (copy.assigned_to, copy.status) != (self.assigned_to, self.status):
            return None
        for length in range(len(self.trail), 0, -1):
            event = self.trail[length - 1]
            if event.kind in trail.NOT_DONE:
                continue
            # An event of the kind `found` does not record the request of the other program. If it
            # is the latest event, the document has that request.
            request_id = event.request_id
            if event.kind == EventKind.FOUND:
                is_latest = length == len(self.trail)
                request_id = (self if is_latest else copy).request_id or ""
            if (copy.request_id or "", copy.modified) == (request_id, event.at):
                return replace(self, trail=self.trail[:length])
            if event.kind not in _KEEP_ACCOUNT:
                break
        return None

    def before(self, event: Event) -> Self:
        """Return this address as it was right before an event, if the event records its origin.

        Otherwise the result is this address unchanged.
        """
        origin = event.origin
        if origin is None:
            return self
        return replace(
            self,
            status=known_status(origin.status),
            assigned_to=origin.account_id,
            zone=origin.zone or self.zone,
            host=origin.host or self.host,
        )

    def as_of(self, event: Event) -> Self:
        """Return this address as it was right after an event. The notes are the present ones."""
        assigned = event.kind in {EventKind.ASSIGNED, EventKind.TRANSFERRED}
        status, state = _status_after(event), event.state
        place = {"zone": state.zone, "host": state.host} if state else {}
        owner = event.account_id if assigned else None
        return replace(
            self,
            **({} if status == self.status else NO_REST_OR_RESERVATION),
            **place,
            status=status,
            assigned_to=state.account_id if state else owner,
            modified=event.at,
            request_id=event.request_id,
            transaction=None,
        )


_KEEP_ACCOUNT = frozenset({EventKind.CHANGED, EventKind.DISABLED, EventKind.ENABLED})
"""Kinds of events that an assigned address can have without a change of its account."""

_IP = TypeVar("_IP", bound=RecordedIP)


def replace(ip: _IP, **fields: Any) -> _IP:
    """Return a copy of a dedicated IP in which some fields have other values.

    `dataclasses.replace` does the same, but takes five times as long, and a request for a thousand
    addresses makes several thousand copies.

    :raises TypeError: a dedicated IP has no such field
    """
    copy = object.__new__(type(ip))
    values = copy.__dict__
    values.update(ip.__dict__)
    values.update(fields)
    if len(values) > len(ip.__dict__):
        raise TypeError(f"a dedicated IP has no field {', '.join(fields.keys() - ip.__dict__)}")
    return copy


NO_REST_OR_RESERVATION: dict[str, Any] = dict.fromkeys(
    ("available_at", "last_assigned_to", "reserved_for", "reserved_until", "reservation")
)
"""The fields of a rest and of a reservation, with the values of an address that has neither."""


def _releases(event: Event, account_id: str | None) -> bool:
    if event.kind == EventKind.TRANSFERRED:
        return event.origin is not None and event.origin.account_id == account_id
    if event.origin is not None and event.origin.status == Status.RESERVED:
        return False
    return (event.kind, event.account_id) == (EventKind.RELEASED, account_id)


def _status_after(event: Event) -> str:
    """Return the status after an event; of a deletion, the status before it."""
    if event.state is not None:
        return known_status(event.state.status)
    if event.kind == EventKind.DELETED and event.origin:
        return known_status(event.origin.status)
    assigned = event.kind in {EventKind.ASSIGNED, EventKind.TRANSFERRED}
    return Status.ASSIGNED if assigned else Status.AVAILABLE


class Changed(NamedTuple):
    """An address whose document was written or deleted, as the pool's changes feed reports it.

    :param accounts: the account that has the address, and those in its trail
    :param withdrawn: whether the document is deleted and its tombstone is a withdrawal
    """

    address: str
    accounts: frozenset[str] = frozenset()
    withdrawn: bool = False
