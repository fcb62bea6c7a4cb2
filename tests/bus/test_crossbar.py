"""The client of Crossbar against a server that fails in every way."""

import json
import time

import pytest

from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.outbound.crossbar import Crossbar
from tests.bus import crossbar as answers
from tests.bus.crossbar import Answer, FakeCrossbar, answer
from tests.bus.events import A


def test_the_request_is_the_one_of_crossbar_s_api(server: FakeCrossbar) -> None:
    assert Crossbar(server.url).reconcile(A, "the token") == 200
    [request] = server.requests
    assert request.method == "POST"
    assert request.path == f"/v2/accounts/{A}/services/reconciliation"
    assert request.headers["x-auth-token"] == "the token"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"data": {}}


def test_a_path_in_front_of_the_api_is_kept(server: FakeCrossbar) -> None:
    Crossbar(f"{server.url}/crossbar/").reconcile(A, "t")
    assert server.requests[0].path == f"/crossbar/v2/accounts/{A}/services/reconciliation"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (answer(201), 200),
        (answer(200, b"<html>welcome</html>"), 0),
        (answer(200, b""), 0),
        (answer(204, b""), 0),
        (answer(200, b'{"status":"error"}'), 0),
        (answer(200, b'["success"]'), 0),
        (answer(200, b"\xff\xfe{}"), 0),
        (answer(301, b"", "Location: http://127.0.0.1:1/"), 301),
        (answer(401, b"{}"), 401),
        (answer(404, b"{}"), 404),
        (answer(500, b"crash"), 500),
        (answer(503, b""), 503),
    ],
)
def test_the_status_of_a_response(server: FakeCrossbar, reply: Answer, status: int) -> None:
    server.default = reply
    assert Crossbar(server.url).reconcile(A, "t") == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [answers.cut, answers.hang_up, answers.drip, answers.drip_body, answers.silence,
     answers.garbage],
    ids=lambda reply: reply.__name__,
)  # fmt: skip
def test_a_response_that_is_not_complete(server: FakeCrossbar, reply: Answer) -> None:
    server.default = reply
    start = time.monotonic()
    with pytest.raises(ReceiverUnavailable, match=r"^Crossbar: ") as raised:
        Crossbar(server.url, timeout=0.5).reconcile(A, "the token")
    assert time.monotonic() - start < 2
    assert "the token" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_body_is_read_up_to_a_limit(server: FakeCrossbar) -> None:
    server.default = answers.endless
    start = time.monotonic()
    assert Crossbar(server.url, timeout=5).reconcile(A, "t") == 0
    assert time.monotonic() - start < 4


def test_a_refused_connection_is_a_failure(server: FakeCrossbar) -> None:
    server.stop_listening()
    with pytest.raises(ReceiverUnavailable, match="Connection refused"):
        Crossbar(server.url).reconcile(A, "t")


def test_a_server_without_tls_is_refused_by_https(server: FakeCrossbar) -> None:
    with pytest.raises(ReceiverUnavailable, match="tls"):
        Crossbar(server.url.replace("http", "https"), timeout=2).reconcile(A, "t")
    assert server.requests == [] or not server.requests[0].headers.get("x-auth-token")
