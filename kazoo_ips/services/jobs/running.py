"""Doing the work of jobs, one part at a time.

Every step can be repeated: a process may be killed anywhere, and another one continues. Several
processes may even work on the same part for a moment, because each write compares revisions.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model.jobs import PART, Job, JobItem, JobKind, JobPart, JobState, Position
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.jobs import JobRepository

log = logging.getLogger(__name__)

PLANNED = 5000
"""Maximum number of addresses that are planned in one step."""
KEPT = 30 * 24 * 3600
"""Seconds for which a job that has ended is kept."""


class PartChanged(DatastoreUnreachable):
    """Another process has changed the part meanwhile. It is read again."""


class JobExecutor(Protocol):
    """What a kind of job does."""

    def listed(
        self, host: str, after: Position, limit: int
    ) -> tuple[list[JobItem], Position | None]:
        """Return a part of the addresses to work on, and the position after it."""

    def execute(self, job: Job, part: JobPart, save: Callable[[JobPart], JobPart]) -> JobPart:
        """Change the addresses of a part, and return it with their results."""


class JobRunner:
    """Does one step of a job.

    :param executors: what each kind of job does
    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        jobs: JobRepository,
        executors: Mapping[JobKind, JobExecutor],
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._executors = executors
        self._now = now
        self._metrics = metrics

    def unfinished(self) -> list[Job]:
        """Return the jobs that have not ended, the earliest first."""
        jobs = self._jobs.all()
        unfinished = [job for job in reversed(jobs) if not job.has_ended]
        waiting = max((self._now() - job.updated for job in unfinished), default=0)
        self._metrics.show_jobs(len(unfinished), max(waiting, 0))
        return unfinished

    def step(self, job: Job) -> Job:
        """Do one step of a job, and return it as it is then.

        :raises DatastoreError: CouchDB failed; the step is repeated later
        """
        job = self._updated(job, lambda job: job)  # a client may have stopped it
        if job.has_ended:
            return job
        if job.state is JobState.PLANNING:
            return self._plan(job)
        part = self._jobs.part(job.id, job.parts_done) if job.parts_done < job.parts else None
        stops = job.state is JobState.STOPPING
        if part is None or (stops and not _has_begun(part)):
            return self._updated(job, lambda job: job.finished(self._now()))
        if not part.is_done:
            part = self._save(self._executors[job.kind].execute(job, part, self._save))
            for result, count in part.counts.items():
                self._metrics.job_items.labels(str(job.kind), result).inc(count)
        done = part
        return self._updated(
            job, lambda job: job.with_part(done, self._now()).finished(self._now())
        )

    def _plan(self, job: Job) -> Job:
        items, after = self._executors[job.kind].listed(job.host, job.position or (), PLANNED)
        groups = [tuple(items[n : n + PART]) for n in range(0, len(items), PART)]
        for number, group in enumerate(groups, job.parts):
            self._jobs.plan_part(JobPart(job.id, number, group))
        sizes = [len(group) for group in groups]

        def planned(current: Job) -> Job:
            if current.parts != job.parts or current.position != job.position:
                return current  # another process has planned this part
            return current.planned(sizes, after, self._now()).finished(self._now())

        return self._updated(job, planned)

    def _save(self, part: JobPart) -> JobPart:
        saved = self._jobs.put_part(part)
        if saved is None:
            raise PartChanged(
                f"job {part.job_id}: part {part.number} is changed by another process"
            )
        return saved

    def _updated(self, job: Job, change: Callable[[Job], Job]) -> Job:
        updated = self._jobs.update(job.id, change)
        if updated is None:
            raise DatastoreUnreachable(f"job {job.id} is missing")
        if updated.has_ended and not job.has_ended:
            log.info("job %s: %s, %s", job.id, updated.state, dict(updated.counts))
        return updated

    def sweep(self) -> int:
        """Delete the jobs that ended long ago; return how many."""
        old = [job for job in self._jobs.all() if job.ended and self._now() - job.ended > KEPT]
        for job in old:
            self._jobs.remove(job)
        return len(old)


def _has_begun(part: JobPart) -> bool:
    """Return whether some addresses of a part may be changed, so that it has to be finished."""
    return any(item.result or item.replacement for item in part.items)
