"""HTTP in, HTTP out: routes, envelopes, schemas. Knows no CouchDB."""

from collections.abc import Callable

from flask import Flask

from kazoo_ips.api import about, account_ips, cors, envelope, errors, ips, login, routes
from kazoo_ips.services import Services

MAX_BODY = 8_000_000
"""Bytes of a request's body: Crossbar's `max_upload_size`."""


def init_app(app: Flask, services: Services, clock: Callable[[], float]) -> None:
    """Give the application its routes and everything around them."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["address"] = routes.AddressConverter
    app.extensions["kazoo_ips"] = services
    envelope.init_app(app, clock)
    errors.init_app(app)
    cors.init_app(app)
    routes.init_app(app)
    for module in (ips, account_ips, login, about):
        app.register_blueprint(module.routes)
