"""Events of the history of dedicated IPs, as the archive keeps them. Standard library only."""

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


class HistoryEventKind(StrEnum):
    """What happened to an address. Later releases add more kinds."""

    CREATED = "created"
    CHANGED = "changed"
    """The zone, the host or the notes changed. The account did not."""
    ASSIGNED = "assigned"
    RELEASED = "released"
    """An account does not have it any more, or a reservation has ended."""
    TRANSFERRED = "transferred"
    """Another account has it, without it being available between."""
    RESERVED = "reserved"
    """It was reserved, or its reservation was extended."""
    AGED = "aged"
    """It has begun to rest, or its rest has ended."""
    DISABLED = "disabled"
    """The operator took it out of service. If it is assigned, it stays so until its release."""
    ENABLED = "enabled"
    DELETED = "deleted"
    UNKNOWN = "unknown"
    """A write of another program, of which only the revision is still known."""
    RETRACTED = "retracted"
    """An earlier event is not valid: its write was withdrawn, or lost a conflict."""
    POOL_LOW = "pool.low"
    """A zone has few available addresses left. This event and the next one have no address."""
    POOL_RECOVERED = "pool.recovered"
    """A zone that was low has enough available addresses again."""


class Source(StrEnum):
    """How the archive has learned of an event."""

    SERVICE = "service"
    """This service made the change: the event was in the trail of the document."""
    KAZOO = "kazoo"
    """Another program made the change, for example Kazoo or Fauxton: the event was found by
    comparing revisions of the document."""
    GAP = "gap"
    """CouchDB no longer has the revisions of the change."""


class State(NamedTuple):
    """The fields of an address before or after a change, as the history records them.

    :param status: the name of a `Status`, or of one that only a newer release knows
    :param account_id: the account that has the address; None if none has it
    """

    status: str
    account_id: str | None
    zone: str
    host: str


class PoolLevel(NamedTuple):
    """How many addresses a zone had when it became low, or when it recovered.

    :param available: the number of available addresses
    :param total: the number of all addresses
    :param low_percent: the percentage of available addresses at which the zone is low
    """

    zone: str
    available: int
    total: int
    low_percent: float


class Author(NamedTuple):
    """Who made a change. All fields are None if it is not known.

    :param account_id: the account of the caller's token
    :param user_id: the user of the caller's token, if it has one
    :param command: the name of the command, or of the background work
    :param system_user: the user of the operating system who ran the command
    """

    account_id: str | None = None
    user_id: str | None = None
    command: str | None = None
    system_user: str | None = None


NOBODY = Author()
"""The author of a change of which it is not known who made it."""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One change of one address, or of a zone's level.

    :param id: unique and stable: each reader of the same change computes the same id
    :param address: the address, in its canonical form; empty for an event of a zone
    :param event: the name of a `HistoryEventKind`, or of a kind that only a newer release knows
    :param at: the time in Gregorian seconds
    :param account_id: the account that has the address after an assignment, a transfer or a
        reservation, or had it before a release; None for other events
    :param before: the state before the change; None if there was none, or if it is not known
    :param after: the state after the change; None if there is none, or if it is not known
    :param request_id: the request that made the change; None if it is not known
    :param certain: whether the time and the states are known, and not inferred
    :param revision: the revision of the pool's document that the change created, if it is known
    :param retracts: the id of the event that this event, of the kind `retracted`, takes back
    :param reason: the reason that the author has given, if any
    :param level: the zone and its level, for an event of a zone
    """

    id: str
    address: str
    event: str
    at: int
    account_id: str | None
    before: State | None
    after: State | None
    by: Author
    request_id: str | None
    source: Source = Source.SERVICE
    certain: bool = True
    revision: str | None = None
    retracts: str | None = None
    reason: str | None = None
    level: PoolLevel | None = None

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that the event concerns, each once."""
        states = [state.zone for state in (self.before, self.after) if state]
        return tuple(dict.fromkeys([*states, *([self.level.zone] if self.level else [])]))

    @property
    def account_before(self) -> str | None:
        """The account that has the address before the change; None if none has it.

        If the state before is not known, a release still names the account.
        """
        if self.before is not None:
            return self.before.account_id
        return self.account_id if self.event == HistoryEventKind.RELEASED else None

    @property
    def account_after(self) -> str | None:
        """The account that has the address after the change; None if none has it.

        If the state after is not known, an assignment still names the account.
        """
        if self.after is not None:
            return self.after.account_id
        return self.account_id if self.event == HistoryEventKind.ASSIGNED else None

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that have the address before or after the change, each once."""
        named = (self.account_before, self.account_after, self.account_id)
        return tuple(dict.fromkeys(account_id for account_id in named if account_id))

    def seen_by(self, sees: Callable[[str], bool]) -> "HistoryEvent | None":
        """Return the event as a reader may see it; None if the reader may see none of it.

        The reader may see an event if an account that it may see has the address before or after
        the event. The result lacks a state in which another account has the address. It lacks the
        author, the request and the reason, unless the reader may see the author's account.

        :param sees: whether the reader may see an account
        """
        visible = {account_id for account_id in self.accounts if sees(account_id)}
        if not visible:
            return None
        author = self.by.account_id
        sees_author = author is not None and (author in visible or sees(author))
        return replace(
            self,
            account_id=self.account_id if self.account_id in visible else None,
            before=_seen(self.before, visible),
            after=_seen(self.after, visible),
            by=self.by if sees_author else NOBODY,
            request_id=self.request_id if sees_author else None,
            reason=self.reason if sees_author else None,
        )


def _seen(state: State | None, visible: Container[str]) -> State | None:
    is_seen = state is not None and (state.account_id is None or state.account_id in visible)
    return state if is_seen else None


class FeedEntry(NamedTuple):
    """An event of the feed, and the position in the feed after it."""

    since: str
    event: HistoryEvent


class FeedPage(NamedTuple):
    """A part of the feed of events.

    :param since: the position after it
    :param more: whether more events may follow
    """

    since: str
    entries: list[FeedEntry]
    more: bool
