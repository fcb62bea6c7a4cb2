"""The HTTP session that couchdb-python uses here.

The driver's own session shares sockets with forked children, has no connect timeout, repeats a
write if its response was lost, and fails on chunked errors and missing content types (each seen on
Python 3.11 to 3.13). This session uses the connections of `http_connections.py`, with a connect
timeout and a read timeout. It repeats a read once if the connection breaks, and never repeats a
write. Each request has a request id of its own. A response that does not belong to its request is
rejected. Every response that is not a success becomes an error of `kazoo_ips.errors`.

This module handles HTTP and CouchDB's paths, and does not interpret the content of documents.
"""

import base64
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import lru_cache, partial
from io import BytesIO
from time import perf_counter
from typing import Any

import msgspec
from couchdb import http

from kazoo_ips.couch import responses
from kazoo_ips.couch.batching import READ_SIBLINGS
from kazoo_ips.couch.http_connections import ConnectFailed, Connections, NoResponse
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.couch.responses import (
    Mismatch,
    OutcomeUnknown,
    ReadFailed,
    Response,
    error_of,
    is_login_refused,
    loggable_path,
    reason_of,
)
from kazoo_ips.errors import DatastoreLoginRefused, DatastoreUnreachable
from kazoo_ips.observability import request_context
from kazoo_ips.observability.request_context import Work
from kazoo_ips.processes.shared_table import SharedTable

log = logging.getLogger(__name__)

_EXCHANGED = b"Design document was updated or deleted"

Observe = Callable[[str, str, int, float], None]


class Transport(http.Session):  # type: ignore[misc]
    """A session of couchdb-python that reports an unknown outcome as `OutcomeUnknown`.

    :param connections: the connections to the server
    :param trace: called with method and URL before each request
    :param observe: called after each try with method, URL, status and seconds. The status is 0 if
        no response was received, and -1 if none was received and the request is sent once more
    :param breaker: prevents a refused login from being sent again; by default one of its own
    """

    def __init__(
        self,
        connections: Connections,
        trace: Callable[[str, str], None] | None = None,
        observe: Observe | None = None,
        breaker: LoginBreaker | None = None,
    ) -> None:
        super().__init__()
        self._connections = connections
        self._trace = trace
        self._observe = observe
        self._breaker = breaker or LoginBreaker(SharedTable(sets=1))

    def request(  # noqa: PLR0913, PLR0917 - the driver's own signature
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
        num_redirects: int = 0,
    ) -> tuple[int, Mapping[str, str], BytesIO]:
        """Send a request, and return status, headers and body of a success.

        :raises OutcomeUnknown: it was sent, and it is not known whether CouchDB has executed it
        :raises DatastoreError: the error that `error_of` returns
        """
        response = self.send(method, url, body, dict(headers or {}), credentials)
        return response.status, response.headers, BytesIO(response.body)

    def send(
        self,
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str],
        credentials: tuple[str, str] | None,
    ) -> Response:
        """Send a request, and return the response of a success.

        :param body: bytes, None, or an object that is sent as JSON
        :param headers: changed by this call
        :raises OutcomeUnknown: it was sent, and it is not known whether CouchDB has executed it
        :raises DatastoreError: the error that `error_of` returns
        """
        headers["Accept"] = "application/json"
        if READ_SIBLINGS.expected:
            READ_SIBLINGS.arrived()
        if self._trace:
            self._trace(method, url)
        if credentials is None:
            response = self._try(method, url, body, headers)
        else:
            headers["Authorization"] = _basic(*credentials)
            response = self._send_as(credentials, method, url, body, headers)
        if response.status == 404 and _EXCHANGED in response.body:
            # The design document was replaced during the read. The second try reads the new one.
            response = self._try(method, url, body, headers)
        if not 200 <= response.status < 300:
            raise error_of(method, url, response, is_read=_is_read(method, url))
        return response

    def _send_as(
        self,
        credentials: tuple[str, str],
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str],
    ) -> Response:
        """Send a request with credentials, unless CouchDB has refused them recently.

        :raises DatastoreLoginRefused: CouchDB refuses them now; or CouchDB has refused them
            recently, and nothing was sent
        """
        login = self._login(credentials)
        closed = self._breaker.is_closed(login)
        with nullcontext() if closed else self._breaker.trial(login):
            response = self._try(method, url, body, headers)
            if response.status in (401, 403) and is_login_refused(response):
                raise self._login_refused(login, credentials[0], method, url, response)
            if not closed and response.status >= 500:  # such a response does not test the login
                raise error_of(method, url, response, is_read=_is_read(method, url))
        return response

    def _login_refused(
        self, login: str, user: str, method: str, url: str, response: Response
    ) -> DatastoreLoginRefused:
        reason = reason_of(response)
        locked = response.status == 403
        pause = self._breaker.refuse(login, locked=locked)
        if pause is not None:
            log.error("CouchDB refuses %s %s: %s", method, loggable_path(url), reason)
            log.error("user %s is not used for %d s: its login was refused", user, pause)
        return DatastoreLoginRefused(f"user {user} or its password: {reason}", locked=locked)

    def _try(self, method: str, url: str, body: Any, headers: dict[str, str]) -> Response:
        """Send a request once, or a read twice if the connection breaks."""
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if content is not body:
            headers["Content-Type"] = "application/json"
        repeats = _is_read(method, url)
        while True:
            response = self._once(method, url, body, content, headers, repeats=repeats)
            if response is not None:
                return response
            repeats = False

    def _once(  # noqa: PLR0913 - what a request consists of
        self,
        method: str,
        url: str,
        body: Any,
        content: bytes | None,
        headers: dict[str, str],
        *,
        repeats: bool,
    ) -> Response | None:
        """Send a request once, and count it.

        :param body: the body before it was encoded as JSON
        :param repeats: whether the request may be sent again
        :returns: None if no response was received, and the request is to be sent again
        """
        target, path = self._target(url)
        work = request_context.CURRENT.get()
        headers["X-Couch-Request-ID"] = request_id = _new_id(work)
        check = partial(responses.check, method, path, body, request_id)
        status, started = 0, perf_counter()
        try:
            response = self._connections.request(method, target, headers, content, check)
            status = response.status
            return response
        except ConnectFailed as error:
            raise DatastoreUnreachable(str(error)) from error
        except Mismatch as error:
            log.error("%s %s: %s", method, loggable_path(url), error)
            raise OutcomeUnknown(str(error)) from error
        except NoResponse as error:
            if not repeats or error.timed_out:
                raise OutcomeUnknown(str(error)) from error
            status = -1
            return None
        finally:
            self._count(work, method, url, request_id, status, perf_counter() - started)

    def stream(self, url: str, credentials: tuple[str, str] | None) -> Iterator[bytes]:
        """Send a GET once, and yield the body of a success in parts, while CouchDB sends it.

        :raises DatastoreError: the same as `send`, also after some of the parts. The caller may
            read the rest by `send`
        """
        headers = {"Accept": "application/json"}
        if credentials is not None:
            if not self._breaker.is_closed(self._login(credentials)):
                raise ReadFailed("CouchDB has refused the login recently")
            headers["Authorization"] = _basic(*credentials)
        if self._trace:
            self._trace("GET", url)
        target, path = self._target(url)
        work = request_context.CURRENT.get()
        headers["X-Couch-Request-ID"] = request_id = _new_id(work)
        status, seconds, started = 0, 0.0, perf_counter()

        def check(response: Response) -> None:
            nonlocal status
            responses.check("GET", path, None, request_id, response)
            status = response.status
            if status != 200:
                raise error_of("GET", url, response, is_read=True)

        try:
            for part in self._connections.stream(target, headers, check):
                seconds += perf_counter() - started
                yield part
                started = perf_counter()
        except (ConnectFailed, NoResponse, Mismatch) as error:
            status = 0
            log.warning("GET %s: the stream ends early: %s", loggable_path(url), error)
            raise ReadFailed(str(error)) from error
        finally:
            self._count(work, "GET", url, request_id, status, seconds)

    def _login(self, credentials: tuple[str, str]) -> str:
        return f"{self._connections.address} {':'.join(credentials)}"

    def _target(self, url: str) -> tuple[str, str]:
        """Return path and query of a URL, and the same below CouchDB's root."""
        target = "/" + url.split("/", 3)[3]
        return target, target.removeprefix(self._connections.path).lstrip("/")

    def _count(  # noqa: PLR0913, PLR0917 - what is counted
        self,
        work: Work | None,
        method: str,
        url: str,
        request_id: str,
        status: int,
        seconds: float,
    ) -> None:
        """Count a request that has ended."""
        if work:
            work.calls += 1
            work.seconds += seconds
        if self._observe:
            self._observe(method, url, status, seconds)
        if work and work.span is not None:
            address = self._connections.address
            _, path = self._target(url)
            work.span.add_call(method, address, path, request_id, status, seconds)


def _new_id(work: Work | None) -> str:
    name = work.couchdb_id if work else request_context.NO_WORK
    return f"{name}-{next(request_context.NUMBERS)}"


@lru_cache
def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _is_read(method: str, url: str) -> bool:
    """Whether the request may be sent twice. Queries that are too long for a URL are POST."""
    return method in ("GET", "HEAD") or (
        method == "POST"
        and ("/_view/" in url or url.endswith(("/_bulk_get", "/_find", "/_all_docs/queries")))
    )
