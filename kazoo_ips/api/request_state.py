"""The state of the current request for its handler: the services, the caller, the request id."""

from typing import Any, cast

from flask import Request, current_app, g, request

from kazoo_ips.model import Caller
from kazoo_ips.services import Services


def services() -> Services:
    """Return the services of the application."""
    return cast(Services, current_app.extensions["kazoo_ips"])


def request_and_state() -> tuple[Request, Any]:
    """Return the objects behind Flask's `request` and `g`.

    An attribute of Flask's proxies takes ten times as long as one of these objects.
    """
    return request._get_current_object(), g._get_current_object()  # type: ignore[attr-defined]


def caller() -> Caller:
    """Return the caller, after the authentication."""
    return cast(Caller, g.caller)


def write() -> dict[str, Any]:
    """Return the arguments that every write of a service takes.

    They are the request id, the attempt (None without an Idempotency-Key), and whether it is a dry
    run.
    """
    return {
        "request_id": g.request_id,
        "attempt": g.get("attempt"),
        "dry_run": g.get("dry_run", False),
    }
