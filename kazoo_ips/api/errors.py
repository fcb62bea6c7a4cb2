"""The reply to each error: one table maps all exceptions to a status, a message and `data`."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from kazoo_ips import errors
from kazoo_ips.api import envelope
from kazoo_ips.observability import request_context

log = logging.getLogger(__name__)

Reply = tuple[int, str, Callable[[Any], Mapping[str, Any]]]


def _text(message: str) -> Callable[[Any], Mapping[str, Any]]:
    return lambda error: {"message": message}


def _conflict(error: errors.Conflict) -> Mapping[str, Any]:
    reasons = {"ips": {address: error.reason for address in error.addresses}}
    return {**({} if isinstance(error, errors.IPExists) else reasons), **_CONFLICTING}


_CONFLICTING = {"message": "conflicting documents"}

# An error without an entry has the reply of its nearest base class.
REPLIES: dict[type[Exception], Reply] = {
    errors.ValidationFailed: (400, "validation error", lambda error: error.errors),
    errors.InvalidCredentials: (401, "invalid_credentials", _text("invalid credentials")),
    errors.TooManyRequests: (429, "too_many_requests", _text("too many requests")),
    errors.TooManyKeys: (429, "too_many_requests", _text("too many idempotency keys")),
    errors.Forbidden: (403, "forbidden", _text("forbidden")),
    errors.TokenRestricted: (
        403,
        "forbidden",
        lambda _: {"message": "forbidden", "cause": "access denied by token restrictions"},
    ),
    errors.BadIdentifier: (
        404,
        "bad_identifier",
        lambda error: {"cause": error.cause, "message": "bad identifier"},
    ),
    errors.Conflict: (409, "datastore_conflict", _conflict),
    errors.RevisionConflict: (409, "datastore_conflict", lambda error: _CONFLICTING),
    errors.InsufficientIPs: (
        409,
        "insufficient_ips",
        lambda error: {
            "requested": error.requested,
            "available": error.available,
            **({"aging": error.resting, "next_at": error.next_at} if error.resting else {}),
            "message": "not enough ips available",
        },
    ),
    errors.LimitReached: (
        409,
        "limit_reached",
        lambda error: {
            "limit": error.limit,
            "used": error.used,
            "requested": error.requested,
            "which": error.which,
            "account_id": error.account_id,
            **({"zone": error.zone} if error.zone is not None else {}),
            "message": "limit reached",
        },
    ),
    errors.ReservationLimitReached: (
        409,
        "limit_reached",
        lambda error: {
            "limit": error.limit,
            "used": error.used,
            "requested": 1,
            "message": "too many reservations",
        },
    ),
    errors.ReservationExpired: (
        409,
        "reservation_expired",
        _text("the reservation has expired"),
    ),
    errors.JobExists: (
        409,
        "job_exists",
        lambda error: {"id": error.job_id, "message": "another job works on the host"},
    ),
    errors.WebhookLimitReached: (
        409,
        "limit_reached",
        lambda error: {
            "limit": error.limit,
            "used": error.used,
            "requested": 1,
            "message": "too many webhooks",
        },
    ),
    errors.IdempotencyMismatch: (
        422,
        "idempotency_mismatch",
        _text("the idempotency key was used with another request"),
    ),
    errors.InProgress: (409, "in_progress", _text("the request is still in progress")),
    errors.PreconditionFailed: (412, "precondition_failed", _text("precondition failed")),
    errors.PreconditionRequired: (
        428,
        "precondition_required",
        _text("zone and host of an assigned address change only with If-Match"),
    ),
    errors.SinceGone: (410, "since_gone", _text("the events after this position are deleted")),
    errors.NotReady: (
        503,
        "not_ready",
        lambda error: {"message": "not ready", "reasons": error.reasons},
    ),
    errors.DatastoreUnreachable: (503, "datastore_unreachable", _text("datastore timeout")),
    errors.DatastoreForbidden: (503, "datastore_fault", _text("datastore fatal error")),
    errors.DatastoreLoginRefused: (
        503,
        "datastore_fault",
        _text("the database refuses the service's user or password"),
    ),
    errors.DatastoreMissingView: (
        503,
        "datastore_missing_view",
        _text("datastore missing view"),
    ),
    errors.DatastoreMissing: (
        503,
        "datastore_missing",
        _text("data collection missing: database not found"),
    ),
    Exception: (500, "unspecified_fault", _text("unspecified fault")),
}

# Errors that Flask and werkzeug raise.
TOKENS = {
    400: ("faulty_request", "faulty request"),
    404: ("not_found", "not found"),
    405: ("invalid_method", "method not allowed"),
    406: ("not_acceptable", "not acceptable"),
    408: ("request_timeout", "request timeout"),
    413: ("request_too_large", "request body too large"),
    414: ("request_uri_too_long", "request-uri too long"),
    415: ("unsupported_media_type", "unsupported media type"),
}

HEADERS = {
    401: {"WWW-Authenticate": 'Bearer realm="kazoo"'},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "1"},
}


def init_app(app: Flask) -> None:
    """Register `reply` for every exception of the application."""
    app.register_error_handler(Exception, reply)


def reply(error: Exception) -> Response:
    """Return the reply to an error."""
    if isinstance(error, HTTPException):
        return _from_framework(error)
    code, message, data = describe(error)
    response = envelope.failure(code, message, data)
    response.headers.update(headers(error, code))
    return response


def describe(error: Exception) -> tuple[int, str, Mapping[str, Any]]:
    """Return the status, the message and `data` of the reply to an error. Faults are logged."""
    code, message, data = next(REPLIES[c] for c in type(error).__mro__ if c in REPLIES)
    if isinstance(error, errors.DatastoreError) and code == 503:
        log.warning("request %s failed: %s", g.get("request_id"), error)
        request_context.note(type(error).__name__)
    elif code >= 500 and not isinstance(error, errors.NotReady):
        log.error("request %s failed", g.get("request_id"), exc_info=error)
    return code, message, data(error)


def headers(error: Exception, code: int) -> Mapping[str, str]:
    """Return the headers that the reply to an error has because of its status."""
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(error.seconds)}
    return HEADERS.get(code, {})


def _from_framework(error: HTTPException) -> Response:
    code = error.code if error.code in TOKENS else 400
    message, text = TOKENS[code]
    response = envelope.failure(code, message, {"message": text})
    if code == 415 and "Content-Encoding" in request.headers:
        response.headers["Accept-Encoding"] = "gzip"
    for name, value in error.get_headers():
        if name == "Allow":
            methods = sorted(set(value.split(", ")) - {"OPTIONS"})
            response.headers[name] = ", ".join(methods)
    return response
