"""Creating, showing and stopping jobs.

A job is a document. The background work of any process does it part by part (`running.py`).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

from kazoo_ips.errors import BadIdentifier, DatastoreUnreachable, JobExists, JobNotFound
from kazoo_ips.model import Attempt, EvacuateHost, MoveHost, Scope
from kazoo_ips.model.jobs import Job, JobItem, JobKind
from kazoo_ips.observability import audit
from kazoo_ips.repositories.jobs import JobRepository
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import PlaceChanges

ItemPosition = tuple[int, int]
"""The number of a part, and the index of an item in it."""


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some addresses of a job, and the position after them; None at the end."""

    items: tuple[JobItem, ...]
    after: ItemPosition | None = None


class JobService:
    """Creates, shows and stops jobs.

    :param places: knows whether a host has addresses
    :param now: returns the time in Gregorian seconds
    """

    def __init__(self, jobs: JobRepository, places: PlaceChanges, now: Callable[[], int]) -> None:
        self._jobs = jobs
        self._places = places
        self._now = now

    def create(
        self, command: MoveHost | EvacuateHost, request_id: str, *, attempt: Attempt | None = None
    ) -> Job:
        """Create a job.

        :param attempt: the attempt of a request with an Idempotency-Key; if an earlier attempt has
            created the job, it is returned
        :raises BadIdentifier: the host has no addresses and no settings
        :raises JobExists: another job works on the host
        :raises DatastoreUnreachable: it is unknown whether the job exists
        """
        job_id = _id(attempt)
        try:
            self.check_host(command.host)
        except (BadIdentifier, JobExists):
            # The job may be that of the earlier attempt, which may have emptied the host.
            earlier = self._jobs.find(job_id) if attempt else None
            if earlier:
                return earlier
            raise
        now, move = self._now(), command if isinstance(command, MoveHost) else None
        job = Job(
            id=job_id,
            kind=JobKind.MOVE if move else JobKind.EVACUATE,
            host=command.host,
            to_host=move.to_host if move else None,
            to_zone=move.to_zone if move else None,
            request_id=request_id,
            by=audit.author(),
            created=now,
            updated=now,
        )
        created = self._jobs.create(job)
        if created:
            audit.job_changed(audit.Change.JOB_STARTED, created)
            return created
        found = self._jobs.find(job_id)
        if found is None:
            raise DatastoreUnreachable(f"job {job_id}: not known whether it exists")
        return found

    def check_host(self, host: str) -> None:
        """Raise an error if no job can be created for a host.

        :raises BadIdentifier: it has no addresses and no settings
        :raises JobExists: another job works on it
        """
        for job in self._jobs.all():
            if job.host == host and not job.has_ended:
                raise JobExists(job.id)
        self._places.fetch(Place(Scope.HOST, host))

    def list(self) -> list[Job]:
        """Return all jobs of the last weeks, the latest first."""
        return self._jobs.all()

    def fetch(self, job_id: str) -> Job:
        """Return a job.

        :raises JobNotFound: no job has the id
        """
        job = self._jobs.find(job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    def stop(self, job_id: str, *, dry_run: bool = False) -> Job:
        """Stop a job between two of its parts. A job that has ended does not change.

        :raises JobNotFound: no job has the id
        :raises DatastoreUnreachable: it is unknown whether the job stops
        """
        if dry_run:
            return self.fetch(job_id).stopping()
        before: Job | None = None

        def stop(found: Job) -> Job:
            nonlocal before
            before = found
            return found.stopping()

        job = self._jobs.update(job_id, stop)
        if job is None:
            raise JobNotFound(job_id)
        if before and before.state is not job.state:
            audit.job_changed(audit.Change.JOB_STOPPED, job)
        return job

    def items(
        self, job: Job, limit: int | None, after: ItemPosition = (0, 0), *, failed: bool = False
    ) -> ItemPage:
        """Return a part of the addresses of a job, in the order in which they are changed.

        :param limit: the maximum number; None is no limit
        :param after: where they start
        :param failed: only those for which something is left to do
        """
        found: list[JobItem] = []
        for position, item in self._items(job, after):
            if failed and not item.is_failed:
                continue
            if len(found) == limit:
                return ItemPage(tuple(found), position)
            found.append(item)
        return ItemPage(tuple(found))

    def _items(self, job: Job, after: ItemPosition) -> Iterator[tuple[ItemPosition, JobItem]]:
        first, start = after
        for number in range(first, job.parts):
            part = self._jobs.part(job.id, number)
            for index, item in enumerate(part.items if part else ()):
                if number > first or index >= start:
                    yield (number, index), item


def _id(attempt: Attempt | None) -> str:
    """Return the id of a new job. All attempts of one request have the same."""
    return hashlib.sha256(attempt.key.encode()).hexdigest()[:32] if attempt else uuid4().hex
