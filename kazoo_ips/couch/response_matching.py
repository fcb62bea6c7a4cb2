"""Which request an answer of CouchDB belongs to, as far as the answer itself shows it.

CouchDB's protocol lets a client check that: an answer carries the request id that the request had,
a document its `_id`, the answer to a write the `id` of what was written, and the answer to a bulk
request the ids that were sent, in their order. The answer to another request, sent twice or too
late by a server or a proxy, fails these checks. The rows of a view do not say what was asked: they
are checked by the request id alone.

Knows CouchDB's protocol; neither connections nor what is in the documents.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

REQUEST_ID = "x-couch-request-id"
_OWN_ID = re.compile("[0-9a-f]{10}")
"""An id that CouchDB has made itself: always before 3.4.3, later where it got none."""
_MEMBERS = {
    "": '"version"',
    "_session": '"userCtx"',
    "_view": '"rows"',
    "_find": '"docs"',
    "_changes": '"results"',
}
"""What an answer is known by that is not looked into further."""


class Mismatch(Exception):
    """The answer is to another request, or is no answer of CouchDB."""


def check_request_id(sent: str, received: str | None) -> None:
    """Check the request id that an answer carries, if it carries one.

    :raises Mismatch: it is the id of another request
    """
    if received is not None and received != sent and not _OWN_ID.fullmatch(received):
        raise Mismatch(f"the answer has the request id {received[:36]!r}")


def check_success(method: str, target: str, sent: Any, body: bytes) -> None:
    """Check what a successful answer says.

    :param target: path and query below the server's root, quoted
    :param sent: the request's body as it was before it became JSON
    :raises Mismatch: it does not fit the request
    """
    try:
        fits = _fits(method, target, sent, body)
    except (ValueError, LookupError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise Mismatch("the answer is not one to this request")


def _fits(method: str, target: str, sent: Any, body: bytes) -> bool:
    path, _, query = target.partition("?")
    database, *below = path.split("/")
    if not database or (database.startswith("_") and database != "_users"):
        return _has(body, database)
    if not below:
        return method != "GET" or _parsed(body)["db_name"] == unquote(database)
    if below[0].startswith("_") and below[0] not in ("_design", "_local"):
        return _fits_bulk(below[0], sent, body) if method == "POST" else _has(body, below[0])
    length = 2 if below[0] in ("_design", "_local") else 1
    if len(below) > length:
        return below[length] != "_view" or _has(body, "_view")  # else an attachment
    return _fits_document(method, unquote("/".join(below)), query, _parsed(body))


def _fits_document(method: str, document_id: str, query: str, content: Any) -> bool:
    if method != "GET":
        return bool(content["id"] == document_id)
    if "rev" not in query:
        return bool(content["_id"] == document_id)
    asked = parse_qs(query)
    if "open_revs" in asked:
        return all(leaf["ok"]["_id"] == document_id for leaf in content if "ok" in leaf)
    wanted = asked.get("rev", [content["_rev"]])
    return bool(content["_id"] == document_id) and wanted == [content["_rev"]]


def _fits_bulk(endpoint: str, sent: Any, body: bytes) -> bool:
    if endpoint == "_bulk_docs":
        ids = [document["_id"] for document in sent["docs"]]
        answered = [row["id"] for row in _parsed(body)]
        # As replication writes, only what failed has a row.
        return answered == ids if sent.get("new_edits", True) else set(answered) <= set(ids)
    if endpoint == "_bulk_get":
        return _fits_bulk_get([each["id"] for each in sent["docs"]], _parsed(body)["results"])
    if endpoint == "_all_docs":
        return [row["key"] for row in _parsed(body)["rows"]] == list(sent["keys"])
    return _has(body, endpoint)


def _fits_bulk_get(ids: Sequence[str], results: Any) -> bool:
    return [result["id"] for result in results] == ids and all(
        leaf["ok"]["_id"] == result["id"]
        for result in results
        for leaf in result["docs"]
        if "ok" in leaf
    )


def _has(body: bytes, name: str) -> bool:
    return body[:1] in b"{[" and _MEMBERS.get(name, "").encode() in body


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # stricter than CouchDB in what it takes for text
        return json.loads(body)
