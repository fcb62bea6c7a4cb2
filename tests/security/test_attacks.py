"""Malicious requests."""

import csv
import io
import json
import sys
import time
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.model import generation
from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import invalid
from tests.openapi_check import CheckedApp
from tests.security.clients import exchange

ADDRESS = "192.0.2.1"


# Request smuggling

INSIDE = "DELETE /v2/ips/192.0.2.1 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n\r\n"
SMUGGLED = {
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": "Content-Length: 0, 5\r\n\r\n",
    "a signed length": "Content-Length: +0\r\n\r\n",
    "a length in hex": "Content-Length: 0x0\r\n\r\n",
    "a length with an underscore": "Content-Length: 0_0\r\n\r\n",
    "a space before the colon": "Content-Length : 0\r\n\r\n",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and nothing": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks of another name": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks after a tab": "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a folded header": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a lone line feed": "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a lone return": "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a null": "X: y\x00\r\n\r\n",
    "a bad chunk size": "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk size with more": "Transfer-Encoding: chunked\r\n\r\n0 \nx\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_with_an_ambiguous_end_closes_its_connection(
    live: str, load: Any, databases: Databases, operator: Any, name: str
) -> None:
    load(kazoo_document(ADDRESS))
    head = f"POST /v2/accounts/{operator.id}/ips HTTP/1.1\r\nHost: x\r\nX-Auth-Token: "
    sent = f"{head}{operator.token}\r\n{SMUGGLED[name]}{INSIDE.format(token=operator.token)}"
    received = exchange(live, sent.encode("latin-1"))
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert databases.get("dedicated_ips", ADDRESS)


@pytest.mark.parametrize(
    "offered", ["a\x00b", "a\rX-Injected: 1", "a\tb", "é", "a b", "x" * 129, "a\n b"], ids=repr
)
def test_a_request_id_cannot_inject_a_header(live: str, offered: str) -> None:
    head = f"GET /v2/ips HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: {offered}"
    received = exchange(live, f"{head}\r\n\r\n".encode("latin-1"))
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    assert "X-Injected" not in head
    assert f"\r\nX-Request-ID: {json.loads(body)['request_id']}" in head
    assert json.loads(body)["request_id"] != offered


# Paths

TRICKS = [
    "/v2/accounts/{alice}/../{bob}/ips/assigned",
    "/v2/accounts/{alice}/ips/../../{bob}/ips/assigned",
    "/v2/accounts/{alice}%2f..%2f{bob}/ips/assigned",
    "/v2/accounts/{alice}%2F%2E%2E%2F{bob}/ips/assigned",
    "/v2/accounts/{alice}%252f..%252f{bob}/ips/assigned",
    "/v2/accounts/{alice}%00{bob}/ips/assigned",
    "/v2/accounts/{bob}%00/ips/assigned",
    "/v2/accounts/{bob};x={alice}/ips/assigned",
    "/v2/accounts/{alice}\\..\\{bob}/ips/assigned",
    "/v2//accounts/{bob}/ips/assigned",
    "//v2/accounts/{bob}/ips/assigned",
    "/v2/accounts//{bob}/ips/assigned",
    "/v2/accounts/{bob}/ips/assigned/..",
    "/v2/accounts/{BOB}/ips/assigned",
    "http://x/v2/accounts/{bob}/ips/assigned",
    "/v2/accounts/{bob}/ips/192.0.2.1%00",
    "/v2/ips/..%2fips%2fassigned",
    "/v2/ips/assigned%00",
    "/v2/%69ps/assigned",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_spelling_of_a_path_bypasses_the_account_in_it(
    live: str, load: Any, operator: Any, alice: Any, bob: Any, trick: str
) -> None:
    load({**kazoo_document(ADDRESS), "pvt_status": "assigned", "pvt_assigned_to": bob.id})
    path = trick.format(alice=alice.id, bob=bob.id, BOB=bob.id.upper())
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {alice.token}\r\n"
    received = exchange(live, f"{sent}Connection: close\r\n\r\n".encode())
    status = int(received.split(b" ", 2)[1])
    assert status in (400, 403, 404)
    assert b'"ip":' not in received


SYSTEM = ["_design/ips", "_design%2Fips", "_all_docs", "_changes", "_local/x", "_security", "..",
          ".", "%2e%2e%2faccounts", "192.0.2.1?rev=1", "192.0.2.1%3Frev=1-0", "192.0.2.1%00",
          "192.0.2.1%0a", "{}", "[]", "\"\"", "%FF"]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEM)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_only_addresses_are_found_in_the_pool(
    api: TestApp, pool: Any, operator: Any, databases: Databases, name: str, method: str
) -> None:
    if name.startswith("192.0.2.1?"):
        name = "192.0.2.1"
    path = f"/v2/ips/{name}{'?force=true' if method == 'DELETE' else ''}"
    api.request(path, method=method, headers=operator.headers, status=[404, 405])
    assert databases.get("dedicated_ips", "_design/ips")["views"]


@pytest.mark.parametrize(
    "ip", ["\uff11\uff19\uff12.0.2.1", "192.0.2.\u0661", "192.0.2.1\u200b", "192。0。2。1",
           "3221225985", "0xc0.0.2.1", "192.0.2.1\n", "_design/ips", {"$gt": None},
           ["192.0.2.1"], 3221225985]
)  # fmt: skip
def test_text_similar_to_an_address_is_invalid(
    api: TestApp, load: Any, operator: Any, ip: Any
) -> None:
    load(kazoo_document(ADDRESS))
    path = f"/v2/accounts/{operator.id}/ips"
    body = {"data": {"ips": [ip]}}
    reply = api.post_json(path, body, headers=operator.headers, status=400)
    assert invalid(reply, operator.token).keys() == {"ips.0"}


# Bodies

BOMBS = {
    "a hundred thousand lists": b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a million objects": b'{"a":' * 1_000_000,
    "a number of a million digits": b'{"data":{"ips":[' + b"9" * 1_000_000 + b"]}}",
    "a number beyond all numbers": b'{"data":{"quantity":1e999}}',
    "a million keys": b'{"data":{%s}}' % b",".join(b'"%d":0' % n for n in range(500_000)),
    "a million addresses": b'{"data":{"ips":[%s]}}' % b",".join([b'"192.0.2.1"'] * 500_000),
    "a string of eight million": b'{"data":{"ips":"' + b"x" * 7_900_000 + b'"}}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_that_expands_is_400_quickly(
    api: TestApp, pool: Any, operator: Any, name: str
) -> None:
    path, start = f"/v2/accounts/{operator.id}/ips", time.process_time()
    api.post(path, BOMBS[name], headers=operator.headers, status=400)
    assert time.process_time() - start < 3


def test_keys_of_a_body_cannot_be_chosen_to_collide() -> None:
    assert sys.flags.hash_randomization


def test_a_body_sets_nothing_but_the_fields_of_the_api(
    api: TestApp, pool: Any, databases: Databases, operator: Any, bob: Any
) -> None:
    more = {
        "_id": "198.51.100.9", "_rev": "1-0", "_deleted": True, "_attachments": {}, "id": "x",
        "pvt_assigned_to": bob.id, "pvt_status": "assigned", "status": "assigned",
        "assigned_to": bob.id, "pvt_type": "account", "type": "x", "pvt_request_id": "x",
    }  # fmt: skip
    data = {"ip": ADDRESS, "zone": "us-east", "host": "proxy1.example.com", **more}
    api.put_json("/v2/ips", {"data": data, **more}, headers=operator.headers, status=201)
    document = databases.get("dedicated_ips", ADDRESS)
    assert document.pop("pvt_request_id") != "x"
    assert [event["event"] for event in document.pop("pvt_trail")] == ["created"]
    assert document.pop("pvt_written_generation") == generation(document["_rev"])
    assert document.keys() == {
        "_id", "_rev", "pvt_type", "pvt_status", "pvt_zone", "pvt_host", "pvt_vsn", "pvt_created",
        "pvt_modified",
    }  # fmt: skip
    assert (document["pvt_status"], document["pvt_type"]) == ("available", "dedicated_ip")


@pytest.mark.parametrize("field", ["credentials", "account_name", "account_realm", "api_key"])
@pytest.mark.parametrize("value", [{"$gt": None}, {"$ne": ""}, [], True, 1, None], ids=str)
def test_a_login_takes_text_and_no_queries(api: TestApp, field: str, value: Any) -> None:
    where = "/v2/api_auth" if field == "api_key" else "/v2/user_auth"
    data = {"credentials": "0" * 32, "account_name": "x", "api_key": "0" * 64, field: value}
    reply = api.put_json(where, {"data": data}, status=400)
    assert field in invalid(reply, None)


# Tables

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_csv_is_a_formula(
    api: TestApp, load: Any, operator: Any, formula: str
) -> None:
    load(kazoo_document(ADDRESS, formula, formula))
    headers = {**operator.headers, "Accept": "text/csv"}
    for path in ("/v2/ips", "/v2/ips/zones", "/v2/ips/hosts"):
        table = api.get(path, headers=headers, status=200).body.decode()
        for start in ("", '"'):
            assert f"\n{start}{formula[0]}" not in table
            assert f",{start}{formula[0]}" not in table
        assert "'" + formula[0] in table
    listed = api.get("/v2/ips", headers=operator.headers, status=200).json["data"]
    assert [line["zone"] for line in listed] == [formula]  # JSON is not for spreadsheets


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("  =1+1", "'  =1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\n=1+1", "'\n'=1+1"),
        ("us;=1+1", "us;'=1+1"),
        ("us; @SUM(A1)", "us;' @SUM(A1)"),
        ("us\t-1", "us\t'-1"),
        ("us-east", "us-east"),
        ("us; east", "us; east"),
        ("rack 7, -1", "rack 7, -1"),
    ],
    ids=ascii,
)
def test_no_part_of_a_cell_becomes_a_formula(
    api: TestApp, load: Any, operator: Any, name: str, shown: str
) -> None:
    load(kazoo_document(ADDRESS, name, name))
    headers = {**operator.headers, "Accept": "text/csv"}
    table = api.get("/v2/ips", headers=headers, status=200).body.decode()
    [line] = csv.DictReader(io.StringIO(table, newline=""))
    assert (line["zone"], line["host"]) == (shown, shown)


# Secrets


def test_no_secret_is_in_the_url_of_a_request_to_couchdb(
    settings: Settings, operator: Any, alice: Any
) -> None:
    urls: list[str] = []
    api = CheckedApp(composition.create_app(settings, trace=lambda _, url: urls.append(url)))
    credentials, key = uuid4().hex, alice.account.api_key
    api.put_json("/v2/api_auth", {"data": {"api_key": key}}, status=201)
    data = {"credentials": credentials, "account_realm": alice.account.realm}
    api.put_json("/v2/user_auth", {"data": data}, status=401)
    api.get(f"/v2/accounts/{alice.id}/ips", headers=alice.headers, status=200)
    assert urls
    for secret in (key, credentials, alice.token, "@"):
        assert not [url for url in urls if secret in url]
