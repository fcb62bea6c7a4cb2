"""Checks the members that all replies have, so that tests only check `data`."""

import json
import re
from importlib.metadata import version
from typing import Any

from webtest import TestResponse

TestResponse.__test__ = False  # a class of webtest's, not a test

VERSION = version("kazoo_ips")
ALWAYS = {"data", "status", "request_id", "node", "timestamp", "version"}
IP = {"type": "dedicated_ip", "zone": "us-east", "host": "proxy1.example.com"}


def success(reply: TestResponse, token: str | None, **members: Any) -> Any:
    """Check a success, and return its `data`.

    :param token: the expected `auth_token`; None if the reply must not have it
    :param members: further expected members, for example those of a page
    """
    body = _envelope(reply, token, {"revision", *members})
    assert body["status"] == "success"
    assert {name: body[name] for name in members} == members
    assert reply.headers["ETag"] == f'"{body["revision"]}"'
    return body["data"]


def page(reply: TestResponse, token: str | None, **members: Any) -> Any:
    """Check a page of a list, and return its `data`.

    :param members: expected members, if the list does not fit on the page
    """
    return success(reply, token, page_size=len(reply.json["data"]), **members)


def streamed(reply: TestResponse, token: str | None) -> Any:
    """Check a list that was streamed, and return its `data`. It has no ETag."""
    body = _envelope(reply, token, {"revision"})
    assert body["status"] == "success"
    assert re.fullmatch("[0-9a-f]{32}", body["revision"])
    return body["data"]


def failure(reply: TestResponse, token: str | None, message: str) -> Any:
    """Check a failure with this message, and return its `data`."""
    body = _envelope(reply, token, {"error", "message"})
    assert body["status"] == "error"
    assert body["error"] == str(reply.status_code)
    assert body["message"] == message
    assert "ETag" not in reply.headers
    return body["data"]


def invalid(reply: TestResponse, token: str | None) -> Any:
    """Check a 400, and return the broken rules, by path."""
    assert reply.status_code == 400
    return failure(reply, token, "validation error")


def broken(path: str, rule: str, message: str, **more: Any) -> dict[str, Any]:
    """One broken rule as Crossbar reports it."""
    return {path: {rule: {"message": message, **more}}}


def required(field: str) -> dict[str, Any]:
    """The error of a missing field."""
    return broken(field, "required", "Field is required but missing", value=field)


def no_address(path: str, value: Any) -> dict[str, Any]:
    """The error of a value that is not an address."""
    return broken(path, "not_one_schema_valid", "failed to validate", value=value)


def wrong_type(path: str, target: str, value: Any) -> dict[str, Any]:
    """The error of a value of the wrong type."""
    message = f"Value did not match type(s): {target}"
    return broken(path, "type", message, target=target, value=value)


def _envelope(reply: TestResponse, token: str | None, more: set[str]) -> dict[str, Any]:
    assert reply.headers.getall("Content-Type") == ["application/json"]
    body: dict[str, Any] = json.loads(reply.body)
    assert body.keys() == ALWAYS | more | ({"auth_token"} if token else set())
    assert body.get("auth_token") == token
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert re.fullmatch(r"[\w-]{22}", body["node"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["version"] == VERSION
    return body
