"""CORS: calls of the API from pages of other origins."""

from collections.abc import Callable

from webtest import TestApp

from kazoo_ips.model import DedicatedIP
from tests.conftest import Member

PAGE = {"Origin": "https://ui.example.com"}


def test_a_preflight_request_is_answered(api: TestApp, alice: Member) -> None:
    preflight = {**PAGE, "Access-Control-Request-Method": "POST"}
    reply = api.options(f"/v2/accounts/{alice.id}/ips", headers=preflight, status=200)
    assert reply.body == b""
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert reply.headers["Access-Control-Allow-Methods"] == "OPTIONS, DELETE, GET, HEAD, POST, PUT"
    assert "x-auth-token" in reply.headers["Access-Control-Allow-Headers"]
    assert reply.headers["Access-Control-Max-Age"] == "86400"


def test_a_page_may_send_every_header_that_the_service_reads(api: TestApp) -> None:
    preflight = {**PAGE, "Access-Control-Request-Method": "POST"}
    reply = api.options("/v2/ips", headers=preflight, status=200)
    allowed = set(reply.headers["Access-Control-Allow-Headers"].split(", "))
    # Browsers send Accept and Accept-Encoding without asking.
    assert allowed >= {
        "authorization", "content-encoding", "content-type", "idempotency-key", "if-match",
        "if-none-match", "traceparent", "tracestate", "x-auth-token", "x-request-id",
    }  # fmt: skip


def test_a_page_sees_the_404_of_an_unknown_path(api: TestApp) -> None:
    preflight = {**PAGE, "Access-Control-Request-Method": "PUT"}
    reply = api.options("/v2/nothing", headers=preflight, status=200)
    assert "PUT" in reply.headers["Access-Control-Allow-Methods"].split(", ")
    reply = api.put("/v2/nothing", headers=PAGE, status=404)
    assert reply.headers["Access-Control-Allow-Origin"] == "*"


def test_options_without_the_preflight_header_is_405(api: TestApp, alice: Member) -> None:
    api.options(f"/v2/accounts/{alice.id}/ips", status=405)


def test_a_page_may_read_replies_and_errors(
    api: TestApp, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    path = f"/v2/accounts/{alice.id}/ips"
    for reply in (
        api.get(path, headers={**alice.headers, **PAGE}),
        api.get(path, headers=PAGE, status=401),
    ):
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert "x-request-id" in reply.headers["Access-Control-Expose-Headers"]


def test_a_request_without_an_origin_gets_no_cors_headers(api: TestApp, alice: Member) -> None:
    reply = api.get(f"/v2/accounts/{alice.id}/ips", headers=alice.headers)
    assert not [name for name in reply.headers if name.startswith("Access-Control")]
