"""Checks every reply against the OpenAPI description; a difference fails the test."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs
import urllib3
from webtest import TestApp, TestResponse

from kazoo_ips import app as composition
from kazoo_ips.api import openapi
from kazoo_ips.config import Settings

TestApp.__test__ = False  # classes of webtest's, not tests
TestResponse.__test__ = False

NOWHERE = {404: "ErrorNotFound", 405: "ErrorInvalidMethod"}
"""Statuses of replies to requests that are no operation: unknown paths and methods."""

OPEN = {"BrokenRule"}
"""Replies whose members depend on their content."""


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI description of the application."""
    return openapi.describe(composition.create_app(Settings()))


@cache
def closed() -> dict[str, Any]:
    """Return the description without permission for members that it does not name.

    The published description permits them in replies, because a later release may add members.
    """
    made = copy.deepcopy(document())
    requests = {name for name, _ in _reachable(made, "requestBody")}
    for name, schema in made["components"]["schemas"].items():
        if "properties" in schema and name not in requests and name not in OPEN:
            schema["additionalProperties"] = False
    return made


def _reachable(description: dict[str, Any], member: str) -> Iterator[tuple[str, Any]]:
    """Yield the schemas that the operations use in one of their members, by name."""
    operations = [each for item in description["paths"].values() for each in item.values()]
    rest = [each[member] for each in operations if member in each]
    seen: set[str] = set()
    while rest:
        for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(rest.pop())):
            if name not in seen:
                seen.add(name)
                rest.append(description["components"]["schemas"][name])
                yield name, rest[-1]


def check(
    method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[str, str] | None:
    """Check that a reply agrees with the description.

    :param method: the method of the request; of a tunnelled request, that of the operation
    :param path: the decoded path
    :returns: path and method of the operation; None if the request is no operation
    :raises AssertionError: the reply differs from the description
    """
    where = described_path(path)
    operation = where and document()["paths"][where].get(method.lower().replace("head", "get"))
    if operation is None:
        assert (status, body) == (200, b"") if method == "OPTIONS" and status == 200 else (
            status in NOWHERE
        ), f"{method} {path} is not described, and replies {status}"  # fmt: skip
        if method != "HEAD" and status in NOWHERE:
            fits(f"#/components/schemas/{NOWHERE[status]}", body)
        return None
    request = f"{method} {where} {status}"
    assert str(status) in operation["responses"], f"{request} is not described"
    place = f"#/paths/{escaped(where)}/{method.lower().replace('head', 'get')}/responses/{status}"
    response = operation["responses"][str(status)]
    if "$ref" in response:
        place = response["$ref"]
        response = document()["components"]["responses"][place.rpartition("/")[2]]
    given = {name.lower() for name in headers}
    for name, header in response["headers"].items():
        assert not header["required"] or name.lower() in given, f"{request} lacks {name}"
    media = {name.lower(): value for name, value in headers.items()}.get("content-type", "")
    kind = media.partition(";")[0]
    if "content" not in response or method == "HEAD":
        assert body == b"", f"{request} has a body"
    elif "*/*" not in response["content"]:
        assert kind in response["content"], f"{request} has the content type {kind}"
        if kind == "application/json":
            fits(f"{place}/content/{escaped(kind)}/schema", body)
    return where, method


def decoded(path: str) -> str:
    """Return the decoded path of a request to a live server. An encoded slash stays encoded."""
    return unquote(re.sub("%2f", "%252F", path, flags=re.IGNORECASE))


def checked(method: str, reply: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    """Return a live server's reply after checking it against the description."""
    check(method, decoded(urlsplit(reply.url or "").path), reply.status, reply.headers, reply.data)
    return reply


def fits(pointer: str, body: bytes) -> None:
    """Return whether a body agrees with a schema of the description, and has no other members."""
    problems = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator(pointer).iter_errors(json.loads(body))
    ]
    assert not problems, f"{pointer}: {problems[:3]} in {body[:500]!r}"


@cache
def validator(pointer: str) -> jsonschema_rs.Draft202012Validator:
    """Return the compiled schema at a place of the description."""
    schema = {"$ref": pointer, **closed()}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


@cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of the described paths. Fixed names come before parameters."""
    paths = sorted(document()["paths"], key=lambda each: (each.count("{"), each))
    return [
        (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(each)) + "/?"), each) for each in paths
    ]


def described_path(path: str) -> str | None:
    """Return the described path that matches a request's path."""
    if not path.strip("/"):  # several slashes count as one
        return "/"
    return next((each for pattern, each in patterns() if pattern.fullmatch(path)), None)


def escaped(text: str) -> str:
    """Return a text escaped as a part of a JSON pointer in a URI."""
    return text.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


class CheckedApp(TestApp):
    """WebTest's application, which checks each reply against the description."""

    def do_request(self, req: Any, status: Any = None, expect_errors: Any = None) -> Any:
        """Send a request, and check the reply."""
        reply = super().do_request(req, status, expect_errors)
        # A tunnelled verb has replaced the method by now.
        path = req.environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        check(req.method, path, reply.status_int, reply.headers, reply.body)
        return reply
