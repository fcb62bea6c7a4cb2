"""The faults of a run, which a seed decides: of nodes, of connections to them, and of workers."""

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

from tests.faults.proxy import IDLE_TIMEOUT, FaultProxy
from tests.servers import Gunicorn


class ByteProxy(FaultProxy):
    """A proxy to one node whose connections can be closed, or stalled.

    It passes on every byte without parsing, so the service gets two responses to one request if a
    node sends them.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._flowing = threading.Event()
        self._flowing.set()

    def stall(self) -> None:
        """Hold back all bytes from now on. They arrive after `resume`, even if the sender has
        closed its connection."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on the bytes that were held back, and all later ones."""
        self._flowing.set()

    def _serve(self, client: socket.socket) -> None:
        node = None
        try:
            node = socket.create_connection(self._upstream, IDLE_TIMEOUT)
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
                self._flowing.wait(IDLE_TIMEOUT)
                if not data:
                    return
                other[end].sendall(data)


class Faults:
    """Causes the faults of one run. Nodes, connections and workers fail independently.

    The seed determines the kind, the place and the duration of each fault, but not the requests
    that it hits.

    :param control: the command that kills, starts, pauses and resumes a node. Its arguments are
        that word and the node's number, from 1. Without it no node fails.
    """

    def __init__(
        self,
        seed: int,
        links: Sequence[ByteProxy],
        servers: Sequence[Gunicorn],
        control: str | None,
        nodes: int,
    ) -> None:
        self._links = links
        self._servers = servers
        self._control = control
        self._nodes = range(1, nodes + 1)
        self._stop = threading.Event()
        self.counts: Counter[str] = Counter()
        kinds = {"links": (self._fail_links, 8.0), "workers": (self._kill_a_worker, 5.0)}
        if control:
            kinds["nodes"] = (self.fail_nodes, 10.0)
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {kind}"), *how))
            for kind, how in kinds.items()
        ]

    def start(self) -> None:
        """Begin to cause faults."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all faults and cause no more."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    def _run(
        self, rng: random.Random, fail: Callable[[random.Random], None], pause: float
    ) -> None:
        begin = time.monotonic()
        while not self._stop.wait(rng.uniform(0, 2 * pause)):
            calm = (time.monotonic() - begin) % 60 - 50  # ten seconds a minute
            if calm < 0 or not self._stop.wait(10 - calm):
                fail(rng)

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def fail_nodes(self, rng: random.Random) -> None:
        """Kill or pause one node, or two at once, for up to eight seconds."""
        several = rng.random() < 0.2
        nodes = rng.sample(self._nodes, min(2 if several else 1, len(self._nodes)))
        fault, end = rng.choice([("kill", "start"), ("pause", "resume")])
        seconds = rng.uniform(0.3, 8)
        try:
            for node in nodes:
                self._control_node(fault, node)
            self.counts[f"node {fault.removesuffix('e')}ed"] += len(nodes)
            self._wait(seconds)
        finally:
            for node in nodes:
                self._control_node(end, node)

    def _control_node(self, word: str, node: int) -> None:
        subprocess.run([*(self._control or "").split(), word, str(node)], check=True, timeout=60)

    def _fail_links(self, rng: random.Random) -> None:
        several = rng.random() < 0.2
        links = rng.sample(self._links, min(2 if several else 1, len(self._links)))
        name, fault, end = rng.choice(
            [
                ("closed", FaultProxy.stop_listening, FaultProxy.start_listening),
                ("stalled", ByteProxy.stall, ByteProxy.resume),
            ]
        )
        seconds = rng.choice([0, rng.uniform(0, 1), rng.uniform(1, 8)])
        for link in links:
            fault(link)
        self.counts[f"connection {name}"] += len(links)
        self._wait(seconds)
        for link in links:
            end(link)

    def _kill_a_worker(self, rng: random.Random) -> None:
        server, place = rng.choice(self._servers), rng.random()
        workers = server.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(workers[int(place * len(workers))], signal.SIGKILL)
                self.counts["worker killed"] += 1
