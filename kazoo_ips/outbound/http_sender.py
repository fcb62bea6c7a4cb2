"""One HTTP request to a server that may be slow, broken or hostile, for example a customer's.

The name is resolved once, and the connection goes to the address that was checked. TLS still
verifies the name. Redirects are not followed, and proxies of the environment are not used:
`http.client` does neither. The whole exchange has one deadline, however slowly the server sends.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import SplitResult, urlsplit

from kazoo_ips.outbound.destinations import Destinations

TIMEOUT = 10.0
"""Seconds that a request may take in all: resolution, connection, TLS, request, response."""
BODY_LIMIT = 4096
"""Bytes of a response's body that are read at most, unless the caller names another number."""
BODY_SECONDS = 1.0
"""Seconds to wait for the body of a response after its head, unless the caller names another
number."""
_MAX_LOOKUPS = 64
"""Name resolutions at once. The system's resolver has no timeout that a caller can set, so one
that hangs keeps a thread until it ends."""

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request.

    :param uri: `http` or `https`, without user, password and fragment; printable ASCII
    """

    method: str
    uri: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class HTTPResult:
    """The result of a request.

    :param status: the status of the response; None if there was none
    :param body: the beginning of the response's body
    :param is_whole: whether the body was read to its end, or to the limit
    :param error: why there was no response, in a few words; None if there was one
    :param seconds: how long it took
    """

    status: int | None = None
    body: bytes = b""
    is_whole: bool = False
    error: str | None = None
    seconds: float = 0.0


class _NotSent(Exception):
    """The request was not sent, for the reason that the message gives."""


class _DeadlineSocket(socket.socket):
    """A socket that waits for data until a deadline, and not for a time from each read.

    With a timeout for each read, a server that sends a byte now and then would never time out.
    """

    deadline = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read what has arrived.

        :raises TimeoutError: the deadline has passed
        """
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args, **kwargs)


class _DeadlineTLSSocket(ssl.SSLSocket):
    """The same for TLS, and for the parts that are sent."""

    deadline = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read what has arrived.

        :raises TimeoutError: the deadline has passed
        """
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        """Send a part.

        :raises TimeoutError: the deadline has passed
        """
        self.settimeout(_left(self.deadline))
        return super().send(*args, **kwargs)


class HTTPSender:
    """Sends requests. It keeps no connection.

    :param destinations: the addresses that requests may be sent to; None for all
    :param resolve: returns the addresses of a name
    :param timeout: seconds for a whole exchange
    :param tls: the certificates that are trusted; those of the system by default
    :param body_limit: bytes of a response's body that are read at most
    :param body_seconds: seconds to wait for the body
    """

    def __init__(  # noqa: PLR0913 - limits and collaborators
        self,
        destinations: Destinations | None,
        *,
        resolve: Resolve | None = None,
        timeout: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
        body_limit: int = BODY_LIMIT,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._destinations = destinations
        self._resolve = resolve or _system_resolver
        self._timeout = timeout
        self._tls = tls
        self._body_limit = body_limit
        self._body_seconds = body_seconds
        self._lookups = BoundedSemaphore(_MAX_LOOKUPS)

    def send(self, request: HTTPRequest) -> HTTPResult:
        """Send a request and read the response. It raises no error of the network.

        The timeout holds for everything.
        """
        started = time.monotonic()
        deadline = started + self._timeout
        error = None
        try:
            result = self._exchange(request, deadline)
            return replace(result, seconds=time.monotonic() - started)
        except _NotSent as failed:
            error = str(failed)
        except TimeoutError:
            error = "timeout"
        except ssl.SSLCertVerificationError as failed:
            error = f"certificate: {failed.verify_message}"
        except ssl.SSLError as failed:
            error = f"tls: {failed.reason or 'failed'}"
        except (http.client.HTTPException, ValueError):
            error = "no valid http response"
        except OSError as failed:
            error = f"connection: {failed.strerror or 'closed'}"
        return HTTPResult(error=error, seconds=time.monotonic() - started)

    def _exchange(self, request: HTTPRequest, deadline: float) -> HTTPResult:
        parts = urlsplit(request.uri)
        secure = parts.scheme.lower() == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        sock = _connect(self._addresses(host, port, deadline), port, deadline)
        try:
            if secure:
                sock = self._secure(sock, host, deadline)
            response = _talk(sock, request, parts, deadline)
            return self._read(response, sock, deadline)
        finally:
            sock.close()

    def _addresses(self, host: str, port: int, deadline: float) -> list[str]:
        """Return the addresses of a name that a request may be sent to.

        :raises _NotSent: there are none
        """
        found = self._look_up(host, port, deadline)
        rule = self._destinations
        permitted = [address for address in found if rule is None or rule.permit(address)]
        if not permitted:
            raise _NotSent("the address of the host is not permitted")
        return permitted

    def _look_up(self, host: str, port: int, deadline: float) -> Sequence[str]:
        """Resolve a name in another thread, which may take longer than the deadline."""
        answers: list[Sequence[str]] = []

        def look_up() -> None:
            try:
                with suppress(OSError, UnicodeError):
                    answers.append(self._resolve(host, port))
            finally:
                self._lookups.release()

        if not self._lookups.acquire(timeout=_left(deadline)):
            raise _NotSent("timeout of the name resolution")
        thread = Thread(target=look_up, name="resolve", daemon=True)
        thread.start()
        thread.join(_left(deadline))
        if thread.is_alive():
            raise _NotSent("timeout of the name resolution")
        if not answers or not answers[0]:
            raise _NotSent("the name of the host is unknown")
        return answers[0]

    def _secure(self, sock: socket.socket, host: str, deadline: float) -> socket.socket:
        """Begin TLS. The certificate must be valid for the name of the URI."""
        if self._tls is None:  # reading all certificates takes a while
            self._tls = ssl.create_default_context()
        self._tls.sslsocket_class = _DeadlineTLSSocket
        sock.settimeout(_left(deadline))  # the handshake as a whole has this timeout
        secured = self._tls.wrap_socket(sock, server_hostname=host)
        assert isinstance(secured, _DeadlineTLSSocket)
        secured.deadline = deadline
        return secured

    def _read(self, response: http.client.HTTPResponse, sock: Any, deadline: float) -> HTTPResult:
        """Read the beginning of a body. If that fails, the result still has the status."""
        sock.deadline = min(deadline, time.monotonic() + self._body_seconds)
        body, is_whole = bytearray(), False
        with suppress(OSError, http.client.HTTPException, ValueError):
            while len(body) < self._body_limit:
                part = response.read1(self._body_limit - len(body))
                if not part:
                    break
                body += part
            # `length` is what is missing of a body whose length was announced.
            is_whole = not response.length or len(body) >= self._body_limit
        return HTTPResult(response.status, bytes(body), is_whole)


def _system_resolver(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _left(deadline: float) -> float:
    """Return the seconds until a deadline.

    :raises TimeoutError: it has passed
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers. Each but the last gets half of the time left."""
    for number, address in enumerate(addresses, 1):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = _DeadlineSocket(family, socket.SOCK_STREAM)
        sock.deadline = deadline
        try:
            sock.settimeout(_left(deadline) / (1 if number == len(addresses) else 2))
            sock.connect((address, port))
        except OSError:
            sock.close()
            if number == len(addresses):
                raise
        else:
            return sock
    raise AssertionError("there is at least one address")


def _talk(
    sock: socket.socket, request: HTTPRequest, parts: SplitResult, deadline: float
) -> http.client.HTTPResponse:
    """Send a request on a connection; return the response, of which the body is not read."""
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    connection = http.client.HTTPConnection(parts.netloc)
    connection.sock = sock
    sock.settimeout(_left(deadline))
    connection.putrequest(request.method, path, skip_host=True, skip_accept_encoding=True)
    body = request.body
    headers = {"Host": parts.netloc, **request.headers, "Connection": "close"}
    if body is not None:
        headers["Content-Length"] = str(len(body))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    return connection.getresponse()
