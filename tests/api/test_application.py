"""The application matches requests with routes exactly as Flask does, in less time."""

import pytest
from flask import Flask, Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter
from werkzeug.routing.exceptions import WebsocketMismatch
from werkzeug.test import create_environ

from kazoo_ips.api.application import Application

FIELDS = ("server_name", "script_name", "subdomain", "url_scheme", "default_method", "query_args",
          "websocket")  # fmt: skip


def adapter(app: Flask, environ: dict[str, object]) -> MapAdapter:
    made = app.create_url_adapter(Request(dict(environ)))
    assert made is not None
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_HOST": "IPs.Example.com:8000"},
        {"HTTP_HOST": "bücher.example:80"},
        {"HTTP_HOST": "no host!"},
        {"HTTP_HOST": "[2001:db8::1]:8000"},
        {"SCRIPT_NAME": "/below", "wsgi.url_scheme": "https"},
        {"QUERY_STRING": "a=%C3%BC&b=\xc3\xbc", "REQUEST_METHOD": "DELETE"},
        {"PATH_INFO": "//v2///\xc3\xbc"},
        {"HTTP_CONNECTION": "upgrade", "HTTP_UPGRADE": "websocket"},
    ],
)
def test_the_adapter_is_that_of_flask(changes: dict[str, str]) -> None:
    environ = create_environ("/v2/about?x=1") | changes
    ours, theirs = (adapter(app("x"), environ) for app in (Application, Flask))
    assert {n: getattr(ours, n) for n in FIELDS} == {n: getattr(theirs, n) for n in FIELDS}
    paths = ["/" + each.path_info.lstrip("/") for each in (ours, theirs)]
    assert paths[0] == paths[1]


def test_a_host_that_is_no_name_is_refused_each_time() -> None:
    environ = create_environ() | {"HTTP_HOST": f"{'a' * 64}.example"}
    for _ in range(2):
        with pytest.raises(HTTPException):
            adapter(Application("x"), environ)


def test_a_web_socket_matches_no_route() -> None:
    app = Application("x", static_folder=None)
    app.add_url_rule("/v2/about", view_func=lambda: "", endpoint="about")
    upgrade = {"HTTP_CONNECTION": "upgrade", "HTTP_UPGRADE": "websocket"}
    with pytest.raises(WebsocketMismatch):
        adapter(app, create_environ("/v2/about") | upgrade).match()


def test_no_adapter_exists_outside_a_request() -> None:
    assert Application("x").create_url_adapter(None) is None
