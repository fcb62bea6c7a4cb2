"""What a response of CouchDB says: its content, whether it belongs to its request, and its error.

A response carries the request id of its request. A document carries its `_id`, the response to a
write the `id` of the document, and the response to a bulk request the ids that were sent, in their
order. If a server or a proxy sends a response twice or too late, the next request gets a response
that fails these checks. The rows of a view do not show the query, so only the request id of their
response is checked.
"""

import json
import logging
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from kazoo_ips.errors import (
    DatastoreBadRequest,
    DatastoreError,
    DatastoreForbidden,
    DatastoreMissing,
    DatastoreMissingView,
    DatastoreUnreachable,
    DocumentNotFound,
    RevisionConflict,
)

log = logging.getLogger(__name__)

_LINE_ENDS = b"\r\n"
TAIL = 16
"""The number of bytes at the end of a response that are searched for surplus line ends."""
_COUCHDBS_OWN_ID = re.compile("[0-9a-f]{10}")
"""A request id that CouchDB has generated: before 3.4.3 for every request, since then for a
request without one."""
_MEMBERS = {
    "": b'"version"',
    "_session": b'"userCtx"',
    "_view": b'"rows"',
    "_find": b'"docs"',
    "_changes": b'"results"',
}
"""A member that every response from these endpoints has. No other part of them is checked."""
_NO_DOCUMENT = ("missing", "deleted")
_LOCKED = "Account is temporarily locked"
"""The reason of CouchDB 3.4 and later after several wrong passwords, with status 403."""
_AUTHENTICATED = ("You are not", "User document conflicts")
"""The beginning of the reason of a 401 if CouchDB knows the user, who lacks a permission."""


class Mismatch(Exception):
    """The response belongs to another request, or does not come from CouchDB."""


class OutcomeUnknown(DatastoreUnreachable):
    """A request was sent, and it is not known whether CouchDB has executed it.

    No response was received, or a response of 500 or more, or the response to another request.
    """


class ReadFailed(DatastoreUnreachable):
    """CouchDB answered a read with a status of 500 or more. The read may be repeated."""


class Response:
    """Status, headers and body of a response. The parser calls the `on_…` methods."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self.raw_headers: dict[bytes, bytes] = {}
        """The headers, with their names in lower case."""
        self._has_headers = False
        self._parts: list[bytes] = []

    @cached_property
    def content(self) -> Any:
        """The body, read as JSON. It is read once.

        :raises ValueError: it is not JSON
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:  # it rejects half surrogates, which CouchDB accepts
            return json.loads(self.body)

    @property
    def headers(self) -> dict[str, str]:
        """The headers as text, with their names in lower case."""
        return {k.decode("latin-1"): v.decode("latin-1") for k, v in self.raw_headers.items()}

    def on_message_begin(self) -> None:
        """Refuse a second response to the same request."""
        if self.complete:
            raise ValueError("two responses to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        self.raw_headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Record that all headers were received."""
        self._has_headers = True

    def on_body(self, part: bytes) -> None:
        """Store a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Join the parts of the body."""
        self.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.complete = True

    def take(self) -> bytes:
        """Remove and return what was received of the body since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def closes_connection(self) -> bool:
        """Whether the server closes the connection after this response."""
        return b"close" in self.raw_headers.get(b"connection", b"").lower()

    def ends_with(self, tail: bytes) -> bool:
        """Whether nothing follows the response. The parser does not report surplus line ends.

        :param tail: the last bytes that were received
        """
        own = _count_line_ends(self.body[-TAIL:])
        if not self.body or b"content-length" not in self.raw_headers:
            own = len(_LINE_ENDS * 2)  # the end of the head, or of the last chunk
        return own == _count_line_ends(tail) < TAIL

    def ends_with_connection(self) -> bool:
        """Whether the body extends to the end of the connection."""
        framed = {b"content-length", b"transfer-encoding"} & self.raw_headers.keys()
        return self._has_headers and not framed


def _count_line_ends(tail: bytes) -> int:
    return len(tail) - len(tail.rstrip(_LINE_ENDS))


# Whether it belongs to its request.


def check(method: str, target: str, sent: Any, request_id: str, response: Response) -> None:
    """Check a response.

    :param target: path and query below the server's root, quoted
    :param sent: the request's body before it was encoded as JSON
    :param request_id: the id that was sent with the request
    :raises Mismatch: it does not belong to the request
    """
    received = response.raw_headers.get(b"x-couch-request-id", b"").decode("latin-1")
    if received not in ("", request_id) and not _COUCHDBS_OWN_ID.fullmatch(received):
        raise Mismatch(f"the response has the request id {received[:36]!r}")
    if not 200 <= response.status < 300:
        return
    try:
        fits = _fits(method, target, sent, response)
    except (ValueError, LookupError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise Mismatch("the response does not belong to this request")


def _fits(method: str, target: str, sent: Any, response: Response) -> bool:
    path, _, query = target.partition("?")
    database, *below = path.split("/")
    if not database or (database.startswith("_") and database != "_users"):
        return _has(response, database)
    if not below:
        return method != "GET" or response.content["db_name"] == unquote(database)
    if below[0].startswith("_") and below[0] not in ("_design", "_local"):
        return (
            _fits_bulk(below[0], sent, response) if method == "POST" else _has(response, below[0])
        )
    length = 2 if below[0] in ("_design", "_local") else 1
    if len(below) > length:
        return below[length] != "_view" or _has(response, "_view")  # otherwise it is an attachment
    return _fits_document(method, unquote("/".join(below)), query, response.content)


def _fits_document(method: str, document_id: str, query: str, content: Any) -> bool:
    if method != "GET":
        return bool(content["id"] == document_id)
    if "rev" not in query:
        return bool(content["_id"] == document_id)
    parameters = parse_qs(query)
    if "open_revs" in parameters:
        return all(leaf["ok"]["_id"] == document_id for leaf in content if "ok" in leaf)
    wanted = parameters.get("rev", [content["_rev"]])
    return bool(content["_id"] == document_id) and wanted == [content["_rev"]]


def _fits_bulk(endpoint: str, sent: Any, response: Response) -> bool:
    if endpoint == "_bulk_docs":
        ids = [document["_id"] for document in sent["docs"]]
        answered = [row["id"] for row in response.content]
        # With new_edits=false, only documents that failed have a row.
        return answered == ids if sent.get("new_edits", True) else set(answered) <= set(ids)
    if endpoint == "_bulk_get":
        return _fits_bulk_get([each["id"] for each in sent["docs"]], response.content["results"])
    if endpoint == "_all_docs" and "queries" in sent:
        return _fit_ranges(sent["queries"], response.content["results"])
    if endpoint == "_all_docs":
        return [row["key"] for row in response.content["rows"]] == list(sent["keys"])
    return _has(response, endpoint)


def _fit_ranges(queries: Sequence[Any], results: Sequence[Any]) -> bool:
    """:param queries: each for the last document of a range"""
    return len(results) == len(queries) and all(
        query["endkey"] <= row["id"] <= query["startkey"]
        for query, result in zip(queries, results, strict=True)
        for row in result["rows"]
    )


def _fits_bulk_get(ids: Sequence[str], results: Any) -> bool:
    return [result["id"] for result in results] == ids and all(
        leaf["ok"]["_id"] == result["id"]
        for result in results
        for leaf in result["docs"]
        if "ok" in leaf
    )


def _has(response: Response, name: str) -> bool:
    body = response.body
    return body[:1] in b"{[" and _MEMBERS.get(name, b"") in body


# The error that it stands for.


def error_of(method: str, url: str, response: Response, *, is_read: bool) -> DatastoreError:
    """Return the error for a response that is not a success."""
    reason = reason_of(response)
    if response.status in (409, 412):
        return RevisionConflict(reason)
    if response.status == 404:
        if "/_view/" in url and not reason.startswith(("Database", "no_db")):
            return DatastoreMissingView(reason)
        return (DocumentNotFound if reason in _NO_DOCUMENT else DatastoreMissing)(reason)
    path = loggable_path(url)
    if response.status in (401, 403):
        log.error("CouchDB refuses %s %s: %s", method, path, reason)
        return DatastoreForbidden(f"{method} {path}: {reason}")
    log.warning("CouchDB answered %s %s with %d: %s", method, path, response.status, reason)
    text = f"{response.status} {reason}"
    if response.status < 500:
        return (DatastoreBadRequest if response.status == 400 else DatastoreUnreachable)(text)
    return ReadFailed(text) if is_read else OutcomeUnknown(text)


def is_login_refused(response: Response) -> bool:
    """Whether CouchDB refuses the user or the password, rather than the request."""
    if response.status == 403:
        return reason_of(response).startswith(_LOCKED)
    return response.status == 401 and not reason_of(response).startswith(_AUTHENTICATED)


def loggable_path(url: str) -> str:
    """Return the part of a URL that may be logged. The query may contain the key of a login."""
    return unquote(urlsplit(url).path)


def reason_of(response: Response) -> str:
    """Return CouchDB's `reason`, or the beginning of the body if a proxy has sent the response."""
    try:
        return str(json.loads(response.body)["reason"])
    except (ValueError, LookupError, TypeError):
        return response.body[:200].decode(errors="replace")
