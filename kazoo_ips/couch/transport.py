"""How bytes reach CouchDB: couchdb-python's session, on a short lead.

The driver's own session shares sockets with forked children, has no connect timeout, sends a
write again when its reply was lost, and stumbles over chunked errors and missing content types
(each seen on Python 3.11 to 3.13). Here urllib3 carries the requests instead: one pool for each
process, both timeouts, reads repeated once when a kept connection turns out to be closed, writes
never. Every answer that is not a success leaves as an error of `kazoo_ips.errors`.

Knows HTTP, not documents.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import urllib3
from couchdb import http
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
)
from urllib3.util import Timeout, make_headers

from kazoo_ips.errors import (
    DatastoreError,
    DatastoreMissing,
    DatastoreMissingView,
    DatastoreUnreachable,
    DocumentNotFound,
    RevisionConflict,
)

log = logging.getLogger(__name__)

_NO_DOCUMENT = ("missing", "deleted")


class OutcomeUnknown(DatastoreUnreachable):
    """A request was sent and not answered, or answered with a failure: it may have been done."""


class Transport(http.Session):  # type: ignore[misc]
    """A session of couchdb-python that never guesses.

    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds to wait for an answer, and between two parts of it
    :param connections: how many are kept open; one for each thread is enough
    :param trace: called with method and path of every request sent
    """

    def __init__(
        self,
        connect_timeout: float,
        read_timeout: float,
        connections: int,
        trace: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__()
        self._timeout = Timeout(connect=connect_timeout, read=read_timeout)
        self._connections = connections
        self._trace = trace
        self._pool: urllib3.PoolManager | None = None
        self._pool_owner = 0

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
        sent = {"Accept": "application/json", **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body, allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        if credentials:
            sent.update(make_headers(basic_auth=":".join(credentials)))
        if self._trace:
            self._trace(method, url)
        response = self._send(method, url, body, sent)
        if response.status >= 400:
            raise self._refusal(method, url, response)
        return response.status, response.headers, BytesIO(response.data)

    def _send(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        tries = 2 if _is_read(method, url) else 1
        while True:
            tries -= 1
            try:
                return self._pool_of_this_process().request(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,
                )
            except (NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                raise DatastoreUnreachable(str(error)) from error
            except ProtocolError as error:
                if not tries:
                    raise OutcomeUnknown(str(error)) from error
            except (MaxRetryError, HTTPError, OSError) as error:
                raise OutcomeUnknown(str(error)) from error

    def _pool_of_this_process(self) -> urllib3.PoolManager:
        # A socket shared with a forked child returns the answers to somebody else's questions.
        if self._pool is None or self._pool_owner != os.getpid():
            self._pool = urllib3.PoolManager(num_pools=2, maxsize=self._connections)
            self._pool_owner = os.getpid()
        return self._pool

    @staticmethod
    def _refusal(method: str, url: str, response: urllib3.BaseHTTPResponse) -> DatastoreError:
        """The error that an answer of 400 and above stands for."""
        reason = _reason(response.data)
        if response.status in (409, 412):
            return RevisionConflict(reason)
        if response.status == 404:
            if "/_view/" in url and not reason.startswith(("Database", "no_db")):
                return DatastoreMissingView(reason)
            return (DocumentNotFound if reason in _NO_DOCUMENT else DatastoreMissing)(reason)
        log.warning("CouchDB answered %s %s with %d: %s", method, url, response.status, reason)
        unsure = response.status >= 500 and not _is_read(method, url)
        return (OutcomeUnknown if unsure else DatastoreUnreachable)(f"{response.status} {reason}")


def _is_read(method: str, url: str) -> bool:
    """Whether sending it twice does no harm; some questions are too long for a URL."""
    return method in ("GET", "HEAD") or (
        method == "POST" and ("/_view/" in url or "/_all_docs" in url or url.endswith("/_find"))
    )


def _reason(body: bytes) -> str:
    """CouchDB's `reason`, or the start of whatever a proxy in between sent instead."""
    try:
        return str(json.loads(body)["reason"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")
