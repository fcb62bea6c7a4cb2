"""Jobs: work on all addresses of a host that goes on after the reply. Standard library only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kazoo_ips.model.history import NOBODY, Author

PART = 500
"""Maximum number of addresses of a part. A stop of a job takes effect between its parts."""


Position = tuple[object, ...]
"""A position in the view of a host's addresses: the key and id of a row; empty at the start."""


class JobKind(StrEnum):
    """What a job does."""

    MOVE = "move"
    """All addresses of a host go to another host or zone. Each account keeps its addresses."""
    EVACUATE = "evacuate"
    """Each account on a host gets additional addresses on other hosts."""


class JobState(StrEnum):
    """How far a job is."""

    PLANNING = "planning"
    """Its addresses are collected."""
    RUNNING = "running"
    STOPPING = "stopping"
    """It stops after the part that it changes now."""
    STOPPED = "stopped"
    DONE = "done"


ENDED = frozenset({JobState.STOPPED, JobState.DONE})
"""The states of a job that changes no more addresses."""


class ItemResult(StrEnum):
    """What a job has done with one address."""

    MOVED = "moved"
    REPLACED = "replaced"
    """Its account has got a replacement."""
    UNCHANGED = "unchanged"
    """It was already as the job would leave it, or the job no longer applies to it: for example,
    it is not on the host any more."""
    INSUFFICIENT = "insufficient_ips"
    """Its zone has no available address on another host."""
    LIMIT_REACHED = "limit_reached"
    """Its account may not have more addresses."""
    CONFLICT = "conflict"
    """Other clients changed the address at each try, or its conflict is not resolved yet."""
    UNKNOWN_STATUS = "unknown_status"
    """Only a newer release knows its status."""


SUCCESSES = frozenset({ItemResult.MOVED, ItemResult.REPLACED, ItemResult.UNCHANGED})
"""The results after which the operator has nothing left to do for an address."""


@dataclass(frozen=True, slots=True)
class JobItem:
    """One address of a job.

    :param zone: its zone when the job was planned
    :param account_id: the account that had it then; None if none had it
    :param replacement: the address that this account gets, or has got, in addition
    :param result: what the job has done with it; None before that
    """

    address: str
    zone: str
    account_id: str | None = None
    replacement: str | None = None
    result: ItemResult | None = None

    @property
    def is_failed(self) -> bool:
        """Whether the job could not do its work for the address."""
        return self.result is not None and self.result not in SUCCESSES


@dataclass(frozen=True, slots=True)
class JobPart:
    """Up to `PART` addresses of a job, which it changes together.

    :param number: the number of the part, from 0
    """

    job_id: str
    number: int
    items: tuple[JobItem, ...]
    revision: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the results of all addresses are known."""
        return all(item.result for item in self.items)

    @property
    def counts(self) -> Counter[str]:
        """The number of addresses with each result."""
        return Counter(str(item.result) for item in self.items if item.result)


@dataclass(frozen=True, slots=True)
class Job:
    """The move or evacuation of a host, and how far it is. All times are Gregorian seconds.

    :param host: the host whose addresses it changes
    :param request_id: the request that created the job; all writes of the job have this request id
    :param created: when it was created
    :param updated: when it last made progress
    :param to_host: the new host of a move; None keeps the host
    :param to_zone: the new zone of a move; None keeps the zone of each address
    :param by: who created it: the author of all its writes
    :param ended: when it ended; None before that
    :param position: where its planning continues in the view of the host's addresses; None if the
        plan is complete
    :param parts: the number of planned parts
    :param parts_done: the number of parts that are done
    :param total: the number of planned addresses
    :param counts: the number of addresses with each result
    """

    id: str
    kind: JobKind
    host: str
    request_id: str
    created: int
    updated: int
    to_host: str | None = None
    to_zone: str | None = None
    by: Author = NOBODY
    state: JobState = JobState.PLANNING
    ended: int | None = None
    position: Position | None = ()
    parts: int = 0
    parts_done: int = 0
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    revision: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """A sort key: the latest job comes first."""
        return -self.created, self.id

    @property
    def has_ended(self) -> bool:
        """Whether it changes no more addresses."""
        return self.state in ENDED

    @property
    def done(self) -> int:
        """The number of addresses whose result is known."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """The number of addresses for which the job could not do its work."""
        return sum(n for result, n in self.counts.items() if result not in {*SUCCESSES})

    def planned(self, sizes: Iterable[int], position: Position | None, at: int) -> "Job":
        """Return the job with further parts in its plan.

        :param sizes: the number of addresses of each further part
        :param position: where the planning continues; None if the plan is complete
        :param at: the time in Gregorian seconds
        """
        sizes = list(sizes)
        planning = position is not None
        state = self.state
        if state is JobState.PLANNING and not planning:
            state = JobState.RUNNING
        return replace(
            self,
            state=state,
            position=position,
            parts=self.parts + len(sizes),
            total=self.total + sum(sizes),
            updated=at,
        )

    def with_part(self, part: JobPart, at: int) -> "Job":
        """Return the job after a part is done. A part that it counts already changes nothing.

        :param at: the time in Gregorian seconds
        """
        if part.number != self.parts_done:
            return self
        return replace(
            self, parts_done=part.number + 1, counts=self.counts + part.counts, updated=at
        )

    def finished(self, at: int) -> "Job":
        """Return the job as ended, if all its parts are done or if it is to stop.

        :param at: the time in Gregorian seconds
        """
        complete = self.position is None and self.parts_done == self.parts
        if self.state is JobState.STOPPING:
            return replace(self, state=JobState.STOPPED, ended=at, updated=at)
        if self.state is JobState.RUNNING and complete:
            return replace(self, state=JobState.DONE, ended=at, updated=at)
        return self

    def stopping(self) -> "Job":
        """Return the job as it is to stop. A job that has ended does not change."""
        return self if self.has_ended else replace(self, state=JobState.STOPPING)
