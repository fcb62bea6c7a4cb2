"""`/v2/openapi.json`, the OpenAPI description, and `/v2/docs`, a page that shows it.

The page is Swagger UI from the package flask-swagger-ui. The browser loads nothing from other
hosts.
"""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from flask import Flask, Response, current_app

from kazoo_ips.api import envelope, openapi
from kazoo_ips.api.files import file_reply
from kazoo_ips.api.route_descriptions import ANY, JSON, Who
from kazoo_ips.api.routes import Routes
from kazoo_ips.errors import BadIdentifier

routes = Routes("docs", __name__, url_prefix="/v2")

_OWN, _SWAGGER_UI = files(__name__), files("flask_swagger_ui") / "dist"
_ASSETS: dict[str, tuple[Traversable, str]] = {
    "start.js": (_OWN, "text/javascript"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI, "text/css"),
    "favicon-32x32.png": (_SWAGGER_UI, "image/png"),
}

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The page may run scripts of this service only, and may connect to this service only."""


@routes.on(
    "GET", "/openapi.json", who=Who.ANYONE, replies=None, operation_id="get_openapi_description"
)
def description() -> Response:
    """The OpenAPI 3.1 description of the API: this document."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return file_reply(_document(app), JSON)


@routes.on(
    "GET", "/docs", who=Who.ANYONE, replies=None, media="text/html", operation_id="get_docs_page"
)
def page() -> Response:
    """A page (Swagger UI) that shows this description and can send requests."""
    response = file_reply((_OWN / "page.html").read_bytes(), "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@routes.on(
    "GET",
    "/docs/<name>",
    who=Who.ANYONE,
    replies=None,
    media=ANY,
    media_types=tuple(sorted({media for _, media in _ASSETS.values()})),
    operation_id="get_docs_file",
    examples={"name": "start.js"},
)
def asset(name: str) -> Response:
    """A script, style sheet or image of that page."""
    if name not in _ASSETS:
        raise BadIdentifier(name)
    return file_reply(_read(name), _ASSETS[name][1])


@cache
def _document(app: Flask) -> bytes:
    return envelope.dump(openapi.describe(app))


@cache
def _read(name: str) -> bytes:
    return (_ASSETS[name][0] / name).read_bytes()
