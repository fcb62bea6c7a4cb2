"""The links to the nodes, and the faults that a seed decides."""

import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import ByteProxy, Faults


@pytest.fixture
def node() -> Iterator[socket.socket]:
    """A listening socket in place of a node; the test sends the responses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def link(node: socket.socket) -> Iterator[ByteProxy]:
    with ByteProxy(f"http://user:password@127.0.0.1:{node.getsockname()[1]}") as proxy:
        yield proxy


def connected(link: ByteProxy, node: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Connect through the link; return the sockets of the client and of the node."""
    client = socket.create_connection(("127.0.0.1", link.port), 10)
    end, _ = node.accept()
    end.settimeout(10)
    return client, end


def test_a_link_passes_all_bytes_of_a_node(link: ByteProxy, node: socket.socket) -> None:
    client, end = connected(link, node)
    with client, end:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert end.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
        twice = b"HTTP/1.1 500 Twice\r\nContent-Length: 0\r\n\r\n" * 2
        end.sendall(twice)
        assert client.recv(len(twice), socket.MSG_WAITALL) == twice
        end.close()
        assert client.recv(1) == b""


def test_a_link_that_is_cut_closes_its_connections_and_accepts_none(
    link: ByteProxy, node: socket.socket
) -> None:
    client, end = connected(link, node)
    with client, end:
        link.stop_listening()
        assert client.recv(1) == end.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", link.port), 10)
    link.start_listening()
    for again in connected(link, node):
        again.close()


def test_bytes_sent_to_a_stalled_link_arrive_later(link: ByteProxy, node: socket.socket) -> None:
    client, end = connected(link, node)
    with client, end:
        link.stall()
        client.sendall(b"late")
        client.close()
        end.settimeout(0.2)
        with pytest.raises(TimeoutError):
            end.recv(4)
        link.resume()
        end.settimeout(10)
        assert end.recv(4) == b"late"


def failures(seed: int, tmp_path: Path) -> list[str]:
    """Return the control commands of ten faults of nodes, without the waits between them."""
    log, control = tmp_path / f"log-{seed}", tmp_path / f"control-{seed}"
    control.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    control.chmod(0o700)
    faults = Faults(seed, [], [], str(control), 3)
    faults.stop()
    rng = random.Random(f"{seed} nodes")
    for _ in range(10):
        faults.fail_nodes(rng)
    lines = log.read_text().splitlines()
    log.unlink()
    return lines


def test_a_seed_decides_the_faults_and_all_are_ended(tmp_path: Path) -> None:
    lines = failures(1, tmp_path)
    assert lines == failures(1, tmp_path) != failures(2, tmp_path)
    words = Counter(line.split()[0] for line in lines)
    assert words["kill"] == words["start"] > 0
    assert words["pause"] == words["resume"] > 0
