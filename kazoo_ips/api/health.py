"""`/healthz`, `/readyz` and `/metrics`, for load balancers and Prometheus."""

import hmac
from collections.abc import Callable

from flask import Flask, Response, current_app, g
from marshmallow import fields

from kazoo_ips.api import envelope
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import ANY, Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.errors import InvalidCredentials, NotReady

routes = Routes("health", __name__)


class HealthSchema(ReplySchema):
    """The reply of a process that is alive."""

    healthy = fields.Boolean(required=True)


class ReadinessSchema(ReplySchema):
    """The reply of a service that can serve requests."""

    ready = fields.Boolean(required=True)


def init_app(app: Flask, text: Callable[[], bytes], content_type: str, token: str) -> None:
    """Set the source of the metrics.

    :param text: returns all metrics in Prometheus's text format
    :param token: the bearer token that /metrics requires; none if empty
    """
    app.extensions["kazoo_ips_metrics"] = text, content_type, token


@routes.on("GET", "/healthz", who=Who.ANYONE, replies=HealthSchema())
def healthz() -> Response:
    """Whether the process replies. This does not check CouchDB."""
    return envelope.success({"healthy": True})


@routes.on("GET", "/readyz", who=Who.ANYONE, replies=ReadinessSchema(), raises=(NotReady,))
def readyz() -> Response:
    """Whether the service can serve requests; 503 with the reasons if not."""
    reasons = services().health.problems()
    if reasons:
        raise NotReady(reasons)
    return envelope.success({"ready": True})


@routes.on(
    "GET",
    "/metrics",
    who=Who.ANYONE,
    replies=None,
    media=ANY,
    media_types=("text/plain",),
    raises=(InvalidCredentials,),
)
def metrics() -> Response:
    """The metrics of all workers, for Prometheus."""
    text, content_type, token = current_app.extensions["kazoo_ips_metrics"]
    if token and not hmac.compare_digest((g.auth_token or "").encode(), token.encode()):
        raise InvalidCredentials
    return Response(text(), content_type=content_type, headers={"Cache-Control": "no-store"})
