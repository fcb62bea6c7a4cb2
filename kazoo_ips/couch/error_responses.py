"""The error of `kazoo_ips.errors` for each response of CouchDB that is not a success."""

import json
import logging
from urllib.parse import unquote, urlsplit

from kazoo_ips.couch.http_connections import Response
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

_NO_DOCUMENT = ("missing", "deleted")
_LOCKED = "Account is temporarily locked"
"""The reason of CouchDB 3.4 and later after several wrong passwords, with status 403."""
_AUTHENTICATED = ("You are not", "User document conflicts")
"""The beginning of the reason of a 401 if CouchDB knows the user, who lacks a permission."""


class OutcomeUnknown(DatastoreUnreachable):
    """A request was sent, and it is not known whether CouchDB has executed it.

    No response was received, or a response of 500 or more, or the response to another request.
    """


class ReadFailed(DatastoreUnreachable):
    """CouchDB answered a read with a status of 500 or more. The read may be repeated."""


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
