"""The faults of a run, decided by a seed: nodes, the links to them, and workers."""

import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.faults.proxy import GONE_AFTER, FaultProxy
from tests.servers import Gunicorn


class ByteProxy(FaultProxy):
    """A way to one node that can be cut off, or fall silent.

    It passes bytes without reading them, so that all a node says comes through, two answers to one
    request included.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._flowing = threading.Event()
        self._flowing.set()

    def fall_silent(self) -> None:
        """Hold back whatever is sent from now on. It arrives when the way is open again, also when
        its sender has left."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything through again."""
        self._flowing.set()

    def _serve(self, client: socket.socket) -> None:
        node = None
        try:
            node = socket.create_connection(self._upstream, GONE_AFTER)
            for end in (client, node):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pass_on({client: node, node: client})
        except OSError:
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()
            if node:
                node.close()

    def _pass_on(self, other: dict[socket.socket, socket.socket]) -> None:
        while True:
            for end in select.select(list(other), [], [])[0]:
                data = end.recv(65536)
                self._flowing.wait(GONE_AFTER)
                if not data:
                    return
                other[end].sendall(data)


class Faults:
    """What goes wrong in one run. Three things at a time: nodes, the ways to them, workers.

    Which faults, where and how long follows from the seed; what the clients do at that moment
    doesn't.

    :param control: the command that kills, starts, pauses and resumes a node, called with that
        word and the node's number from 1; without it nodes are left alone
    """

    def __init__(
        self,
        seed: int,
        ways: Sequence[ByteProxy],
        servers: Sequence[Gunicorn],
        control: str | None,
        nodes: int,
    ) -> None:
        self._ways = ways
        self._servers = servers
        self._control = control
        self._nodes = range(1, nodes + 1)
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        kinds = {"ways": (self._fail_a_way, 8.0), "workers": (self._kill_a_worker, 5.0)}
        if control:
            kinds["nodes"] = (self.fail_a_node, 10.0)
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {kind}"), *how))
            for kind, how in kinds.items()
        ]

    def start(self) -> None:
        """Let it begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Put everything in order, and begin nothing more."""
        self._over.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    def _run(self, by: random.Random, fail: Callable[[random.Random], None], pause: float) -> None:
        begin = time.monotonic()
        while not self._over.wait(by.uniform(0, 2 * pause)):
            calm = (time.monotonic() - begin) % 60 - 50  # ten seconds a minute
            if calm < 0 or not self._over.wait(10 - calm):
                fail(by)

    def _last(self, seconds: float) -> None:
        self._over.wait(seconds)

    def fail_a_node(self, by: random.Random) -> None:
        """Let one node fail, or two at once, for a while."""
        several = by.random() < 0.2
        nodes = by.sample(self._nodes, min(2 if several else 1, len(self._nodes)))
        fault, mend = by.choice([("kill", "start"), ("pause", "resume")])
        seconds = by.uniform(0.3, 8)
        try:
            for node in nodes:
                self._say(fault, node)
            self.counts[f"node {fault}"] += len(nodes)
            self._last(seconds)
        finally:
            for node in nodes:
                self._say(mend, node)

    def _say(self, word: str, node: int) -> None:
        subprocess.run([*(self._control or "").split(), word, str(node)], check=True, timeout=60)

    def _fail_a_way(self, by: random.Random) -> None:
        several = by.random() < 0.2
        ways = by.sample(self._ways, min(2 if several else 1, len(self._ways)))
        fault, mend = by.choice(
            [
                (FaultProxy.go_away, FaultProxy.come_back),
                (ByteProxy.fall_silent, ByteProxy.flow),
            ]
        )
        seconds = by.choice([0, by.uniform(0, 1), by.uniform(1, 8)])
        for way in ways:
            fault(way)
        self.counts[f"way {fault.__name__.replace('_', ' ')}"] += len(ways)
        self._last(seconds)
        for way in ways:
            mend(way)

    def _kill_a_worker(self, by: random.Random) -> None:
        server, place = by.choice(self._servers), by.random()
        workers = server.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(workers[int(place * len(workers))], signal.SIGKILL)
                self.counts["worker kill"] += 1
