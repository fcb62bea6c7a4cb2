"""`/v2/about`: which version runs here."""

import platform

from flask import Response

from kazoo_ips.api import envelope
from kazoo_ips.api.routes import Routes, Who

routes = Routes("about", __name__, url_prefix="/v2")


@routes.on("GET", "/about", who=Who.OPERATOR)
def about() -> Response:
    """The version of the service and of what it runs on."""
    return envelope.success(
        {"version": envelope.VERSION, "python_version": platform.python_version()}
    )
