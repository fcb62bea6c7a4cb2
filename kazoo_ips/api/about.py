"""`/v2/about`: which version runs here."""

import platform

from flask import Response
from marshmallow import Schema, fields

from kazoo_ips.api import envelope
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes

routes = Routes("about", __name__, url_prefix="/v2")


class AboutSchema(Schema):
    """What runs here."""

    version = fields.String(required=True)
    python_version = fields.String(required=True)


@routes.on("GET", "/about", who=Who.OPERATOR, replies=AboutSchema())
def about() -> Response:
    """The version of the service and of what it runs on."""
    return envelope.success(
        {"version": envelope.VERSION, "python_version": platform.python_version()}
    )
