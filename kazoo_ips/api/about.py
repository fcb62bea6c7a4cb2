"""`/v2/about`: the version of the service."""

import platform

from flask import Response
from marshmallow import fields

from kazoo_ips.api import envelope
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes

routes = Routes("about", __name__, url_prefix="/v2")


class AboutSchema(ReplySchema):
    """The versions of the service and of Python."""

    version = fields.String(required=True)
    python_version = fields.String(required=True)


@routes.on("GET", "/about", who=Who.OPERATOR, replies=AboutSchema())
def about() -> Response:
    """The versions of the service and of Python."""
    return envelope.success(
        {"version": envelope.VERSION, "python_version": platform.python_version()}
    )
