"""A proxy in front of the real database, which causes faults by rule.

The proxy uses real sockets, and one thread for each client connection. Connections are kept alive
on both sides. It forwards all other bytes unchanged. It knows HTTP and the form of CouchDB's
responses to writes, and nothing of dedicated IPs.
"""

import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

IDLE_TIMEOUT = 30.0
"""Seconds after which the proxy closes an idle connection, or sends a request that it holds."""


@dataclass(frozen=True)
class Request:
    """One request: its bytes, and the parts that rules are matched with."""

    method: str
    target: str
    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        """The decoded path without the query."""
        return unquote(self.target.split("?")[0])


@dataclass(frozen=True)
class Reply:
    """One reply, with its bytes."""

    status: int
    head: bytes
    body: bytes
    keep: bool = True

    @property
    def raw(self) -> bytes:
        """All bytes of the response."""
        return self.head + self.body


class Hangup(Exception):
    """Raised by a fault to close the client's connection. Nothing more is sent to the client."""


class Forward(Protocol):
    """What a fault can do with one request: send it, reply, or close the connection."""

    @property
    def request(self) -> Request:
        """The request as the client has sent it."""

    def __call__(self, head: bytes | None = None) -> Reply:
        """Send the request to the database, and read the response.

        :param head: replaces the head of the request
        """

    def hang_up(self) -> None:
        """Close the client's connection. The request can still be sent."""


Fault = Callable[[Forward], Reply]
"""A function that handles a request. It gets a `Forward`; it returns a reply or raises
`Hangup`."""


@dataclass
class Rule:
    """A fault, the requests that it applies to, and those that it has been applied to."""

    when: Callable[[Request], bool]
    fault: Fault
    first: int = 1
    times: int | None = 1
    matched: int = 0
    met: list[Request] = field(default_factory=list)


@dataclass(frozen=True)
class Record:
    """One recorded request, and whether a rule applied to it."""

    request: Request
    rule: Rule | None


# The faults.


def answer_202(forward: Forward) -> Reply:
    """A fault: the write is done, and the reply is 202, which means no quorum."""
    reply = forward()
    if reply.status not in (200, 201, 202):
        return reply
    content = json.loads(_dechunked(reply))
    if isinstance(content, list):
        content = [row if "error" in row else {**row, "accepted": True} for row in content]
    return _reply(202, json.dumps(content).encode(), "application/json")


def accepted_elsewhere(document_id: str, revision: str) -> Fault:
    """A fault: the reply is 202. Only one node has the write, and later reads do not reach it."""
    body = json.dumps({"ok": True, "id": document_id, "rev": revision}).encode()
    return lambda forward: _reply(202, body, "application/json")


def lose_reply(forward: Forward) -> Reply:
    """A fault: the write is done, and the connection is closed without a reply."""
    forward()
    raise Hangup


def cut(forward: Forward) -> Reply:
    """A fault: the connection is closed before the request is sent to the database."""
    raise Hangup


def delay(before: float = 0, after: float = 0) -> Fault:
    """Return a fault: the request or its reply is delayed.

    The request is sent even if the client has closed the connection.
    """

    def fault(forward: Forward) -> Reply:
        time.sleep(before)
        reply = forward()
        time.sleep(after)
        return reply

    return fault


def hold(gate: threading.Event) -> Fault:
    """Return a fault: the request waits until a gate opens.

    Then it is sent, even if the client has closed the connection.
    """

    def fault(forward: Forward) -> Reply:
        gate.wait(IDLE_TIMEOUT)
        return forward()

    return fault


def late(gate: threading.Event) -> Fault:
    """Return a fault: the connection is closed at once, and the request is sent at the gate.

    For the client this is the same as a timeout, but the test need not wait for one.

    :param gate: the request is sent when it opens
    """
    held = hold(gate)

    def fault(forward: Forward) -> Reply:
        forward.hang_up()
        return held(forward)

    return fault


def conflict_chunked(forward: Forward) -> Reply:
    """A fault: a 409 with a chunked body. The request is not sent to the database."""
    body = b'{"error":"conflict","reason":"Document update conflict."}\n'
    head = (
        b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    return Reply(409, head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


def three_copies(forward: Forward) -> Reply:
    """A fault: the description of a database reports three replicas of each document."""
    content = json.loads(_dechunked(forward()))
    content["cluster"] = {"q": 1, "n": 3, "w": 2, "r": 2}
    return _reply(200, json.dumps(content).encode(), "application/json")


def lagging(*leaves: Mapping[str, object]) -> Fault:
    """Return a fault: a lagging replica returns these leaf revisions of a document."""
    body = json.dumps([{"ok": leaf} for leaf in leaves]).encode()
    return lambda forward: _reply(200, body, "application/json")


def shown(document: Mapping[str, object]) -> Fault:
    """The response of a lagging replica for one document, alone or among others."""

    def fault(forward: Forward) -> Reply:
        content = json.loads(_dechunked(forward()))
        results = [{"id": document["_id"], "docs": [{"ok": document}]}]
        body = {"results": results} if "results" in content else document
        return _reply(200, json.dumps(body).encode(), "application/json")

    return fault


def error_without_type(forward: Forward) -> Reply:
    """A fault: a 500 without a content type. The request is not sent to the database."""
    return _reply(500, b'{"error":"unknown_error","reason":"function_clause"}', None)


def error_afterwards(forward: Forward) -> Reply:
    """A fault: the same 500, after the write is done."""
    forward()
    return error_without_type(forward)


def exchanged(forward: Forward) -> Reply:
    """A fault: the response of a view whose design document is being replaced."""
    reason = b'{"error":"not_found","reason":"Design document was updated or deleted."}'
    return _reply(404, reason, "application/json")


def broken_off(forward: Forward) -> Reply:
    """A fault: a node fails after CouchDB has sent one row of a view."""
    head = b'{"total_rows":2,"offset":0,"rows":[\r\n{"id":"192.0.2.1","key":["a"],"value":null}'
    failed = b'\n\n{"error":"nodedown","reason":"progress not possible"}\n'
    return _reply(200, head + failed, "application/json")


def unreadable(document_id: str) -> Fault:
    """Return a fault: the response of `_bulk_get` if CouchDB cannot read this document."""

    def fault(forward: Forward) -> Reply:
        content = json.loads(_dechunked(forward()))
        for result in content["results"]:
            if result["id"] == document_id:
                error = {"error": "internal_fabric_error", "reason": "timeout"}
                result["docs"] = [{"error": {"id": document_id, "rev": "undefined", **error}}]
        return _reply(200, json.dumps(content).encode(), "application/json")

    return fault


def leaf_missing(forward: Forward) -> Reply:
    """A fault: the response if a write replaces a leaf revision while the revisions are read."""
    content = json.loads(_dechunked(forward()))
    if isinstance(content, list):
        content = [{"missing": leaf["ok"]["_rev"]} for leaf in content]
    for result in content["results"] if isinstance(content, dict) else ():
        rev = result["docs"][0]["ok"]["_rev"]
        error = {"error": "not_found", "reason": "missing"}
        result["docs"] = [{"error": {"id": result["id"], "rev": rev, **error}}]
    return _reply(200, json.dumps(content).encode(), "application/json")


def forbid(forward: Forward) -> Reply:
    """A fault: the response to a user who is not a member of the database.

    The request is not sent to the database.
    """
    body = b'{"error":"forbidden","reason":"You are not allowed to access this db."}'
    return _reply(403, body, "application/json")


def bad_gateway(forward: Forward) -> Reply:
    """A fault: an HTML page of another proxy. The request is not sent to the database."""
    return _reply(502, b"<html><h1>502 Bad Gateway</h1></html>", "text/html")


class FaultProxy:
    """The proxy. It listens inside a `with`.

    :param url: the database, which may contain a user and a password
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 5984)
        self._user = parts.netloc.rpartition("@")[0]
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._rules: list[Rule] = []
        self._records: list[Record] = []
        self._busy = 0
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The database's URL with the proxy's host and port."""
        user = f"{self._user}@" if self._user else ""
        return f"http://{user}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start_listening()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_listening()

    # Called by tests.

    def rule(
        self,
        fault: Fault,
        method: str = ".*",
        path: str = ".*",
        *,
        when: Callable[[Request], bool] = lambda request: True,
        first: int = 1,
        times: int | None = 1,
    ) -> Rule:
        """Apply a fault to requests that match.

        :param method: a regular expression that the whole method matches
        :param path: a regular expression that is found in the decoded path
        :param when: a further condition
        :param first: the number of the first matching request with the fault, counted from now
        :param times: the number of matching requests with the fault; None is all
        """

        def applies(request: Request) -> bool:
            fits = re.fullmatch(method, request.method) and re.search(path, request.path)
            return bool(fits) and when(request)

        made = Rule(applies, fault, first, times)
        with self._lock:
            self._rules.append(made)
        return made

    def clear(self) -> None:
        """Remove all rules and records."""
        with self._lock:
            self._rules.clear()
            self._records.clear()

    @property
    def records(self) -> list[Record]:
        """The requests since the last `clear`, in their order."""
        with self._lock:
            return list(self._records)

    @property
    def busy(self) -> int:
        """The number of requests in progress."""
        with self._lock:
            return self._busy

    def stop_at_request(self, forward: Forward) -> Reply:
        """A fault: the proxy stops listening before this request is sent."""
        self.stop_listening()
        raise Hangup

    def stop_listening(self) -> None:
        """Refuse connections, and close the existing ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            clients, self._clients = self._clients, set()
        if listener:
            # Closing alone would not wake the thread that waits for a connection.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def start_listening(self) -> None:
        """Listen, always at the same port."""
        if self._listener:
            return
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def wait_until_idle(self, seconds: float = 10) -> bool:
        """Wait until no request is in progress."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, seconds)

    # Called by the threads of connections.

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    return
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = _Upstream(self._upstream)
        try:
            client.settimeout(IDLE_TIMEOUT)
            reader = _Reader(client)
            while request := _read_request(reader):
                if not self._answer(client, upstream, request):
                    return
        except (OSError, Hangup):
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()
            upstream.close()

    def _answer(self, client: socket.socket, upstream: "_Upstream", request: Request) -> bool:
        rule = self._choose(request)

        try:
            forward = _Way(client, upstream, request)
            reply = rule.fault(forward) if rule else forward()
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()
        client.sendall(reply.raw)
        return reply.keep

    def _choose(self, request: Request) -> Rule | None:
        with self._lock:
            self._busy += 1
            chosen = None
            for rule in self._rules:
                if not rule.when(request):
                    continue
                rule.matched += 1
                past = rule.matched - rule.first
                due = past >= 0 and (rule.times is None or past < rule.times)
                if due and chosen is None:
                    rule.met.append(request)
                    chosen = rule
            self._records.append(Record(request, chosen))
            return chosen


# The parts of HTTP that the proxy needs.


@dataclass(frozen=True)
class _Way:
    client: socket.socket
    upstream: "_Upstream"
    request: Request

    def __call__(self, head: bytes | None = None) -> Reply:
        request = self.request if head is None else replace(self.request, head=head)
        return self.upstream.exchange(request)

    def hang_up(self) -> None:
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)


class _Upstream:
    """One keep-alive connection to the database."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def exchange(self, request: Request) -> Reply:
        """Send a request and read the reply. Nothing is ever sent twice."""
        connection = self._connected()
        connection.sendall(request.head + request.body)
        reply = _read_reply(_Reader(connection), request.method)
        if not reply.keep:
            self.close()
        return reply

    def _connected(self) -> socket.socket:
        # A connection that is readable before a request is sent has been closed.
        if self._socket and select.select([self._socket], [], [], 0)[0]:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, IDLE_TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None


class _Reader:
    """Reads HTTP messages from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            if not self._more():
                raise Hangup
        at = self._buffer.index(end) + len(end)
        return self._take(at)

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._more():
                raise Hangup
        return self._take(count)

    def rest(self) -> bytes:
        while self._more():
            pass
        return self._take(len(self._buffer))

    def _more(self) -> bool:
        data = self._connection.recv(65536)
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


def _read_request(reader: _Reader) -> Request | None:
    try:
        head = reader.until(b"\r\n\r\n")
    except Hangup:
        return None
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    length = _header(head, "content-length")
    body = reader.exactly(int(length)) if length else b""
    return Request(method, target, head, body)


def _read_reply(reader: _Reader, method: str) -> Reply:
    head = reader.until(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    keep = _header(head, "connection").lower() != "close"
    length = _header(head, "content-length")
    if method == "HEAD" or status in (204, 304):
        body = b""
    elif _header(head, "transfer-encoding").lower() == "chunked":
        body = _read_chunks(reader)
    elif length:
        body = reader.exactly(int(length))
    else:
        body, keep = reader.rest(), False
    return Reply(status, head, body, keep)


def _read_chunks(reader: _Reader) -> bytes:
    body = b""
    while True:
        line = reader.until(b"\r\n")
        size = int(line.split(b";")[0], 16)
        body += line + reader.exactly(size + 2)
        if size == 0:
            return body


def _dechunked(reply: Reply) -> bytes:
    if _header(reply.head, "transfer-encoding").lower() != "chunked":
        return reply.body
    content, rest = b"", reply.body
    while True:
        line, rest = rest.split(b"\r\n", 1)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return content
        content, rest = content + rest[:size], rest[size + 2 :]


def _header(head: bytes, name: str) -> str:
    found = re.search(rf"(?im)^{name}:[ \t]*([^\r\n]*)".encode(), head)
    return found[1].decode("latin-1").strip() if found else ""


def _reply(status: int, body: bytes, kind: str | None) -> Reply:
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    head = f"HTTP/1.1 {status} By Rule\r\n{typed}Content-Length: {len(body)}\r\n\r\n"
    return Reply(status, head.encode(), body)
