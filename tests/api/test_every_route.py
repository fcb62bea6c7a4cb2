"""What all routes have in common: HEAD, replies compressed with gzip, preflight requests."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from webtest import TestApp

from kazoo_ips.api import content_coding
from tests.api.every_route import APP, ROUTES, operation, url
from tests.conftest import Member

READS = [pytest.param(*route, id=route[1]) for route in ROUTES if route[0] == "GET"]
PATHS = sorted({path for _, path in ROUTES})
VARYING = {"Content-Length", "Content-Encoding"}


def headers_of(reply: Any) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name not in VARYING}


def fetch(api: TestApp, method: str, path: str, operator: Member, **headers: str) -> Any:
    """Return the reply to a request of the operator, for the operator's own account."""
    return api.request(
        url(ROUTES["GET", path], operator.id),
        method=method,
        headers={**operator.headers, "X-Request-ID": "same", **headers},
        expect_errors=True,
    )


def between_equals(send: Callable[[str], Any], usual: str, other: str) -> tuple[Any, Any]:
    """Send a request in two forms, until the replies to the first form before and after are equal.

    Some replies change every second, for example that about the state of the service.
    """
    for _ in range(5):
        before, replied, after = send(usual), send(other), send(usual)
        if before.headers.get("ETag") == after.headers.get("ETag"):
            break
    return before, replied


@pytest.mark.parametrize(("method", "path"), READS)
def test_every_read_has_head_with_the_headers_of_the_get(
    api: TestApp, pool: Any, operator: Member, method: str, path: str
) -> None:
    got, head = between_equals(lambda each: fetch(api, each, path, operator), method, "HEAD")
    assert (head.status_int, head.body) == (got.status_int, b"")
    assert got.body or "ndjson" in got.headers["Content-Type"]  # a year without events
    assert headers_of(head) == headers_of(got)


@pytest.mark.parametrize(("method", "path"), READS)
def test_every_reply_that_is_long_enough_is_compressed_when_asked(
    wsgi: Flask, pool: Any, operator: Member, monkeypatch: pytest.MonkeyPatch,
    method: str, path: str,
) -> None:  # fmt: skip
    client, where = wsgi.test_client(), url(ROUTES[method, path], operator.id)
    monkeypatch.setattr(content_coding, "MIN_LENGTH", 1)

    def send(coding: str) -> Any:
        return client.get(where, headers={**operator.headers, "Accept-Encoding": coding})

    plain, packed = between_equals(send, "identity", "gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert packed.headers.get("ETag") == plain.headers.get("ETag")
    unpacked = gzip.decompress(packed.data)
    if plain.is_json and "data" in plain.json:
        assert json.loads(unpacked)["data"] == plain.json["data"]
    else:
        assert unpacked[:100] == plain.data[:100]


@pytest.mark.parametrize("path", PATHS)
def test_the_preflight_of_every_path_names_its_methods(
    api: TestApp, operator: Member, path: str
) -> None:
    methods = {method for method, each in ROUTES if each == path}
    for method in methods:
        reply = api.options(
            url(ROUTES[method, path], operator.id),
            headers={
                "Origin": "https://ui.example.com",
                "Access-Control-Request-Method": method,
            },
            status=200,
        )
        allowed = set(reply.headers["Access-Control-Allow-Methods"].split(", "))
        head = {"HEAD"} if "GET" in methods else set()
        assert allowed == methods | head | {"OPTIONS"}
        assert reply.headers["Access-Control-Allow-Origin"] == "*"


def test_the_values_of_path_parameters_reach_the_routes_that_are_meant() -> None:
    adapter = APP.url_map.bind("localhost")
    for (method, path), rule in ROUTES.items():
        found, _ = adapter.match(url(rule, "a" * 32), method=method)
        assert found == rule.endpoint, path
        assert operation(rule).method == method
