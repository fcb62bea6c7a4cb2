"""The thread that does the work of jobs, in one process of all workers of all instances."""

import threading
import time

from kazoo_ips.background.lease import Lease
from kazoo_ips.background.rounds import run_round
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.services.jobs.running import JobRunner

_IDLE = 2.0
"""Seconds between two rounds without work."""
_MEASURE = 30.0
"""Seconds between two rounds of a process without the lease, which only measures progress."""
_SWEEP = 3600.0
"""Seconds between two searches for old jobs."""


class JobThread:
    """Does the steps of all jobs in turn, while this process has the lease.

    :param metrics: counts the rounds that fail
    """

    def __init__(self, lease: Lease, runner: JobRunner, metrics: Metrics) -> None:
        self._lease = lease
        self._runner = runner
        self._metrics = metrics
        self._next_sweep = self._next_measurement = 0.0

    def round(self) -> bool:
        """Do one step of each job; return whether there was one.

        :raises DatastoreError: CouchDB failed
        """
        if not self._lease.hold():
            if time.monotonic() >= self._next_measurement:
                self._next_measurement = time.monotonic() + _MEASURE
                self._runner.unfinished()
            return False
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP
            self._runner.sweep()
        jobs = self._runner.unfinished()
        for job in jobs:
            if not self._lease.hold():
                return False
            self._runner.step(job)
        return bool(jobs)

    def start(self) -> None:
        """Start the thread, which runs as long as the process."""
        threading.Thread(target=self._run, name="jobs", daemon=True).start()

    def _run(self) -> None:
        busy = False

        def step() -> None:
            nonlocal busy
            busy = self.round()

        while True:
            succeeded = run_round("job round", step, self._metrics.background_failures.inc)
            if not (busy and succeeded):
                time.sleep(_IDLE)
