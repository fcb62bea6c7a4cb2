"""The HTTP layer: routes, envelopes, schemas. It imports nothing of CouchDB."""

from collections.abc import Callable

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface

from kazoo_ips.api import (
    about,
    account_ips,
    client_address,
    cors,
    docs,
    envelope,
    errors,
    health,
    ips,
    kazoo_schemas,
    login,
    middleware,
    response_headers,
    routes,
)
from kazoo_ips.observability.metrics import CONTENT_TYPE, Metrics
from kazoo_ips.services import Services

MAX_BODY = 8_000_000
"""Bytes of a request's body: Crossbar's `max_upload_size`."""


class _NoSessions(SessionInterface):
    """Disables Flask's sessions: each request carries its token, so cookies need not be read."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the empty session, the same for all requests."""
        return self._empty

    def is_null_session(self, obj: object) -> bool:
        """Return True: no session is ever saved."""
        return True

    _empty = NullSession()


def init_app(  # noqa: PLR0913 - one for each collaborator
    app: Flask,
    services: Services,
    clock: Callable[[], float],
    metrics: Metrics,
    *,
    metrics_token: str = "",
    proxies: str = "",
) -> None:
    """Add the routes, error handlers and request hooks to the application.

    :param metrics_token: the bearer token that /metrics requires; none if empty
    :param proxies: the addresses and networks of trusted proxies
    """
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["address"] = routes.AddressConverter
    app.extensions["kazoo_ips"] = services
    app.session_interface = _NoSessions()
    wsgi = response_headers.add_headers(routes.keep_encoded_slashes(app.wsgi_app))
    app.wsgi_app = wsgi  # type: ignore[method-assign, assignment]
    errors.init_app(app)
    client_address.init_app(app, proxies)

    # One hook before and one after each request: Flask takes time for every hook.
    @app.before_request
    def receive() -> Response | None:
        envelope.set_request_id(clock)
        reply = cors.preflight()
        if reply is None:
            routes.read_request(app)
        return reply

    @app.after_request
    def finish(response: Response) -> Response:
        envelope.add_request_id(response)
        cors.add_headers(response)
        middleware.record_request()
        return response

    health.init_app(app, lambda: metrics.text(services.health), CONTENT_TYPE, metrics_token)
    for module in (ips, account_ips, login, about, health, kazoo_schemas, docs):
        app.register_blueprint(module.routes)
    middleware.init_app(app, metrics.count_request)
