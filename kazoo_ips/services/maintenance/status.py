"""What runs where: the workers, CouchDB's nodes and indexes, the background work, the doctor."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from secrets import token_hex
from typing import Any

from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from kazoo_ips.repositories.cluster import Cluster, ClusterRepository, IndexState
from kazoo_ips.repositories.doctor_reports import (
    DoctorReport,
    DoctorReportRepository,
    Examined,
)
from kazoo_ips.repositories.instances import Worker, WorkerRepository
from kazoo_ips.repositories.low_zones import LowMarkRepository
from kazoo_ips.services.maintenance.findings import Finding

HEARTBEAT = 60
"""Seconds between two writes of a worker about itself."""
_ALIVE = 3 * HEARTBEAT
"""Seconds after which a worker without a write is considered to have ended."""
_FORGOTTEN = 3600
_EXAMPLES = 50
"""Number of findings of the doctor that are stored in full."""
_ALWAYS = ("healing", "history", "webhooks")
"""Background work that some process has to do at every moment."""


@dataclass(frozen=True, slots=True)
class FollowerState:
    """Background work that one process of all does.

    :param is_held: whether a process holds the lease
    :param behind: seconds by which it is behind; None if it does not say
    """

    name: str
    is_held: bool
    behind: int | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of all instances of the service.

    :param at: in Gregorian seconds
    :param low_zones: the zones with few available addresses
    """

    at: int
    workers: tuple[Worker, ...]
    cluster: Cluster
    indexes: tuple[IndexState, ...]
    followers: tuple[FollowerState, ...]
    low_zones: tuple[str, ...]
    doctor: DoctorReport | None

    @property
    def releases(self) -> Mapping[str, int]:
        """The number of workers of each release."""
        found: dict[str, int] = {}
        for worker in self.workers:
            found[worker.release] = found.get(worker.release, 0) + 1
        return found

    @property
    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = []
        if not self.workers:
            found.append("no worker runs")
        if len(self.releases) > 1:
            found.append("workers of several releases run: " + ", ".join(sorted(self.releases)))
        found += [f"the node {node} of CouchDB is not connected" for node in self.cluster.missing]
        if self.cluster.has_quorum is False:
            found.append("most replicas of a shard are not connected: writes are refused")
        found += [
            f"no process does the background work {follower.name}"
            for follower in self.followers
            if self.workers and follower.name in _ALWAYS and not follower.is_held
        ]
        found += [f"the zone {zone} is low" for zone in self.low_zones]
        if self.doctor and self.doctor.counts:
            counts = ", ".join(f"{n} {problem}" for problem, n in self.doctor.counts.items())
            found.append(f"the doctor has found: {counts}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the state as a JSON object, which the API and the command `status` show."""
        members = ("host", "pid", "release", "started", "seen")
        return {
            "at": self.at,
            "problems": self.problems,
            "workers": [{name: getattr(w, name) for name in members} for w in self.workers],
            "cluster": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.cluster._asdict().items()
            },
            "indexes": [each._asdict() for each in self.indexes],
            "background": [asdict(each) for each in self.followers],
            "low_zones": list(self.low_zones),
            "doctor": _report_as_json(self.doctor) if self.doctor else None,
        }


def _report_as_json(report: DoctorReport) -> dict[str, Any]:
    return {
        "started": report.started,
        "ended": report.ended,
        "by": report.by,
        "counts": dict(report.counts),
        "examples": [
            {"problem": problem, "ip": address or None, "account_id": account_id}
            for problem, address, account_id in report.examples
        ],
    }


class StatusService:
    """Collects the state of all instances.

    :param release: the version of the service
    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        workers: WorkerRepository,
        cluster: ClusterRepository,
        checkpoints: Checkpoints,
        marks: LowMarkRepository,
        reports: DoctorReportRepository,
        release: str,
        now: Callable[[], int],
    ) -> None:
        self._workers = workers
        self._cluster = cluster
        self._checkpoints = checkpoints
        self._marks = marks
        self._reports = reports
        self._release = release
        self._now = now
        self._own: Worker | None = None

    def status(self) -> ServiceStatus:
        """Return the state of all instances.

        :raises DatastoreError: CouchDB failed
        """
        now = self._now()
        alive = [worker for worker in self._workers.all() if self._is_alive(worker, now)]
        return ServiceStatus(
            now,
            tuple(sorted(alive, key=lambda worker: (worker.host, worker.started, worker.pid))),
            self._cluster.cluster(),
            tuple(self._cluster.indexes()),
            tuple(self._follower(each, now) for each in self._checkpoints.all()),
            tuple(sorted(z for z, mark in self._marks.read().zones.items() if mark.low)),
            self._reports.find(),
        )

    def as_json(self) -> Mapping[str, Any]:
        """Return the state of all instances as a JSON object.

        :raises DatastoreError: CouchDB failed
        """
        return self.status().as_json()

    @staticmethod
    def _is_alive(worker: Worker, now: int) -> bool:
        return now - worker.seen <= _ALIVE

    @staticmethod
    def _follower(checkpoint: Checkpoint, now: int) -> FollowerState:
        is_held = now < checkpoint.until and not liveness.is_dead(checkpoint.holder)
        covered = checkpoint.covered
        return FollowerState(
            checkpoint.name, is_held, None if covered is None else max(now - covered, 0)
        )

    def last_doctor(self) -> DoctorReport | None:
        """Return what the doctor has found the last time, or None if it has not run yet."""
        return self._reports.find()

    def record_doctor(
        self,
        started: int,
        findings: Iterable[Finding],
        by: str,
        examined: Callable[[], Examined | None] = lambda: None,
    ) -> DoctorReport:
        """Store what the doctor has found, and return it.

        :param started: when it began, in Gregorian seconds
        :param findings: the findings; those that are repaired do not count
        :param by: `background`, or the name of the command
        :param examined: returns how far it has come, after the last finding
        """
        counts: Counter[str] = Counter()
        examples: list[tuple[str, str, str | None]] = []
        for finding in findings:
            if finding.repaired:
                continue
            counts[finding.problem] += 1
            if len(examples) < _EXAMPLES:
                examples.append((finding.problem, finding.address, finding.account_id))
        report = DoctorReport(started, self._now(), by, counts, tuple(examples), examined())
        self._reports.put(report)
        return report

    def advance_doctor(self, examined: Examined | None) -> None:
        """Let the next examination of changes begin later. What was found before stays stored."""
        report = self._reports.find()
        if report is not None and examined is not None:
            self._reports.put(replace(report, examined=examined))

    def beat(self) -> None:
        """Record that this process runs, and forget those that have ended long ago.

        :raises DatastoreError: CouchDB failed
        """
        now = self._now()
        if self._own is None or self._own.pid != os.getpid():
            self._own = Worker(
                token_hex(8), socket.gethostname(), os.getpid(), self._release, now, now
            )
            ended = [w for w in self._workers.all() if now - w.seen > _FORGOTTEN]
            self._workers.remove(ended)
        written = self._workers.put(replace(self._own, seen=now))
        # Without a revision, another process has removed the document: the next one is new.
        self._own = written if written.revision else None
