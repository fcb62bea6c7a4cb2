"""`make soak`: a mixed load on a cluster whose nodes are killed and restarted in turn.

There is an instance of the service for each node. The clients send a day's mixture (80 % reads of
an address, 15 % lists, 5 % writes) at a fixed rate, each request at the time that was planned for
it, and a latency counts from that time. A request without a reply, or with a reply of 5xx, is sent
once more to the next instance, as a load balancer does it. Each window of the result contains one
restart, so the windows should be alike.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from bench import BenchError
from bench.couch import Couch
from bench.day import LISTS
from bench.servers import Gunicorn, memory
from bench.world import World, addresses
from bench.wrk import Request
from kazoo_ips import app
from kazoo_ips.config import Settings

_SIZE = 10_000
_TIMEOUT = 30
"""Seconds that a client waits for a reply."""
_FIELDS = "| {} |"


@dataclass(frozen=True)
class Options:
    """The options of a run.

    :param nodes: the URLs of the nodes, with user and password
    :param cluster: the command that kills and starts a node; see docs/chaos.md
    :param seconds: how long the load lasts
    :param every: seconds from one restart to the next: the length of a window
    :param down: seconds from the kill to the start
    :param clients: the number of clients
    :param rate: requests per second, of all clients together
    """

    nodes: list[str]
    cluster: str
    seconds: int
    every: int
    down: int
    clients: int
    rate: float

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the options from environment variables; a missing one has its default.

        :raises BenchError: the nodes, or the command that controls them, are missing
        """
        if not (environ.get("NODES") and environ.get("CLUSTER")):
            raise BenchError("NODES: the URLs of the nodes; CLUSTER: the program that kills them")
        return cls(
            environ["NODES"].split(),
            environ["CLUSTER"],
            int(environ.get("SECONDS_EACH") or 3600),
            int(environ.get("EVERY") or 300),
            int(environ.get("DOWN") or 15),
            int(environ.get("CLIENTS") or 24),
            float(environ.get("RATE") or 100),
        )


@dataclass
class Window:
    """What was measured from one restart to the next.

    :param seconds: the latency of each request, from its planned time
    :param first: the requests whose first attempt failed, by status; 0 is no reply
    :param failed: the requests whose second attempt failed as well, by status
    :param resources: what the processes used at the end, by name
    """

    seconds: list[float] = field(default_factory=list)
    first: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    resources: dict[str, float] = field(default_factory=dict)

    def percentile(self, part: float) -> float:
        """Return the latency in milliseconds below which this part of all requests is."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    def to_json(self) -> dict[str, float]:
        """Return the window as numbers."""
        return {
            "requests": len(self.seconds),
            "p50_ms": round(self.percentile(0.5), 1),
            "p95_ms": round(self.percentile(0.95), 1),
            "p99_ms": round(self.percentile(0.99), 1),
            "max_ms": round(self.percentile(1)),
            "first_attempts_failed": self.first.total(),
            "failed": self.failed.total(),
            **self.resources,
        }


class Client(threading.Thread):
    """One client: sends the requests that are planned for it, and keeps to their times.

    :param free: the numbers of the available addresses that this client alone assigns and releases
    """

    def __init__(self, run: "Run", number: int, free: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._number = number
        self._chance = random.Random(number)
        self._details = run.world.details()
        self._free, self._taken = list(free), list[str]()
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def run(self) -> None:
        """Send requests until the run ends. Each client has the same share of the rate."""
        pause = self._run.options.clients / self._run.options.rate
        planned = self._run.start + pause * self._number / self._run.options.clients
        while planned < self._run.end:
            time.sleep(max(0, planned - time.monotonic()))
            self._send(self._request(), planned)
            planned += pause
        for connection in self._connections.values():
            connection.close()

    def _request(self) -> Request:
        ours, kind = self._run.world.measured, self._chance.random()
        if kind < 0.8:
            return self._chance.choice(self._details)
        if kind < 0.95:
            return Request("GET", ours.ips + self._chance.choice(LISTS))
        if self._taken and (self._chance.random() < 0.5 or not self._free):
            return ours.single("DELETE", self._taken[0])
        return ours.single("POST", self._free[0])

    def _send(self, request: Request, planned: float) -> None:
        window, key = self._run.window(planned), uuid4().hex
        urls = self._run.urls
        first = (self._number + int(planned * 1000)) % len(urls)
        status = self._attempt(urls[first], request, key)
        if not status or status >= 500:
            window.first[status] += 1
            status = self._attempt(urls[(first + 1) % len(urls)], request, key)
        if status not in {200, 201}:
            window.failed[status] += 1
        window.seconds.append(time.monotonic() - planned)
        self._note(request, done=status in {200, 201})

    def _note(self, request: Request, *, done: bool) -> None:
        """Remember who has an address. One whose state is unknown is not used again."""
        if request.method == "POST":
            self._taken += [self._free.pop(0)] if done else []
            if not done:
                self._free.pop(0)
        elif request.method == "DELETE":
            self._free += [self._taken.pop(0)] if done else []
            if not done:
                self._taken.pop(0)

    def _attempt(self, url: str, request: Request, key: str) -> int:
        """Send a request; return the status of its reply, or 0 if there was none."""
        headers = {"X-Auth-Token": self._run.world.measured.token}
        headers |= {"Idempotency-Key": key} if request.method != "GET" else {}
        connection = self._connections.get(url)
        if connection is None:
            parts = urlsplit(url)
            connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
            self._connections[url] = connection
        try:
            connection.request(request.method, request.path, headers=headers)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0
        return reply.status


class Run:
    """One run, in databases of its own, which it deletes at the end."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self.options = options
        settings = Settings(
            couchdb_url=options.nodes[0], prefix=f"soak-{uuid4().hex[:8]}-", read_timeout=60
        )
        stack.callback(app.databases(settings).delete)
        self.world = World(settings, _SIZE)
        self._instances = [
            stack.enter_context(Gunicorn({**self.world.environment, "COUCHDB_URL": node}))
            for node in options.nodes
        ]
        # What happens once, when a pool is new to the service, belongs to no window.
        self.world.wait_for_archiver(by_another=True)
        self.urls = [each.url for each in self._instances]
        self.windows = [Window() for _ in range(options.seconds // options.every)]
        self.start = self.end = 0.0

    def window(self, planned: float) -> Window:
        """Return the window of a planned time."""
        place = int((planned - self.start) / self.options.every)
        return self.windows[min(place, len(self.windows) - 1)]

    def run(self) -> Iterator[Window]:
        """Send the load and restart the nodes in turn. Yield each window at its end."""
        options = self.options
        self.start = time.monotonic() + 1
        self.end = self.start + options.every * len(self.windows)
        names = addresses(self.world.available(_SIZE // 2))
        clients = [Client(self, n, names[n :: options.clients]) for n in range(options.clients)]
        for client in clients:
            client.start()
        for number, window in enumerate(self.windows):
            middle = self.start + options.every * (number + 1 / 3)
            self._restart(1 + number % len(options.nodes), middle)
            end = self.start + options.every * (number + 1)
            time.sleep(max(0, end - time.monotonic()))
            window.resources = self._resources()
            yield window
        for client in clients:
            client.join(_TIMEOUT * 3)

    def _restart(self, node: int, at: float) -> None:
        time.sleep(max(0, at - time.monotonic()))
        control = [*self.options.cluster.split()]
        subprocess.run([*control, "kill", str(node)], check=True, timeout=60)
        time.sleep(self.options.down)
        subprocess.run([*control, "start", str(node)], check=True, timeout=60)

    def _resources(self) -> dict[str, float]:
        """Return what the workers and the nodes use now; of each the greatest."""
        workers = [pid for each in self._instances for pid in each.workers()]
        systems = list(self._systems())
        return {
            "worker_mb": round(max(map(memory, workers)), 1),
            "worker_files": max(_count(pid, "fd") for pid in workers),
            "worker_sockets": max(_sockets(pid) for pid in workers),
            "worker_threads": max(_count(pid, "task") for pid in workers),
            "node_mb": round(max((sum(_used(each)) for each in systems), default=0) / 1e6),
            "node_processes": max((each["process_count"] for each in systems), default=0),
        }

    def _systems(self) -> Iterator[Any]:
        """Yield what each node says of itself. One that does not answer is left out."""
        for node in self.options.nodes:
            with suppress(BenchError):
                yield Couch(node, "").send("GET", "/_node/_local/_system")


def _used(system: Mapping[str, Mapping[str, int]]) -> Iterator[int]:
    """Yield the parts of a node's memory, in bytes, that do not contain each other."""
    for name in ("other", "atom", "processes", "binary", "code", "ets"):
        yield system["memory"][name]


def _count(pid: int, kind: str) -> int:
    return len(os.listdir(f"/proc/{pid}/{kind}"))


def _sockets(pid: int) -> int:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return sum(os.readlink(each).startswith("socket:") for each in links)


def main() -> int:
    """Run, print a line for each window; return 1 if a request failed twice."""
    with ExitStack() as stack:
        try:
            run = Run(Options.load(os.environ), stack)
        except BenchError as error:
            print(f"make soak: {error}", file=sys.stderr)
            return 2
        heading: list[str] = []
        for window in run.run():
            line = window.to_json()
            if not heading:
                heading = list(line)
                print(_FIELDS.format(" | ".join(heading)))
                print("|" + "---|" * len(heading))
            print(_FIELDS.format(" | ".join(map(str, line.values()))), flush=True)
            if window.failed:
                print(f"failed: {json.dumps(window.failed)}", file=sys.stderr)
        return int(any(window.failed for window in run.windows))


if __name__ == "__main__":
    sys.exit(main())
