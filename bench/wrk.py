"""One run of wrk: sends a plan of requests, and returns rates and latencies.

Headers are passed to wrk in a file that only this user can read, because every user of the machine
can read command lines, and a header contains a token.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import BenchError

_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT = 120
"""Seconds that wrk waits for a reply. Kazoo's lists can take a minute."""


@dataclass(frozen=True)
class Request:
    """One request.

    :param body: JSON in one line, or empty
    """

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Plan:
    """Requests to one server, sent in this order and then again from the start.

    :param url: scheme, host and port, without user and password
    :param once: whether each request may be sent only once, as for writes
    :param others: URLs of further servers, among which the requests are divided
    """

    url: str
    requests: tuple[Request, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    once: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Load:
    """The results of one run of wrk. Times are in milliseconds."""

    connections: int
    requests: int
    bytes: int
    seconds: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    connect_errors: int
    read_errors: int
    write_errors: int
    timeouts: int
    refused: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def errors(self) -> int:
        """The number of requests that were not successful."""
        return (
            self.connect_errors
            + self.read_errors
            + self.write_errors
            + self.timeouts
            + self.refused
        )


def run(plan: Plan, connections: int, seconds: int) -> Load:
    """Send a plan's requests with wrk for a number of seconds.

    :raises BenchError: wrk is missing or fails, or a plan of writes is too short
    """
    with tempfile.TemporaryDirectory() as folder:
        written, result = Path(folder, "plan"), Path(folder, "result")
        written.touch(0o600)
        written.write_text("\n".join(_lines(plan)))
        done = subprocess.run(
            [
                program(), f"-t{1 + len(plan.others)}", f"-c{connections}", f"-d{seconds}s",
                f"--timeout={_TIMEOUT}s", "-s", str(_SCRIPT), plan.url,
            ],
            env={
                **os.environ,
                "WRK_PLAN": str(written),
                "WRK_RESULT": str(result),
                "WRK_SERVERS": " ".join(each.split("://")[1] for each in [plan.url, *plan.others]),
            },
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode or not result.exists():
            raise BenchError(f"wrk: {(done.stderr or done.stdout).strip()}")
        load = Load(connections, **json.loads(result.read_text()))
    if plan.once and load.requests + connections > len(plan.requests):
        raise BenchError(f"{len(plan.requests)} requests prepared were too few: {load.requests}")
    return load


def program() -> str:
    """Return the path of wrk.

    :raises BenchError: it is not installed; the message says how to install it
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk is missing: `apt-get install wrk`, or https://github.com/wg/wrk")
    return found


def version() -> str:
    """Return wrk's version."""
    output = subprocess.run([program(), "-v"], capture_output=True, text=True, check=False).stdout
    return output.split("\n")[0].split(" Copyright")[0]


def _lines(plan: Plan) -> Iterable[str]:
    yield from (f"{name}: {value}" for name, value in plan.headers.items())
    yield ""
    yield from (f"{r.method}\t{r.path}\t{r.body}" for r in plan.requests)
    yield ""
