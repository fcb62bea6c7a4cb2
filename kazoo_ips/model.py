"""The things this service is about, and the rules they obey. Standard library only.

Nothing here knows HTTP, CouchDB or the clock: times (Gregorian seconds) and request ids are
passed in, and a transition returns a new object or raises the rule it would break.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a request that carries an Idempotency-Key.

    :param key: names the request: the key, whose it is, and when it came first
    :param number: from 1; a later one takes the place of those that came to no end
    """

    key: str
    number: int

    @property
    def earlier(self) -> tuple["Attempt", ...]:
        """Those whose place it takes."""
        return tuple(Attempt(self.key, number) for number in range(1, self.number))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A tombstone that a writer left where its claim had no quorum.

    :param revision: the tombstone's own
    :param base: the revision that the claim was made on
    :param before: the dedicated IP as it was then
    """

    revision: str
    base: str
    before: DedicatedIP


@dataclass(frozen=True, slots=True)
class Leaves:
    """All current revisions of one address, as a read of all copies shows them.

    :param live: the one everybody sees first; several are a conflict
    :param withdrawn: claims that were taken back
    :param deleted: what it was when somebody deleted it
    """

    live: tuple[DedicatedIP, ...]
    withdrawn: tuple[Withdrawal, ...] = ()
    deleted: tuple[DedicatedIP, ...] = ()

    @property
    def trail(self) -> tuple[Event, ...]:
        """What happened to it until it was deleted, the latest last."""
        events = dict.fromkeys(event for ip in self.deleted for event in ip.trail)
        return tuple(sorted(events, key=lambda event: event.at))

    @property
    def lost(self) -> Withdrawal | None:
        """The withdrawal to bring the address back from, when every claimant withdrew.

        None while it is alive, and when somebody deleted it since that claim began.
        """
        if self.live or not self.withdrawn:
            return None
        last = max(self.withdrawn, key=lambda w: (generation(w.base), w.revision))
        deleted_since = self._is_deleted_after(last.base)
        return None if deleted_since else last

    def supersede(self, revision: str | None) -> bool:
        """Whether somebody else has written on a revision, or deleted it.

        Where nothing shows that came after it, the copies that have it may not have answered.
        """
        if any(leaf.revision == revision for leaf in self.live):
            return False
        after = generation(revision)
        newer = any(generation(leaf.revision) > after for leaf in self.live)
        return newer or self._is_deleted_after(revision)

    def reach(self, revision: str | None) -> bool:
        """Whether the copies that answered know as much as a revision, or more.

        Where they do not, what does not show may be on those that did not answer.
        """
        known = [
            *(ip.revision for ip in (*self.live, *self.deleted)),
            *(withdrawal.revision for withdrawal in self.withdrawn),
        ]
        return max(map(generation, known), default=0) >= generation(revision)

    def are_one_since(self, revision: str | None) -> bool:
        """Whether there is one live revision, and nobody has deleted it since another."""
        return len(self.live) == 1 and not self._is_deleted_after(revision)

    def _is_deleted_after(self, revision: str | None) -> bool:
        return any(generation(ip.revision) > generation(revision) for ip in self.deleted)


def generation(revision: str | None) -> int:
    """How many writes led to a revision; 0 for what was never written."""
    return int(revision.split("-", maxsplit=1)[0]) if revision else 0


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


@dataclass(frozen=True, slots=True)
class Account:
    """One node of the account tree. `tree` is its ancestors, root first, parent last."""

    id: str
    name: str
    realm: str
    tree: tuple[str, ...]
    enabled: bool = True
    expires: int | None = None
    operator: bool = False
    reseller_id: str | None = None
    is_reseller: bool = False
    api_key: str | None = None
    language: str | None = None
    signature_secret: str | None = field(default=None, repr=False)

    def is_active(self, now: int) -> bool:
        """Whether its tokens and logins work.

        :param now: Gregorian seconds
        """
        return self.enabled and (self.expires is None or self.expires > now)

    def is_within(self, ancestor_id: str) -> bool:
        """Whether this is that account or one below it."""
        return self.id == ancestor_id or ancestor_id in self.tree


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who logs in to an account."""

    id: str
    account_id: str
    username: str
    enabled: bool = True
    signature_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is acting: the account of the token, and the user if it names one."""

    account: Account
    user_id: str | None = None

    @property
    def is_operator(self) -> bool:
        """Kazoo's superduper admin: a property of the account, not of the user."""
        return self.account.operator

    def may_see(self, account: Account) -> bool:
        """Itself, what is below it, and for the operator everything."""
        return self.is_operator or account.is_within(self.account.id)


class Outcome(Enum):
    """What became of a write.

    `DONE`: a quorum has it (201). `REFUSED`: nothing was written (409). `UNKNOWN`: it may have
    been written, everywhere, somewhere or nowhere (202, a lost reply, a failure).
    """

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Written:
    """One write's outcome and, where CouchDB told it, the new revision."""

    outcome: Outcome
    revision: str | None = None


# Commands: what somebody wants, checked in form, not yet in substance.


@dataclass(frozen=True, slots=True)
class CreateIP:
    """Add an address to the pool."""

    address: str
    zone: str
    host: str


@dataclass(frozen=True, slots=True)
class AssignIP:
    """Assign one address to an account.

    :param if_match: the revisions it may have; empty is any
    """

    account_id: str
    address: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AssignIPs:
    """Assign these addresses to an account: all or none."""

    account_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AllocateIPs:
    """Pick available addresses and assign them to an account: so many or none.

    :param zone: of this zone only
    :param host: on this host only
    :param distinct_hosts: no two on one host
    :param distinct_zones: no two in one zone
    """

    account_id: str
    quantity: int
    zone: str | None = None
    host: str | None = None
    distinct_hosts: bool = False
    distinct_zones: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseIP:
    """Take one address back from an account; None is whichever has it.

    :param if_match: the revisions it may have; empty is any
    """

    account_id: str | None
    address: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseIPs:
    """Take these addresses back from an account, all or none; None is all that it has."""

    account_id: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DeleteIP:
    """Take an address out of the pool.

    :param force: release it first when it is assigned; take it out whatever its status
    :param if_match: the revisions it may have; empty is any
    """

    address: str
    force: bool = False
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListIPs:
    """One page, the first few, or all of a list of addresses.

    :param limit: how many at the most; None is all
    :param after: where the last page ended: zone, order and address of its last line
    :param paged: whether there is a next page to speak of
    """

    zone: str | None = None
    host: str | None = None
    limit: int | None = 50
    after: tuple[str, str, str] | None = None
    paged: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a token: the hash of `user:password` and where the user belongs."""

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
