"""The worker processes that run now: each writes a document about itself from time to time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kazoo_ips.couch.client import Document
from kazoo_ips.repositories.records import Records

_PREFIX = "worker-"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process.

    :param id: a random name
    :param host: the name of the machine
    :param release: the version of the service
    :param started: when it started, in Gregorian seconds
    :param seen: when it was last known to run, in Gregorian seconds
    """

    id: str
    host: str
    pid: int
    release: str
    started: int
    seen: int
    revision: str | None = None


class WorkerRepository:
    """Reads and writes the documents of workers."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def put(self, worker: Worker) -> Worker:
        """Write the document of this process.

        :returns: the worker with the revision for its next write
        :raises DatastoreUnreachable: it is unknown whether it was written
        """
        document = self._records.put(_document(worker))
        return replace(worker, revision=document["_rev"] if document else None)

    def all(self) -> list[Worker]:
        """Return all workers that have a document, also those that have ended."""
        return [_worker(document) for document in self._records.range(_PREFIX)]

    def remove(self, workers: list[Worker]) -> None:
        """Delete the documents of workers that have ended."""
        if workers:
            self._records.remove([_document(worker) for worker in workers])


def _document(worker: Worker) -> Mapping[str, object]:
    return {
        "_id": _PREFIX + worker.id,
        "_rev": worker.revision,
        "type": "worker",
        "host": worker.host,
        "pid": worker.pid,
        "release": worker.release,
        "started": worker.started,
        "seen": worker.seen,
    }


def _worker(document: Document) -> Worker:
    return Worker(
        document["_id"].removeprefix(_PREFIX),
        document["host"],
        document["pid"],
        document["release"],
        document["started"],
        document["seen"],
        document["_rev"],
    )
