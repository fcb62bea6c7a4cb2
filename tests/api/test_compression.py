"""HEAD, and replies compressed with gzip."""

import gzip
import zlib
from typing import Any

import pytest
import urllib3
from webtest import TestApp

from tests.conftest import Member

GZIP = {"Accept-Encoding": "gzip"}
MANY = [f"192.0.2.{n}" for n in range(60)]


@pytest.fixture
def many(add: Any) -> None:
    """So many addresses that their list has more than 1 kB."""
    for address in MANY:
        add(address)


@pytest.mark.parametrize(
    "query", ["", "?page_size=5", "?paginate=false", "?quantity=1200", "?start_key=nonsense"]
)
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_a_head_request_gets_the_headers_of_the_get(
    api: TestApp, many: None, alice: Member, query: str, accept: str
) -> None:
    path = f"/v2/accounts/{alice.id}/ips{query}"
    headers = {**alice.headers, "X-Request-ID": "same", "Accept": accept}
    got = api.get(path, headers=headers, expect_errors=True)
    head = api.head(path, headers=headers, expect_errors=True)
    assert (head.status_int, head.body) == (got.status_int, b"")
    assert {**head.headers, "Content-Length": None} == {**got.headers, "Content-Length": None}


@pytest.mark.parametrize("path", ["/healthz", "/", "/v2", "/readyz", "/v2/openapi.json"])
def test_open_routes_have_head(api: TestApp, path: str) -> None:
    assert api.head(path, status=200).body == b""


def test_a_connection_stays_usable_after_head(live: str, many: None, alice: Member) -> None:
    url, http = f"{live}/v2/accounts/{alice.id}/ips?paginate=false", urllib3.PoolManager(maxsize=1)
    for _ in range(3):
        assert http.request("HEAD", url, headers=alice.headers).data == b""
        got = http.request("GET", f"{live}/healthz", headers=alice.headers)
        assert got.json()["data"] == {"healthy": True}
    assert http.connection_from_url(live).num_connections == 1


def test_a_tag_works_with_head(api: TestApp, add: Any, alice: Member) -> None:
    add(MANY[0])
    path = f"/v2/accounts/{alice.id}/ips/{MANY[0]}"
    tag = api.head(path, headers=alice.headers, status=200).headers["ETag"]
    api.head(path, headers={**alice.headers, "If-None-Match": tag}, status=304)


@pytest.mark.parametrize("query", ["", "?paginate=false", "?quantity=1200"])
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_a_long_reply_is_compressed_when_asked(
    live: str, many: None, alice: Member, query: str, accept: str
) -> None:
    url = f"{live}/v2/accounts/{alice.id}/ips{query}"
    headers = {**alice.headers, "X-Request-ID": "same", "Accept": accept}
    http = urllib3.PoolManager()
    plain = http.request("GET", url, headers=headers)
    packed = http.request("GET", url, headers={**headers, **GZIP}, decode_content=False)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == "Accept-Encoding"
    assert len(packed.data) < len(plain.data) / 2
    unpacked = gzip.decompress(packed.data)
    assert unpacked.count(b"192.0.2.") == plain.data.count(b"192.0.2.") > 0
    assert packed.headers.get("ETag") == plain.headers.get("ETag")


@pytest.mark.parametrize(
    "accepted", ["identity", "gzip;q=0", "br", "identity, gzip;q=0.5", "nonsense;;"]
)
def test_a_client_that_does_not_want_gzip_does_not_get_it(
    api: TestApp, many: None, alice: Member, accepted: str
) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(path, headers={**alice.headers, "Accept-Encoding": accepted}, status=200)
    assert "Content-Encoding" not in reply.headers
    assert len(reply.json["data"]) == 50


def test_a_short_reply_is_not_compressed(api: TestApp, add: Any, alice: Member) -> None:
    add(MANY[0])
    path = f"/v2/accounts/{alice.id}/ips/{MANY[0]}"
    reply = api.get(path, headers={**alice.headers, **GZIP}, status=200)
    assert "Content-Encoding" not in reply.headers


def test_each_part_of_a_stream_can_be_read_at_once() -> None:
    from kazoo_ips.api.content_coding import _parts  # noqa: PLC0415

    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    sent = [b"a" * 5000, b"b" * 10, b"c" * 70_000]
    assert [unpack.decompress(part) for part in _parts(sent)] == [*sent, b""]
    assert unpack.eof


def test_a_write_is_compressed_and_its_stored_reply_too(
    live: str, many: None, alice: Member
) -> None:
    url, http = f"{live}/v2/accounts/{alice.id}/ips", urllib3.PoolManager()
    headers = {**alice.headers, **GZIP, "Idempotency-Key": "compressed"}
    body = {"data": {"ips": MANY}}
    first, again = (http.request("POST", url, json=body, headers=headers) for _ in range(2))
    assert first.status == again.status == 200
    assert first.headers["Content-Encoding"] == again.headers["Content-Encoding"] == "gzip"
    assert first.json()["data"] == again.json()["data"] == {"ips": MANY}
    assert again.headers["Idempotency-Replayed"] == "true"
