"""Checks that a response of CouchDB belongs to its request.

A response carries the request id of its request. A document carries its `_id`, the response to a
write the `id` of the document, and the response to a bulk request the ids that were sent, in their
order. If a server or a proxy sends a response twice or too late, the next request gets a response
that fails these checks. The rows of a view do not show the query, so only the request id of their
response is checked.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from kazoo_ips.couch.http_connections import Response

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


class Mismatch(Exception):
    """The response belongs to another request, or does not come from CouchDB."""


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
    if endpoint == "_all_docs":
        return [row["key"] for row in response.content["rows"]] == list(sent["keys"])
    return _has(response, endpoint)


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
