"""Clients of a server: unused client addresses, and raw requests."""

import itertools
import os
import socket
from urllib.parse import urlsplit

_numbers = itertools.count(1)


def unused_client() -> str:
    """Return a client address that no test has used before."""
    n = next(_numbers) + os.getpid() % 200 * 256
    return f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def exchange(url: str, sent: bytes) -> bytes:
    """Send bytes, and return everything that the server sends until it closes the connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=15) as client:
        client.sendall(sent)
        received = b""
        try:
            while data := client.recv(65_536):
                received += data
        except ConnectionResetError:
            pass
    return received
