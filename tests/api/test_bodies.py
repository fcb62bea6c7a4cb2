"""Bodies as generated clients and spreadsheets send them: with a byte order mark, or gzipped."""

import gzip
import json
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from tests.api.replies import broken, failure, invalid, success

DATA = {"ip": "192.0.2.1", "zone": "us-east", "host": "proxy1.example.com"}
BODY = json.dumps({"data": DATA}).encode()
LIMIT = 8_000_000


def packed(body: bytes) -> bytes:
    """Compress a body without a timestamp, so that all processes collect the same tests."""
    return gzip.compress(body, mtime=0)


def put(api: TestApp, who: Any, body: bytes, coding: str | None, status: int, **more: str) -> Any:
    headers = {**who.headers, **more, **({"Content-Encoding": coding} if coding else {})}
    return api.request("/v2/ips", method="PUT", body=body, headers=headers, status=status)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"\xef\xbb\xbf" + BODY, None),
        (BODY, "identity"),
        (packed(BODY), "gzip"),
        (packed(BODY), "GZip "),
        (packed(BODY), "x-gzip"),
        (packed(b"\xef\xbb\xbf" + BODY), "gzip"),
        (packed(BODY[:20]) + packed(BODY[20:]), "gzip"),
    ],
)
def test_a_body_is_read_with_its_mark_and_its_coding(
    api: TestApp, pool: Any, operator: Any, body: bytes, coding: str | None
) -> None:
    reply = put(api, operator, body, coding, 201)
    assert success(reply, operator.token)["id"] == "192.0.2.1"


def test_the_same_request_is_the_same_however_it_is_compressed(
    api: TestApp, pool: Any, operator: Any
) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    first = put(api, operator, BODY, None, 201, **key)
    again = put(api, operator, gzip.compress(BODY, mtime=1), "gzip", 201, **key)
    assert again.json["data"] == first.json["data"]
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "zstd", "nonsense"])
def test_an_unknown_coding_is_415(api: TestApp, pool: Any, operator: Any, coding: str) -> None:
    reply = put(api, operator, BODY, coding, 415)
    data = failure(reply, operator.token, "unsupported_media_type")
    assert data == {"message": "unsupported media type"}
    assert reply.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (BODY, "the body is not gzip"),
        (packed(BODY)[:-9], "the body ends within its gzip data"),
        (packed(BODY)[:-8] + b"\0" * 8, "the body is not gzip"),
        (packed(BODY) + b"more", "the body is not gzip"),
    ],
)
def test_a_body_without_its_coding_is_400(
    api: TestApp, pool: Any, operator: Any, body: bytes, why: str
) -> None:
    reply = put(api, operator, body, "gzip", 400)
    assert invalid(reply, operator.token) == broken("json", "invalid", why, target="body")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_bomb_is_413(api: TestApp, pool: Any, operator: Any, parts: int) -> None:
    spaces = b" " * (LIMIT // parts - len(BODY))
    put(api, operator, gzip.compress(BODY) + gzip.compress(spaces) * parts, "gzip", 201)
    bomb = gzip.compress(BODY) + gzip.compress(b" " * LIMIT) * parts
    reply = put(api, operator, bomb, "gzip", 413)
    assert failure(reply, operator.token, "request_too_large")


def nested(levels: int) -> bytes:
    """Return a body with objects and lists nested that many levels deep."""
    inner = b'[{"a":' * ((levels - 2) // 2) + b"1" + b"}]" * ((levels - 2) // 2)
    return b'{"data":{"ip":%b,"zone":"z","host":"h"}}' % inner


@pytest.mark.parametrize("levels", [52, 100, 256, 500, 900, 1000, 100_000])
def test_a_body_that_is_nested_too_deeply_is_400(
    api: TestApp, pool: Any, operator: Any, levels: int
) -> None:
    reply = put(api, operator, nested(levels), None, 400)
    assert invalid(reply, operator.token) == broken(
        "json", "invalid", "nested too deeply", target="body"
    )


def test_a_value_of_a_deeply_nested_body_is_quoted(api: TestApp, pool: Any, operator: Any) -> None:
    errors = invalid(put(api, operator, nested(50), None, 400), operator.token)
    value = errors["ip"]["not_one_schema_valid"]["value"]
    assert json.dumps(value).count("[") == 24
