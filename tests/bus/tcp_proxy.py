"""A TCP proxy in front of a broker, which closes a connection at a given AMQP frame."""

import socket
import threading
from contextlib import suppress
from typing import BinaryIO

_HEADER = 8
"""Bytes of the protocol header, with which a client begins. It counts as a frame."""
_FRAME = 7
"""Bytes before the payload of a frame: type, channel, size. One byte follows the payload."""


class TCPProxy:
    """The proxy. It listens inside a `with`.

    :param port: the port of the broker on loopback
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._lock = threading.Lock()
        self._cut: tuple[str, int, bool] | None = None
        self.has_cut = False
        self.open = 0
        """The number of connections."""

    def __enter__(self) -> "TCPProxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self, direction: str, frame: int, *, forwarded: bool) -> None:
        """Close the next connection at a frame, once.

        :param direction: `to the broker` or `to the client`
        :param frame: the number of the frame in that direction, from 0
        :param forwarded: whether the frame itself is still forwarded
        """
        with self._lock:
            self._cut, self.has_cut = (direction, frame, forwarded), False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                cut, self._cut = self._cut, None
                self.open += 1
            broker = socket.create_connection(("127.0.0.1", self._upstream))
            threading.Thread(target=self._connect, args=(client, broker, cut), daemon=True).start()

    def _connect(
        self, client: socket.socket, broker: socket.socket, cut: tuple[str, int, bool] | None
    ) -> None:
        """Forward both directions of a connection, and close it when both have ended."""
        at = {cut[0]: cut[1:]} if cut else {}
        to_broker = (client, broker, at.get("to the broker"), _HEADER)
        to_client = (broker, client, at.get("to the client"), 0)
        other = threading.Thread(target=self._forward, args=to_client, daemon=True)
        other.start()
        self._forward(*to_broker)
        other.join()
        client.close()
        broker.close()
        with self._lock:
            self.open -= 1

    def _forward(
        self,
        source: socket.socket,
        target: socket.socket,
        cut: tuple[int, bool] | None,
        first: int,
    ) -> None:
        with suppress(OSError), source.makefile("rb") as reader:
            frame = 0
            while data := reader.read(first) if first else _read_frame(reader):
                first = 0
                if cut and frame == cut[0]:
                    self.has_cut = True
                    if cut[1]:
                        target.sendall(data)
                    break
                target.sendall(data)
                frame += 1
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _read_frame(reader: BinaryIO) -> bytes:
    head = reader.read(_FRAME)
    if len(head) < _FRAME:
        return b""
    rest = reader.read(int.from_bytes(head[3:7]) + 1)
    return head + rest
