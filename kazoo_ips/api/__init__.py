"""The HTTP layer: routes, envelopes, schemas. It imports nothing of CouchDB."""

from collections.abc import Callable

from flask import Flask

from kazoo_ips.api import (
    about,
    account_ips,
    accounts,
    changes,
    client_address,
    docs,
    errors,
    exports,
    health,
    history,
    home,
    ips,
    jobs,
    kazoo_schemas,
    limits,
    login,
    middleware,
    places,
    reservations,
    routes,
    status,
    summaries,
    usage,
    webhooks,
)
from kazoo_ips.observability.metrics import CONTENT_TYPE, Metrics
from kazoo_ips.services import Services

MAX_BODY = 8_000_000
"""Bytes of a request's body: Crossbar's `max_upload_size`."""


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
    app.url_map.converters["webhook"] = routes.WebhookConverter
    app.extensions["kazoo_ips"] = services
    errors.init_app(app)
    client_address.init_app(app, proxies)
    health.init_app(app, lambda: metrics.text(services.health), CONTENT_TYPE, metrics_token)
    for module in (
        ips, places, accounts, account_ips, summaries, usage, exports, status, limits,
        reservations, history, changes, jobs, webhooks, login, about, health, home,
        kazoo_schemas, docs,
    ):  # fmt: skip
        app.register_blueprint(module.routes)
    middleware.init_app(app, clock, metrics.count_request)
