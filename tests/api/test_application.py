"""The application does exactly what Flask does, in less time."""

from collections.abc import Callable

import pytest
from flask import Blueprint, Flask, Request, appcontext_tearing_down, request_tearing_down
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


def replies_and_hooks(kind: type[Flask], registered: set[str]) -> tuple[list[bytes], list[str]]:
    """Return the replies to two requests, and which hooks were called for them."""
    app, pages, called = kind("x", static_folder=None), Blueprint("pages", "x"), list[str]()

    def hook(name: str, reply: str | None = None) -> Callable[..., str | None]:
        def call(*_: object, **__: object) -> str | None:
            called.append(name)
            return reply

        return call

    pages.add_url_rule("/page", view_func=lambda: "page", endpoint="page")
    app.add_url_rule("/other", view_func=lambda: "other", endpoint="other")
    if "application" in registered:
        app.before_request(hook("before"))
        app.teardown_request(hook("teardown"))  # type: ignore[arg-type]
        app.teardown_appcontext(hook("teardown of the context"))  # type: ignore[arg-type]
    if "blueprint" in registered:
        pages.before_request(hook("before a page"))
        pages.teardown_request(hook("teardown of a page"))  # type: ignore[arg-type]
    if "path" in registered:
        pages.url_value_preprocessor(hook("path of a page"))  # type: ignore[arg-type]
    if "reply" in registered:
        app.before_request(hook("first", "replied"))
        app.before_request(hook("never"))
    app.register_blueprint(pages)
    signal = hook("signal")
    if "signal" in registered:
        request_tearing_down.connect(signal, app)
        appcontext_tearing_down.connect(signal, app)
    client = app.test_client()
    return [client.get(path).data for path in ("/page", "/other")], called


@pytest.mark.parametrize(
    "registered",
    [
        set(),
        {"application"},
        {"blueprint"},
        {"application", "blueprint"},
        {"path"},
        {"reply"},
        {"signal"},
        {"application", "reply", "signal"},
    ],
)
def test_the_hooks_are_called_as_by_flask(registered: set[str]) -> None:
    replies, called = replies_and_hooks(Application, registered)
    assert (replies, called) == replies_and_hooks(Flask, registered)
    assert bool(called) == bool(registered)
