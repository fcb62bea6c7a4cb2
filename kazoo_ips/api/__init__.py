"""HTTP in, HTTP out: routes, envelopes, schemas. Knows no CouchDB."""

from collections.abc import Callable

from flask import Flask, Response

from kazoo_ips.api import (
    about,
    account_ips,
    cors,
    docs,
    envelope,
    errors,
    ips,
    kazoo_schemas,
    login,
    observed,
    routes,
    watch,
)
from kazoo_ips.metrics import CONTENT_TYPE, Metrics
from kazoo_ips.services import Services

MAX_BODY = 8_000_000
"""Bytes of a request's body: Crossbar's `max_upload_size`."""


def init_app(
    app: Flask,
    services: Services,
    clock: Callable[[], float],
    metrics: Metrics,
    metrics_token: str = "",
) -> None:
    """Give the application its routes and everything around them."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["address"] = routes.AddressConverter
    app.extensions["kazoo_ips"] = services
    app.wsgi_app = routes.keep_slashes(app.wsgi_app)  # type: ignore[method-assign, assignment]
    errors.init_app(app)

    # One hook before and one after: the framework looks at each for every request.
    @app.before_request
    def receive() -> Response | None:
        envelope.name_request(clock)
        reply = cors.preflight()
        if reply is None:
            routes.read(app)
        return reply

    @app.after_request
    def finish(response: Response) -> Response:
        envelope.say_name(response)
        cors.allow(response)
        observed.tell()
        return response

    watch.init_app(app, lambda: metrics.text(services.watch), CONTENT_TYPE, metrics_token)
    for module in (ips, account_ips, login, about, watch, kazoo_schemas, docs):
        app.register_blueprint(module.routes)
    observed.init_app(app, metrics.count_request)
