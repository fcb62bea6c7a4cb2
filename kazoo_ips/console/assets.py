"""The files of the pages: styles, scripts, the icon. The browser loads nothing from elsewhere."""

import hashlib
from functools import cache
from importlib.resources import files

from flask import Response
from werkzeug.exceptions import NotFound

from kazoo_ips.api.files import file_reply
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.console.pages import pages

_FOLDER = files(__package__) / "static"
MEDIA = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}
"""The media type of each file."""


@pages.on("GET", "/static/<name>", who=Who.ANYONE)
def asset(name: str) -> Response:
    """A file of the pages. Its URL changes with its content, so browsers may keep it."""
    if name not in MEDIA:
        raise NotFound
    return file_reply(_read(name), MEDIA[name], "public, max-age=31536000, immutable")


@pages.app_template_global()
def asset_url(name: str) -> str:
    """Return the URL of a file, with a digest of its content."""
    return f"{pages.url_prefix}/static/{name}?v={_digest(name)}"


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:12]
