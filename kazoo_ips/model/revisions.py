"""Revisions of a dedicated IP's document, and the outcome of writing one."""

from dataclasses import dataclass
from enum import Enum

from kazoo_ips.model.dedicated_ip import DedicatedIP, Event


def generation(revision: str | None) -> int:
    """How many writes led to a revision; 0 for what was never written."""
    return int(revision.split("-", maxsplit=1)[0]) if revision else 0


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
