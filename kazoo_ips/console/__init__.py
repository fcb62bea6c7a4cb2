"""The console: web pages for the operator and for accounts, at `/console`.

The pages are rendered on the server, and every page works without JavaScript. They call the same
services as the API, and obey the same rules about who may do what.
"""

from flask import Flask

from kazoo_ips.console import (  # noqa: F401 - each registers its pages
    accounts,
    addresses,
    assets,
    events,
    imports,
    jobs,
    limits,
    login,
    overview,
    reservations,
    search,
    states,
    status,
    webhooks,
    zones,
)
from kazoo_ips.console.pages import pages


def init_app(app: Flask) -> None:
    """Add the pages to the application, after the API."""
    app.register_blueprint(pages)
