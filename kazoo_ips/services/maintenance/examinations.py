"""Examinations of all documents by the doctor, which go on after their process was killed.

An examination stores its progress every few seconds. The next one by the same author begins there,
and yields the earlier findings again.
"""

import time
from collections.abc import Callable, Iterator

from kazoo_ips.repositories.doctor_reports import (
    DoctorProgress,
    DoctorReportRepository,
    Position,
)
from kazoo_ips.services.maintenance.doctor import DoctorService
from kazoo_ips.services.maintenance.findings import Finding
from kazoo_ips.services.maintenance.status import StatusService

_INTERVAL = 5.0
"""Seconds between two writes of the progress."""
_STALE = 12 * 3600
"""Seconds after which an examination begins again: too much may have changed."""
_MOST_FINDINGS = 2000
"""With more findings the progress is not stored any more. An examination that is killed later goes
on from the last progress."""


class ExaminationService:
    """Lets the doctor examine all documents, and stores the report.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        doctor: DoctorService,
        reports: DoctorReportRepository,
        status: StatusService,
        now: Callable[[], int],
    ) -> None:
        self._doctor = doctor
        self._reports = reports
        self._status = status
        self._now = now

    def run(
        self,
        by: str,
        *,
        repair: bool = False,
        seen: Callable[[int], object] = lambda count: None,
    ) -> Iterator[Finding]:
        """Yield all problems, and then store the report.

        :param by: `background`, or the name of the command. An examination goes on with one by the
            same author
        :param repair: whether to repair them
        :param seen: called with the number of addresses and accounts checked since the last call
        """
        begun = self._begun(by)
        started = begun.started if begun else self._now()
        findings = [Finding(*each) for each in begun.findings] if begun else []
        yield from findings
        last = time.monotonic()

        def save(position: Position) -> None:
            nonlocal last
            if time.monotonic() - last < _INTERVAL or len(findings) > _MOST_FINDINGS:
                return
            found = tuple((f.problem, f.address, f.account_id, f.repaired) for f in findings)
            progress = DoctorProgress(by, started, self._now(), position, found)
            self._reports.put_progress(progress)
            last = time.monotonic()

        resume = begun.position if begun else None
        for finding in self._doctor.examine(repair=repair, seen=seen, resume=resume, reached=save):
            findings.append(finding)
            yield finding
        self._status.record_doctor(started, findings, by, lambda: self._doctor.examined)
        self._reports.remove_progress(by)

    def _begun(self, by: str) -> DoctorProgress | None:
        """Return the progress of an examination that can go on."""
        begun = self._reports.progress(by)
        if begun is None or self._now() - begun.saved > _STALE:
            return None
        return begun if begun.position.pool == self._doctor.pool() else None
