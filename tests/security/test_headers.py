"""Security headers: those that every reply has, and those that no reply has."""

import re
from typing import Any

from webtest import TestApp

from kazoo_ips.api import middleware
from tests.security.clients import exchange

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
REFUSED = b"GET /v2/ips HTTP/1.1\r\nHo st: x\r\n\r\n"
PLAIN = b"GET /v2/ips HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_every_reply_has_each_security_header_once(api: TestApp, load: Any, alice: Any) -> None:
    login = {"data": {"api_key": alice.account.api_key}}
    path = f"/v2/accounts/{alice.id}/ips"
    listed = api.get(path, headers=alice.headers, status=200)
    tag = {"If-None-Match": listed.headers["ETag"]}
    for reply in (
        listed,
        api.get(path, headers={**alice.headers, **tag}, status=304),
        api.get(f"{path}?paginate=false", headers=alice.headers, status=200),
        api.get(path, headers={**alice.headers, "Accept": "text/csv"}, status=200),
        api.put_json("/v2/api_auth", login, status=201),
        api.put_json("/v2/api_auth", {"data": {"api_key": "0" * 64}}, status=401),
        api.get("/v2/ips", headers=alice.headers, status=403),
        api.get("/v2/nothing", status=404),
        api.delete("/v2/about", status=405),
    ):
        for name, value in SAFE.items():
            assert reply.headers.getall(name) == [value]


def test_replies_to_unreadable_requests_have_the_headers_too(live: str) -> None:
    head = head_of(live, REFUSED)
    assert all(f"\r\n{name}: {value}\r\n" in head for name, value in SAFE.items())


def test_no_header_contains_a_version(live: str) -> None:
    for sent in (PLAIN, REFUSED):
        servers = re.findall(r"(?i)\r\n(server|via|x-powered-by): (.*)\r\n", head_of(live, sent))
        assert all(not re.search(r"\d", value) for _, value in servers)


def test_cors_allows_no_credentials(api: TestApp, alice: Any) -> None:
    for origin in ("https://ui.example.com", "null"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for reply in (
            api.options(f"/v2/accounts/{alice.id}/ips", headers=headers, status=200),
            api.get("/v2/about", headers={**alice.headers, "Origin": origin}, status=403),
        ):
            assert "Access-Control-Allow-Credentials" not in reply.headers
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert "Set-Cookie" not in reply.headers


def head_of(live: str, sent: bytes) -> str:
    """Send a request and return the head of the reply."""
    return exchange(live, sent).partition(b"\r\n\r\n")[0].decode("latin-1") + "\r\n"


def test_a_page_keeps_a_policy_of_its_own() -> None:
    own = ("Content-Security-Policy", "default-src 'self'")
    sent_headers: list[tuple[str, str]] = []

    def page(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [own])
        return [b""]

    wsgi = middleware.wrap(page, lambda *_: None)  # type: ignore[arg-type]
    environ = {"REQUEST_METHOD": "GET"}
    wsgi(environ, lambda status, headers, exc_info=None: sent_headers.extend(headers)).close()  # type: ignore
    assert [value for name, value in sent_headers if name == own[0]] == [own[1]]
    assert {name for name, _ in sent_headers} == {*SAFE, "X-Request-ID"}
