"""How requests reach CouchDB: couchdb-python's session, on a short lead.

The driver's own session shares sockets with forked children, has no connect timeout, sends a
write again when its reply was lost, and stumbles over chunked errors and missing content types
(each seen on Python 3.11 to 3.13). Here our own connections carry the requests: kept for each
process, with both timeouts; reads are repeated once when a connection breaks, writes never. Every
answer that is not a success leaves as an error of `kazoo_ips.errors`.

Knows HTTP, not documents.
"""

import base64
import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from time import perf_counter
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from couchdb import http

from kazoo_ips import work
from kazoo_ips.couch.connections import Answer, Connections, NotSent, Unanswered
from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreMissing,
    DatastoreMissingView,
    DatastoreUnreachable,
    DocumentNotFound,
    RevisionConflict,
)
from kazoo_ips.rendezvous import FIRST_QUESTION

log = logging.getLogger(__name__)

_NO_DOCUMENT = ("missing", "deleted")
_EXCHANGED = b"Design document was updated or deleted"


Observe = Callable[[str, str, int, float], None]


class OutcomeUnknown(DatastoreUnreachable):
    """A request was sent and not answered, or answered with a failure: it may have been done."""


class NotInTime(DatastoreUnreachable):
    """CouchDB answered with a failure of its own to a question that it may be asked again."""


class Transport(http.Session):  # type: ignore[misc]
    """A session of couchdb-python that never guesses.

    :param connections: to the one server that it is for
    :param trace: called with method and URL of every request sent
    :param observe: called after every try with method, URL, status and seconds; the status is 0
        when no answer came, and -1 when none came and the request is sent once more
    """

    def __init__(
        self,
        connections: Connections,
        trace: Callable[[str, str], None] | None = None,
        observe: Observe | None = None,
    ) -> None:
        super().__init__()
        self._connections = connections
        self._trace = trace
        self._observe = observe

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
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = _encode(body)
            sent["Content-Type"] = "application/json"
        answer = self._answer(method, url, body, sent, credentials)
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
        body: bytes | None,
        sent: dict[str, str],
        credentials: tuple[str, str] | None,
    ) -> Answer:
        sent["Accept"] = "application/json"
        if credentials:
            sent["Authorization"] = _basic(*credentials)
        FIRST_QUESTION.arrive()
        current = work.current()
        if current is not None:
            sent["X-Couch-Request-ID"] = current.couchdb_id
        if self._trace:
            self._trace(method, url)
        answer = self._send(method, url, body, sent)
        if answer.status == 404 and _EXCHANGED in answer.body:
            # A new design document was put in place while its view was read: it is there now.
            answer = self._send(method, url, body, sent)
        if answer.status >= 400:
            raise self._refusal(method, url, answer)
        return answer

    def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        target = "/" + url.split("/", 3)[3]
        sure = not _is_read(method, url)  # what can be sent twice need not be
        tries = 1 if sure else 2
        while True:
            tries -= 1
            status, started = 0, perf_counter()
            try:
                answer = self._connections.request(method, target, headers, body, sure=sure)
                status = answer.status
                return answer
            except NotSent as error:
                raise DatastoreUnreachable(str(error)) from error
            except Unanswered as error:
                if not tries or error.late:
                    raise OutcomeUnknown(str(error)) from error
                status, sure = -1, True
            finally:
                if self._observe:
                    self._observe(method, url, status, perf_counter() - started)

    @staticmethod
    def _refusal(method: str, url: str, answer: Answer) -> DatastoreError:
        """The error that an answer of 400 and above stands for."""
        reason = _reason(answer.body)
        if answer.status in (409, 412):
            return RevisionConflict(reason)
        if answer.status == 404:
            if "/_view/" in url and not reason.startswith(("Database", "no_db")):
                return DatastoreMissingView(reason)
            return (DocumentNotFound if reason in _NO_DOCUMENT else DatastoreMissing)(reason)
        path = unquote(urlsplit(url).path)  # the rest may hold the key of a login
        if answer.status in (401, 403):
            log.error("CouchDB refuses %s %s: %s", method, path, reason)
            return DatastoreForbidden(f"{method} {path}: {reason}")
        log.warning("CouchDB answered %s %s with %d: %s", method, path, answer.status, reason)
        text = f"{answer.status} {reason}"
        if answer.status < 500:
            return DatastoreUnreachable(text)
        return NotInTime(text) if _is_read(method, url) else OutcomeUnknown(text)


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
