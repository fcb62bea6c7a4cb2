"""What a request's handler finds at hand: the services, who is calling, and the request's name."""

from typing import Any, cast

from flask import Request, current_app, g, request

from kazoo_ips.model import Caller
from kazoo_ips.services import Services


def services() -> Services:
    """The services of the running application."""
    return cast(Services, current_app.extensions["kazoo_ips"])


def here() -> tuple[Request, Any]:
    """The request and what is known of it, once found: each look through the framework's own
    names for them takes as long as ten attributes.
    """
    return request._get_current_object(), g._get_current_object()  # type: ignore[attr-defined]


def caller() -> Caller:
    """Who is calling, once admitted."""
    return cast(Caller, g.caller)


def write() -> dict[str, Any]:
    """By what name a write goes, which attempt it is at a request with an Idempotency-Key, and
    whether it is only spoken of.
    """
    return {
        "request_id": g.request_id,
        "attempt": g.get("attempt"),
        "dry_run": g.get("dry_run", False),
    }
