"""Jobs in the service's own database: one document for each job, and one for each of its parts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model.history import Author
from kazoo_ips.model.jobs import ItemResult, Job, JobItem, JobKind, JobPart, JobState
from kazoo_ips.repositories.records import Records

_JOB, _PART = "job-", "jobpart-"
_TRIES = 5
"""Maximum number of writes of a job while another process writes it."""


class JobRepository:
    """Reads and writes jobs and their parts."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, job_id: str) -> Job | None:
        """Return a job, or None if it does not exist."""
        document = self._records.find(_JOB + job_id, _rank)
        return _job(document) if document else None

    def all(self) -> list[Job]:
        """Return all jobs, the latest first. On a cluster the list may lag."""
        return sorted(map(_job, self._records.range(_JOB)), key=lambda job: job.order)

    def create(self, job: Job) -> Job | None:
        """Write a new job; return None if it exists already.

        :raises DatastoreUnreachable: it is unknown whether the job was written
        """
        document = self._records.put(_document(job))
        return replace(job, revision=document["_rev"]) if document else None

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job. If another process changes it at the same time, try again.

        :param change: returns the changed job
        :returns: the job at its new revision; None if it does not exist
        :raises DatastoreUnreachable: it is unknown whether the job was written
        """
        for _ in range(_TRIES):
            job = self.find(job_id)
            if job is None:
                return None
            changed = change(job)
            if changed == job:
                return job
            document = self._records.put(_document(changed))
            if document:
                return replace(changed, revision=document["_rev"])
        raise DatastoreUnreachable(f"job {job_id}: other processes write it")

    def part(self, job_id: str, number: int) -> JobPart | None:
        """Return a part of a job, or None if it does not exist."""
        document = self._records.find(_part_id(job_id, number), _rank)
        return _part(document) if document else None

    def put_part(self, part: JobPart) -> JobPart | None:
        """Write a part at the revision it carries (compare-and-swap).

        :returns: the part at its new revision; None if another process has changed it
        :raises DatastoreUnreachable: it is unknown whether the part was written
        """
        document = self._records.put(_part_document(part))
        return replace(part, revision=document["_rev"]) if document else None

    def plan_part(self, part: JobPart) -> None:
        """Write a part of a plan, in the place of one that another process has left.

        :raises DatastoreUnreachable: it is unknown whether the part was written
        """
        left = self.put_part(part) is None and self.part(part.job_id, part.number)
        if left and self.put_part(replace(part, revision=left.revision)) is None:
            raise DatastoreUnreachable(f"job {part.job_id}: another process plans it")

    def remove(self, job: Job) -> None:
        """Delete a job that has ended, and its parts.

        :raises DatastoreUnreachable: CouchDB does not answer
        """
        parts = self._records.range(f"{_PART}{job.id}-")
        job_reference = {"_id": _JOB + job.id, "_rev": job.revision}
        self._records.remove([*parts, job_reference])


def _part_id(job_id: str, number: int) -> str:
    return f"{_PART}{job_id}-{number:08d}"


def _rank(document: Document) -> tuple[int, ...]:
    """Return the rank of a revision: of conflicting ones, that with the most progress wins."""
    if "items" in document:
        items = document["items"]
        return (sum("result" in i for i in items), sum("replacement" in i for i in items))
    return (document["parts_done"], document["parts"], document["state"] != JobState.PLANNING)


def _document(job: Job) -> Mapping[str, Any]:
    return {
        "_id": _JOB + job.id,
        "_rev": job.revision,
        "type": "job",
        "kind": job.kind.value,
        "host": job.host,
        "to_host": job.to_host,
        "to_zone": job.to_zone,
        "request_id": job.request_id,
        "by": {name: value for name, value in job.by._asdict().items() if value},
        "created": job.created,
        "updated": job.updated,
        "ended": job.ended,
        "state": job.state.value,
        "position": job.position,
        "parts": job.parts,
        "parts_done": job.parts_done,
        "total": job.total,
        "counts": dict(job.counts),
    }


def _job(document: Document) -> Job:
    return Job(
        id=document["_id"].removeprefix(_JOB),
        kind=JobKind(document["kind"]),
        host=document["host"],
        to_host=document["to_host"],
        to_zone=document["to_zone"],
        request_id=document["request_id"],
        by=Author(**document["by"]),
        created=document["created"],
        updated=document["updated"],
        ended=document["ended"],
        state=JobState(document["state"]),
        position=None if document["position"] is None else tuple(document["position"]),
        parts=document["parts"],
        parts_done=document["parts_done"],
        total=document["total"],
        counts=Counter(document["counts"]),
        revision=document["_rev"],
    )


def _part_document(part: JobPart) -> Mapping[str, Any]:
    return {
        "_id": _part_id(part.job_id, part.number),
        "_rev": part.revision,
        "type": "job_part",
        "job_id": part.job_id,
        "number": part.number,
        "items": [dict(_item_fields(item)) for item in part.items],
    }


def _item_fields(item: JobItem) -> Iterator[tuple[str, str]]:
    for name in ("address", "zone", "account_id", "replacement", "result"):
        value = getattr(item, name)
        if value is not None:
            yield name, str(value)


def _part(document: Document) -> JobPart:
    items = tuple(
        JobItem(
            item["address"],
            item["zone"],
            item.get("account_id"),
            item.get("replacement"),
            ItemResult(item["result"]) if "result" in item else None,
        )
        for item in document["items"]
    )
    return JobPart(document["job_id"], document["number"], items, document["_rev"])
