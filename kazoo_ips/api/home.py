"""`/` and `/v2`: links to the documentation.

A browser gets a page with the links. Every other client gets them in the envelope.
"""

from flask import Response, g
from marshmallow import fields

from kazoo_ips.api import envelope
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import HTML, Who
from kazoo_ips.api.routes import Routes

routes = Routes("home", __name__)

_LINKS = {
    "console": ("/console/login", "web pages for the operator and for accounts"),
    "docs": ("/v2/docs", "all requests and replies, on a page that can send requests"),
    "openapi": ("/v2/openapi.json", "the same as an OpenAPI 3.1 document"),
    "schemas": ("/v2/schemas", "the JSON schemas of request data"),
    "health": ("/readyz", "whether the service can serve requests"),
}
"""The path of each page, and its content."""


class LinksSchema(ReplySchema):
    """The paths of the documentation."""

    console = fields.String(required=True)
    docs = fields.String(required=True)
    openapi = fields.String(required=True)
    schemas = fields.String(required=True)
    health = fields.String(required=True)


@routes.on("GET", "/", who=Who.ANYONE, replies=LinksSchema(), page=True, operation_id="get_links")
def home() -> Response:
    """Links to the documentation."""
    if g.media == HTML:
        return Response(_page(), content_type="text/html; charset=utf-8")
    return envelope.success({name: path for name, (path, _) in _LINKS.items()})


@routes.on(
    "GET", "/v2", who=Who.ANYONE, replies=LinksSchema(), page=True, operation_id="get_links_of_v2"
)
def home_of_version() -> Response:
    """Links to the documentation."""
    return home()


def _page() -> str:
    links = "".join(
        f'<li><a href="{path}">{path}</a>: {text}</li>\n' for path, text in _LINKS.values()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>kazoo_ips</title>\n<h1>kazoo_ips {envelope.VERSION}</h1>\n"
        f"<p>Kazoo's dedicated IP addresses.</p>\n<ul>\n{links}</ul>\n</html>\n"
    )
