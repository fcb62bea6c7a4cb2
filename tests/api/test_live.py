"""Tests that need a real server: unreadable requests, and streams."""

import json
import re
import socket
import time
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from kazoo_ips.app import ARCHIVER
from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.records import Records
from tests.api.couchdb import kazoo_document
from tests.openapi_check import check, checked, decoded


def exchange(
    live: str, sent: bytes, *, described: bool = True
) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, and read until the server closes the connection.

    :param described: whether to check the reply against the OpenAPI description
    """
    parts = urlsplit(live)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as client:
        client.sendall(sent)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    status = int(first.split()[1])
    if described:
        method, target = re.match(rb"(\S+) ([^ ?]*)", sent).groups()  # type: ignore[union-attr]
        check(method.decode(), decoded(target.decode()), status, headers, body)
    return status, headers, body


GARBAGE = {
    "no request line": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "half a request line": (b"GET\r\n\r\n", 400),
    "no HTTP": (b"GET /v2/ips SPDY/3\r\n\r\n", 400),
    "a bad header": (b"GET /v2/ips HTTP/1.1\r\nHost x\r\n\r\n", 400),
    "a bad header name": (b"GET /v2/ips HTTP/1.1\r\nHo st: x\r\n\r\n", 400),
    "a line too long": (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    "a header too long": (b"GET /v2/ips HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "too many headers": (b"GET /v2/ips HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    "two lengths": (
        b"POST /v2/ips HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        400,
    ),
    "a length that is none": (
        b"POST /v2/ips HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    "an unknown transfer coding": (
        b"POST /v2/ips HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n",
        None,
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_an_unreadable_request_gets_an_envelope(live: str, name: str) -> None:
    sent, wanted = GARBAGE[name]
    status, headers, body = exchange(live, sent, described=False)
    assert 400 <= status < 600
    if wanted:
        assert status in (wanted, 400)
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(body))
    envelope = json.loads(body)
    assert envelope.keys() == {
        "data", "status", "error", "message", "request_id", "node", "timestamp", "version",
    }  # fmt: skip
    assert envelope["status"] == "error"
    assert envelope["error"] == str(status)
    assert envelope["data"].keys() == {"message"}
    assert re.fullmatch("[a-z_]+", envelope["message"])
    assert envelope["request_id"] == headers["X-Request-ID"]
    assert envelope["version"] == version("kazoo_ips")


CHUNKED = (
    b"POST /v2/accounts/%s/ips HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%s"
)


def chunked(body: bytes, who: Any) -> bytes:
    return CHUNKED % (who.id.encode(), who.token.encode(), body)


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n\r\n", b"2\r\n{}xx\r\n0\r\n\r\n"]
)
def test_a_bad_chunk_is_400(live: str, alice: Any, body: bytes) -> None:
    status, headers, reply = exchange(live, chunked(body, alice))
    assert status == 400
    assert headers["Content-Type"] == "application/json"
    assert json.loads(reply)["error"] == "400"


def test_an_incomplete_body_changes_nothing(live: str, load: Any, alice: Any) -> None:
    load(kazoo_document("192.0.2.1"))
    sent = chunked(b'21\r\n{"data":{"ips":["192.0.2.1"]}}', alice)
    parts = urlsplit(live)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in client.recv(65536)
    url = f"{live}/v2/accounts/{alice.id}/ips"
    left = urllib3.request("GET", url, headers=alice.headers).json()["data"]
    assert [line["ip"] for line in left] == ["192.0.2.1"]


def test_a_chunked_body_is_read(live: str, pool: Any, alice: Any) -> None:
    status, _, reply = exchange(live, chunked(b'9\r\n{"data":{\r\n2\r\n}}\r\n0\r\n\r\n', alice))
    assert status == 400
    assert json.loads(reply)["data"].keys() == {"ips"}


def test_a_chunked_body_of_more_than_8_000_000_bytes_is_413(live: str, alice: Any) -> None:
    big = b'{"data":{"x":"' + b"x" * 8_000_000 + b'"}}'
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(big), big)
    status, headers, reply = exchange(live, chunked(sent, alice))
    assert status == 413
    assert headers["Content-Type"] == "application/json"
    assert json.loads(reply)["message"] == "request_too_large"


def request(live: str, method: str, path: str, token: str, *more: str) -> Any:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"X-Auth-Token: {token}", "Connection: close"]
    return exchange(live, "\r\n".join([*lines, *more, "", ""]).encode())


def test_an_encoded_colon_in_a_path_is_a_colon(live: str, load: Any, alice: Any) -> None:
    load(kazoo_document("2001:db8::1"))
    for segment in ("2001%3Adb8%3A%3A1", "2001%3adb8::1", "2001:DB8::1"):
        path = f"/v2/accounts/{alice.id}/ips/{segment}"
        status, headers, body = request(live, "GET", path, alice.token)
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert json.loads(body)["data"]["id"] == "2001:db8::1"


def test_an_encoded_slash_belongs_to_its_segment(live: str, pool: Any, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.0%2F24"
    status, _, body = request(live, "GET", path, alice.token)
    assert status == 404
    assert json.loads(body)["message"] == "bad_identifier"


def test_a_streamed_list_is_one_envelope(live: str, load: Any, alice: Any) -> None:
    load(*(kazoo_document(f"192.0.2.{n}") for n in range(1, 4)))
    url = f"{live}/v2/accounts/{alice.id}/ips?paginate=false"
    reply = checked("GET", urllib3.request("GET", url, headers=alice.headers))
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert [line["ip"] for line in reply.json()["data"]] == [f"192.0.2.{n}" for n in range(1, 4)]
    assert reply.json()["request_id"] == reply.headers["X-Request-ID"]


def test_a_reply_to_head_has_no_body(live: str, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    status, headers, body = request(live, "HEAD", path, alice.token)
    assert (status, body) == (200, b"")
    assert headers["ETag"] == request(live, "GET", path, alice.token)[1]["ETag"]


@pytest.mark.parametrize("method", ["TRACE", "COPY", "PROPFIND", "NONSENSE"])
def test_an_unknown_method_is_405(live: str, alice: Any, method: str) -> None:
    status, headers, body = request(live, method, f"/v2/accounts/{alice.id}/ips", alice.token)
    assert status == 405
    assert json.loads(body)["message"] == "invalid_method"
    assert headers["Allow"] == "DELETE, GET, HEAD, POST, PUT"


def test_a_server_that_outlives_a_test_runs_no_background_work(live: str, couch: Couch) -> None:
    """Background work would repair the damage that later tests cause on purpose."""
    assert urllib3.request("GET", f"{live}/healthz").status == 200
    time.sleep(2.5)  # the background work of a process takes its leases a second after its start
    held = [c for name in ("healing", ARCHIVER) if (c := Checkpoints(Records(couch)).find(name))]
    assert [c.holder for c in held if c.is_held_by_another(c.until - 1)] == []
