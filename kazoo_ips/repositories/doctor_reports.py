"""What the doctor has found the last time: one document of the service's own database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kazoo_ips.repositories.records import Records

_ID = "doctor-report"


class Examined(NamedTuple):
    """How far the pool was examined.

    :param pool: the id of the database, which changes if it is created again
    :param since: the position in its changes feed
    """

    pool: str
    since: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """The result of one examination of all documents.

    :param started: in Gregorian seconds
    :param ended: in Gregorian seconds
    :param by: `background`, or the name of the command
    :param counts: the number of findings that are not repaired, by problem
    :param examples: some of these findings: problem, address and account
    :param examined: where the next examination can begin, if only changes are to be examined
    """

    started: int
    ended: int
    by: str
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[tuple[str, str, str | None], ...] = ()
    examined: Examined | None = None


class Position(NamedTuple):
    """How far an examination of all documents has come.

    :param pool: the id of the database, which changes if it is created again
    :param since: the position in its changes feed up to which its documents were examined
    :param end: the position before the first document that was too recent to be examined
    :param account: the last account whose copies were examined, by id; empty before the first one,
        and None while documents of the pool are left
    """

    pool: str
    since: str
    end: str
    account: str | None


@dataclass(frozen=True, slots=True)
class DoctorProgress:
    """An examination that is under way, or whose process was killed.

    :param by: as in the report that it will have
    :param started: in Gregorian seconds
    :param saved: when this was stored, in Gregorian seconds
    :param findings: what was found so far: problem, address, account, whether it was repaired
    """

    by: str
    started: int
    saved: int
    position: Position
    findings: tuple[tuple[str, str, str | None, bool], ...] = ()


class DoctorReportRepository:
    """Reads and writes the report, and the progress of examinations."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self) -> DoctorReport | None:
        """Return the latest report, or None if there is none."""
        document = self._records.find(_ID, lambda leaf: (leaf["ended"],))
        if document is None:
            return None
        examples = tuple((e[0], e[1], e[2]) for e in document["examples"])
        examined = document.get("examined")
        return DoctorReport(
            document["started"],
            document["ended"],
            document["by"],
            document["counts"],
            examples,
            Examined(*examined) if examined else None,
        )

    def put(self, report: DoctorReport) -> bool:
        """Store a report in place of the one before; return False if another one was faster."""
        document: Mapping[str, Any] | None = self._records.find(_ID, lambda leaf: (leaf["ended"],))
        return bool(
            self._records.put(
                {
                    "_id": _ID,
                    "_rev": document["_rev"] if document else None,
                    "type": "doctor_report",
                    "started": report.started,
                    "ended": report.ended,
                    "by": report.by,
                    "counts": dict(report.counts),
                    "examples": [list(each) for each in report.examples],
                    "examined": report.examined,
                }
            )
        )

    def progress(self, by: str) -> DoctorProgress | None:
        """Return the progress of the examination by this author; None if none is under way."""
        document = self._progress(by)
        if document is None:
            return None
        findings = tuple((f[0], f[1], f[2], f[3]) for f in document["findings"])
        position = Position(*document["position"])
        return DoctorProgress(by, document["started"], document["saved"], position, findings)

    def put_progress(self, progress: DoctorProgress) -> bool:
        """Store a progress in place of the one before; return False if another one was faster."""
        document = self._progress(progress.by)
        return bool(
            self._records.put(
                {
                    "_id": _progress_id(progress.by),
                    "_rev": document["_rev"] if document else None,
                    "type": "doctor_progress",
                    "started": progress.started,
                    "saved": progress.saved,
                    "position": progress.position,
                    "findings": [list(each) for each in progress.findings],
                }
            )
        )

    def remove_progress(self, by: str) -> None:
        """Delete the progress of an examination that has ended."""
        document = self._progress(by)
        if document:
            self._records.remove([document])

    def _progress(self, by: str) -> Mapping[str, Any] | None:
        return self._records.find(_progress_id(by), lambda leaf: (leaf["saved"],))


def _progress_id(by: str) -> str:
    return f"doctor-progress-{by}"
