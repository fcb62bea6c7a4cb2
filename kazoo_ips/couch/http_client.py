"""How requests reach CouchDB: couchdb-python's session, on a short lead.

The driver's own session shares sockets with forked children, has no connect timeout, sends a
write again when its reply was lost, and stumbles over chunked errors and missing content types
(each seen on Python 3.11 to 3.13). Here our own connections carry the requests: kept for each
process, with both timeouts; reads are repeated once when a connection breaks, writes never. Every
request has a request id of its own, and an answer that does not fit the request is none (see
`kazoo_ips.couch.response_matching`). Every answer that is not a success leaves as an error of
`kazoo_ips.errors`.

Knows HTTP, not documents.
"""

import base64
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import lru_cache, partial
from io import BytesIO
from time import perf_counter
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from couchdb import http

from kazoo_ips.couch import response_matching
from kazoo_ips.couch.http_connections import Answer, Connections, NotSent, Unanswered
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreMissing,
    DatastoreMissingView,
    DatastoreUnreachable,
    DocumentNotFound,
    RevisionConflict,
)
from kazoo_ips.observability import request_context
from kazoo_ips.processes.rendezvous import FIRST_QUESTION
from kazoo_ips.processes.shared_table import SharedTable

log = logging.getLogger(__name__)

_NO_DOCUMENT = ("missing", "deleted")
_LOCKED = "Account is temporarily locked"
"""CouchDB 3.4 and later, after several wrong passwords, with a status of 403."""
_KNOWN = ("You are not", "User document conflicts")
"""What a 401 begins with where CouchDB knows the user, who may not do that."""
_EXCHANGED = b"Design document was updated or deleted"


Observe = Callable[[str, str, int, float], None]


class OutcomeUnknown(DatastoreUnreachable):
    """A request was sent, and what came was nothing, a failure or the answer to another one: it
    may have been done.
    """


class NotInTime(DatastoreUnreachable):
    """CouchDB answered with a failure of its own to a question that it may be asked again."""


class Transport(http.Session):  # type: ignore[misc]
    """A session of couchdb-python that never guesses.

    :param connections: to the one server that it is for
    :param trace: called with method and URL of every request sent
    :param observe: called after every try with method, URL, status and seconds; the status is 0
        when no answer came, and -1 when none came and the request is sent once more
    :param breaker: keeps a refused login from being sent; one of its own unless given
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
        """Send one request and return status, headers and body of a success.

        :raises OutcomeUnknown: it was sent, but whether it was carried out is not known
        :raises DatastoreError: as `_refusal` has it
        """
        answer = self._answer(method, url, body, dict(headers or {}), credentials)
        return answer.status, answer.headers, BytesIO(answer.body)

    def ask(self, method: str, url: str, credentials: tuple[str, str] | None) -> bytes:
        """Send one request without a body and return the body of a success.

        :raises OutcomeUnknown: it was sent, but whether it was carried out is not known
        :raises DatastoreError: as `_refusal` has it
        """
        return self._answer(method, url, None, {}, credentials).body

    def _answer(
        self,
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str],
        credentials: tuple[str, str] | None,
    ) -> Answer:
        headers["Accept"] = "application/json"
        if credentials:
            headers["Authorization"] = _basic(*credentials)
        FIRST_QUESTION.arrive()
        if self._trace:
            self._trace(method, url)
        if credentials is None:
            answer = self._send(method, url, body, headers)
        else:
            answer = self._send_as(credentials, method, url, body, headers)
        if answer.status == 404 and _EXCHANGED in answer.body:
            # A new design document was put in place while its view was read: it is there now.
            answer = self._send(method, url, body, headers)
        if not _is_success(answer):
            raise self._refusal(method, url, answer)
        return answer

    def _send_as(
        self,
        credentials: tuple[str, str],
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str],
    ) -> Answer:
        """Send a request with credentials, unless they were refused a moment ago.

        :raises DatastoreLoginRefused: they are, or were and nothing is sent
        """
        login = f"{self._connections.address} {':'.join(credentials)}"
        closed = self._breaker.is_closed(login)
        with nullcontext() if closed else self._breaker.trial(login):
            answer = self._send(method, url, body, headers)
            if _is_login_refused(answer):
                raise self._login_refusal(login, credentials[0], method, url, answer)
            if not closed and answer.status >= 500:  # it may not have come to the login
                raise self._refusal(method, url, answer)
        return answer

    def _login_refusal(
        self, login: str, user: str, method: str, url: str, answer: Answer
    ) -> DatastoreLoginRefused:
        reason = _reason(answer.body)
        locked = answer.status == 403
        pause = self._breaker.refuse(login, locked=locked)
        if pause is not None:
            log.error("CouchDB refuses %s %s: %s", method, _path(url), reason)
            log.error("user %s is not used for %d s: its login was refused", user, pause)
        return DatastoreLoginRefused(f"user {user} or its password: {reason}", locked=locked)

    def _send(self, method: str, url: str, body: Any, headers: dict[str, str]) -> Answer:
        content = body
        if body is not None and not isinstance(body, bytes):
            content = _encode(body)
            headers["Content-Type"] = "application/json"
        target = "/" + url.split("/", 3)[3]
        tries = 2 if _is_read(method, url) else 1
        while True:
            tries -= 1
            status, started = 0, perf_counter()
            headers["X-Couch-Request-ID"] = request_id = request_context.next_couchdb_id()
            check = partial(self._check, method, target, body, request_id)
            try:
                answer = self._connections.request(method, target, headers, content, check)
                status = answer.status
                return answer
            except NotSent as error:
                raise DatastoreUnreachable(str(error)) from error
            except response_matching.Mismatch as error:
                log.error("%s %s: %s", method, _path(url), error)
                raise OutcomeUnknown(str(error)) from error
            except Unanswered as error:
                if not tries or error.late:
                    raise OutcomeUnknown(str(error)) from error
                status = -1
            finally:
                if self._observe:
                    self._observe(method, url, status, perf_counter() - started)

    def _check(self, method: str, target: str, body: Any, request_id: str, answer: Answer) -> None:
        """See whether an answer is the one to the request.

        :raises binding.Mismatch: it is not
        """
        response_matching.check_request_id(request_id, answer.header(response_matching.REQUEST_ID))
        if _is_success(answer):
            below = target.removeprefix(self._connections.path).lstrip("/")
            response_matching.check_success(method, below, body, answer.body)

    @staticmethod
    def _refusal(method: str, url: str, answer: Answer) -> DatastoreError:
        """The error that an answer stands for which is no success."""
        reason = _reason(answer.body)
        if answer.status in (409, 412):
            return RevisionConflict(reason)
        if answer.status == 404:
            if "/_view/" in url and not reason.startswith(("Database", "no_db")):
                return DatastoreMissingView(reason)
            return (DocumentNotFound if reason in _NO_DOCUMENT else DatastoreMissing)(reason)
        path = _path(url)
        if answer.status in (401, 403):
            log.error("CouchDB refuses %s %s: %s", method, path, reason)
            return DatastoreForbidden(f"{method} {path}: {reason}")
        log.warning("CouchDB answered %s %s with %d: %s", method, path, answer.status, reason)
        text = f"{answer.status} {reason}"
        if answer.status < 500:
            return DatastoreUnreachable(text)
        return NotInTime(text) if _is_read(method, url) else OutcomeUnknown(text)


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def _is_login_refused(answer: Answer) -> bool:
    """Whether it is about who we are, and not about what we may."""
    if answer.status == 403:
        return _reason(answer.body).startswith(_LOCKED)
    return answer.status == 401 and not _reason(answer.body).startswith(_KNOWN)


def _path(url: str) -> str:
    """What of a URL may be logged: the rest may hold the key of a login."""
    return unquote(urlsplit(url).path)


def _encode(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a whole number beyond 64 bits
        return json.dumps(body, allow_nan=False).encode()


@lru_cache
def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _is_read(method: str, url: str) -> bool:
    """Whether sending it twice does no harm; some questions are too long for a URL."""
    return method in ("GET", "HEAD") or (
        method == "POST" and ("/_view/" in url or url.endswith(("/_bulk_get", "/_find")))
    )


def _reason(body: bytes) -> str:
    """CouchDB's `reason`, or the start of whatever a proxy in between sent instead."""
    try:
        return str(json.loads(body)["reason"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")
