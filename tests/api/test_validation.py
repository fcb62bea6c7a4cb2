"""Validation of bodies: the errors, and how leniently bodies are read."""

import json
from typing import Any

import pytest
from webtest import TestApp

from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import (
    broken,
    failure,
    invalid,
    no_address,
    page,
    required,
    success,
    wrong_type,
)

FIRST, SECOND, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
GOOD = {"ip": FIRST, "zone": "us-east", "host": "proxy1.example.com"}


def too_short(path: str, least: int, value: str) -> dict[str, Any]:
    message = f"String must be at least {least} characters"
    return broken(path, "minLength", message, target=least, cause=value, value=value)


# Creating


NOT_ADDRESSES = [
    "foo", "", "1", "1.2.3", "192.0.2", "192.0.2.256", "192.0.2.01", "001.002.003.004",
    "192.0.2.1 ", " 192.0.2.1", "192.0.2.1\n", "192.0.2.0/24", "0x1.2.3.4", "192.0.2.1.",
    "192.0.2.1:80", "[2001:db8::1]", "2001:db8::1/64", "2001:db8::1%eth0", "fe80::1%1",
    "2001:db8::1::2", "2001:db8:::1", "20001:db8::1", "::g", ":", "::192.0.2.01", "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9", "\u0660.0.0.1", "\uff11.0.0.1", "192\u30020\u30022\u30021", "\x00",
    "proxy1.example.com", "undefined", 7, 3221225985, True, 1.5, [FIRST], {"ip": FIRST}, None,
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_ADDRESSES, ids=repr)
def test_creating_refuses_an_invalid_address(
    api: TestApp, pool: Any, databases: Databases, operator: Any, value: Any
) -> None:
    data = {**GOOD, "ip": value}
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=400)
    assert invalid(reply, operator.token) == no_address("ip", value)
    assert pool_ids(databases) == []


def documents(databases: Databases) -> Any:
    return databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"]


def pool_ids(databases: Databases) -> list[str]:
    rows = databases("GET", "dedicated_ips", "/_all_docs")["rows"]
    return [row["id"] for row in rows if not row["id"].startswith("_design/")]


CREATE: list[tuple[Any, dict[str, Any]]] = [
    ({}, {**required("ip"), **required("zone"), **required("host")}),
    ({"ip": FIRST}, {**required("zone"), **required("host")}),
    ({**GOOD, "zone": 5}, wrong_type("zone", "string", 5)),
    ({**GOOD, "zone": None}, wrong_type("zone", "string", None)),
    ({**GOOD, "zone": ["us-east"]}, wrong_type("zone", "string", ["us-east"])),
    ({**GOOD, "host": True}, wrong_type("host", "string", True)),
    ({**GOOD, "host": {}}, wrong_type("host", "string", {})),
    ({**GOOD, "host": ""}, too_short("host", 1, "")),
    ({**GOOD, "zone": ""}, too_short("zone", 1, "")),
    (
        {"ip": "nope", "zone": "", "host": 1.5},
        {
            **no_address("ip", "nope"),
            **too_short("zone", 1, ""),
            **wrong_type("host", "string", 1.5),
        },
    ),
    ({"zone": 5, "other": 6}, {**required("ip"), **wrong_type("zone", "string", 5),
                               **required("host")}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "errors"), CREATE)
@pytest.mark.parametrize("path", ["/v2/ips", "/v2/accounts/{A}/ips"])
def test_creating_reports_every_broken_rule(
    api: TestApp, pool: Any, operator: Any, path: str, data: Any, errors: dict[str, Any]
) -> None:
    reply = api.put_json(
        path.format(A=operator.id), {"data": data}, headers=operator.headers, status=400
    )
    assert invalid(reply, operator.token) == errors


def test_creating_ignores_unknown_fields(
    api: TestApp, pool: Any, databases: Databases, operator: Any
) -> None:
    data = {**GOOD, "id": "zzz", "note": "x", "pvt_status": "assigned", "_id": "y", "status": "z"}
    api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=201)
    assert pool_ids(databases) == [FIRST]
    made = databases.get("dedicated_ips", FIRST)
    assert "note" not in made
    assert made["pvt_status"] == "available"


@pytest.mark.parametrize(
    "text", ["Zürich", "東京", "😀", "a b", "a/b?c&d", '"\\"', "a\u00a0b", "undefined"]
)
def test_zones_and_hosts_may_be_any_text(
    api: TestApp, pool: Any, operator: Any, text: str
) -> None:  # fmt: skip
    data = {"ip": FIRST, "zone": text, "host": text}
    api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=201)
    for params in ({"zone": text}, {"host": text}, {"zone": text, "host": text}):
        reply = api.get("/v2/ips", params, headers=operator.headers, status=200)
        assert page(reply, operator.token) == [data]
    reply = api.get("/v2/ips/zones", headers=operator.headers, status=200)
    assert success(reply, operator.token) == [text]


# Lists of addresses


LISTS: list[tuple[Any, dict[str, Any]]] = [
    ({"ips": []}, broken("ips", "minItems", "The list must have at least 1 items", target=1,
                         value=[])),
    ({"ips": FIRST}, wrong_type("ips", "array", FIRST)),
    ({"ips": None}, wrong_type("ips", "array", None)),
    ({"ips": {}}, wrong_type("ips", "array", {})),
    ({"ips": 5}, wrong_type("ips", "array", 5)),
    ({"ips": False}, wrong_type("ips", "array", False)),
    ({"ips": ["x", FIRST, 7]}, {**no_address("ips.0", "x"), **no_address("ips.2", 7)}),
    ({"ips": [None, [FIRST], {"ip": FIRST}]}, {**no_address("ips.0", None),
     **no_address("ips.1", [FIRST]), **no_address("ips.2", {"ip": FIRST})}),
    ({"ips": [FIRST, SECOND, FIRST, "x"]}, {**no_address("ips.3", "x"), **broken(
        "ips.2", "uniqueItems", "List of items is not unique", value=FIRST)}),
    ({"ips": [FIRST, FIRST, FIRST]}, {
        **broken("ips.1", "uniqueItems", "List of items is not unique", value=FIRST),
        **broken("ips.2", "uniqueItems", "List of items is not unique", value=FIRST)}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "errors"), LISTS)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_list_of_addresses_reports_every_broken_rule(
    api: TestApp, load: Any, alice: Any, method: str, data: Any, errors: dict[str, Any]
) -> None:
    load(kazoo_document(FIRST), kazoo_document(SECOND))
    send = {"POST": api.post_json, "DELETE": api.delete_json}[method]
    path = f"/v2/accounts/{alice.id}/ips"
    reply = send(path, {"data": data}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == errors
    left = api.get(path, headers=alice.headers, status=200).json["data"]
    assert [ip["ip"] for ip in left] == [FIRST, SECOND]


def test_assigning_needs_ips(api: TestApp, pool: Any, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.post_json(path, {"data": {}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == required("ips")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_list_has_at_most_1000_addresses(
    api: TestApp, pool: Any, alice: Any, method: str
) -> None:
    send = {"POST": api.post_json, "DELETE": api.delete_json}[method]
    many = [f"198.51.{n >> 8}.{n & 255}" for n in range(1001)]
    path = f"/v2/accounts/{alice.id}/ips"
    reply = send(path, {"data": {"ips": many}}, headers=alice.headers, status=400)
    [(place, rules)] = invalid(reply, alice.token).items()
    assert place == "ips"
    assert rules.keys() == {"maxItems"}
    assert rules["maxItems"]["message"] == "The list must have at most 1000 items"
    assert rules["maxItems"]["target"] == 1000
    reply = send(path, {"data": {"ips": many[:1000]}}, headers=alice.headers, status=400)
    errors = invalid(reply, alice.token)
    assert errors.keys() == {f"ips.{n}" for n in range(1000)}
    assert errors["ips.999"] == {"not_found": {"message": "ip not found", "value": many[999]}}


def test_assigning_reports_every_invalid_item_and_assigns_none(
    api: TestApp, load: Any, databases: Databases, alice: Any, bob: Any
) -> None:
    load(
        kazoo_document(FIRST),
        kazoo_document(SECOND, owner=alice.id),
        kazoo_document(THIRD, owner=bob.id),
    )
    before = documents(databases)
    items = [FIRST, "203.0.113.1", SECOND, THIRD, "2001:db8::99"]
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.post_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == {
        **broken("ips.1", "not_found", "ip not found", value="203.0.113.1"),
        **broken("ips.2", "superfluous", "ip already assigned", value=SECOND),
        **broken("ips.3", "forbidden", "ip assigned to another account", value=THIRD),
        **broken("ips.4", "not_found", "ip not found", value="2001:db8::99"),
    }
    assert documents(databases) == before


def test_releasing_reports_every_invalid_item_and_releases_none(
    api: TestApp, load: Any, databases: Databases, alice: Any, bob: Any
) -> None:
    load(
        kazoo_document(FIRST, owner=alice.id),
        kazoo_document(SECOND),
        kazoo_document(THIRD, owner=bob.id),
    )
    before = documents(databases)
    items = [THIRD, FIRST, "203.0.113.1", SECOND]
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.delete_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == {
        **broken("ips.0", "forbidden", "ip assigned to another account", value=THIRD),
        **broken("ips.2", "not_found", "ip not found", value="203.0.113.1"),
        **broken("ips.3", "superfluous", "ip not assigned", value=SECOND),
    }
    assert documents(databases) == before


def test_assigning_reports_every_address_in_the_wrong_state_and_assigns_none(
    api: TestApp, load: Any, databases: Databases, alice: Any, bob: Any
) -> None:
    load(
        kazoo_document(FIRST),
        kazoo_document(SECOND, owner=alice.id),
        kazoo_document(THIRD, owner=bob.id),
    )
    before = documents(databases)
    path, items = f"/v2/accounts/{alice.id}/ips", [THIRD, FIRST, SECOND]
    reply = api.post_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == {
        **broken("ips.0", "forbidden", "ip assigned to another account", value=THIRD),
        **broken("ips.2", "superfluous", "ip already assigned", value=SECOND),
    }
    reply = api.delete_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == {
        **broken("ips.0", "forbidden", "ip assigned to another account", value=THIRD),
        **broken("ips.1", "superfluous", "ip not assigned", value=FIRST),
    }
    assert documents(databases) == before


# Logins


LOGINS: list[tuple[str, Any, dict[str, Any]]] = [
    ("/v2/user_auth", {}, required("credentials")),
    ("/v2/user_auth", {"account_name": "Alice"}, required("credentials")),
    ("/v2/user_auth", {"credentials": 5}, wrong_type("credentials", "string", 5)),
    ("/v2/user_auth", {"credentials": ""}, too_short("credentials", 1, "")),
    ("/v2/user_auth", {"credentials": "x", "account_name": 5},
     wrong_type("account_name", "string", 5)),
    ("/v2/user_auth", {"credentials": None, "realm": 5, "account_realm": ""},
     {**wrong_type("credentials", "string", None), **wrong_type("realm", "string", 5),
      **too_short("account_realm", 1, "")}),
    ("/v2/user_auth", {"credentials": "x", "method": "sha1"}, broken("method", "enum",
     "Value not found in enumerated list", target=["md5", "sha"], value="sha1")),
    ("/v2/api_auth", {}, required("api_key")),
    ("/v2/api_auth", {"api_key": "abc"}, too_short("api_key", 64, "abc")),
    ("/v2/api_auth", {"api_key": 5}, wrong_type("api_key", "string", 5)),
    ("/v2/api_auth", {"api_key": "x" * 65}, broken("api_key", "maxLength",
     "String must not be more than 64 characters", target=64, cause="x" * 65, value="x" * 65)),
]  # fmt: skip


@pytest.mark.parametrize(("path", "data", "errors"), LOGINS)
def test_a_login_reports_every_broken_rule(
    api: TestApp, path: str, data: Any, errors: dict[str, Any]
) -> None:
    reply = api.put_json(path, {"data": data}, status=400)
    assert invalid(reply, None) == errors


# Bodies


def bulk(alice: Any) -> str:
    return f"/v2/accounts/{alice.id}/ips"


BAD_JSON = [
    b"{", b'{"data":', b"nonsense", b"{'data': {}}", b'{"data":{"ips":[NaN]}}',
    b'{"data":{"n":Infinity}}', b'{"data":{"ips":[1e999]}}', b"\xff\xfe",
    b'{"data":{"ips":["\xff"]}}', b"[" * 100_000, b'{"data":{}}trailing',
    b'\xef\xbb\xbf\xef\xbb\xbf{"data":{}}', b'{"data":{"ips":["\\ud800"]}}',
    b'{"data":' + b'{"a":' * 5000, b"1" * 5000 + b"e", b'{"data":{"n":' + b"9" * 5000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: repr(body[:30]))
def test_invalid_json_is_reported_as_by_crossbar(
    api: TestApp, pool: Any, operator: Any, body: bytes
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        reply = api.request(
            bulk(operator), method=method, body=body, headers=operator.headers, status=400
        )
        errors = invalid(reply, operator.token)
        assert errors.keys() == {"json"}
        assert errors["json"].keys() == {"invalid"}
        assert errors["json"]["invalid"]["target"] == "body"
        assert errors["json"]["invalid"]["message"]


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"true", b"null", b'[{"data":{}}]'])
def test_json_that_is_no_object_is_refused(
    api: TestApp, pool: Any, operator: Any, body: bytes
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        reply = api.request(
            bulk(operator), method=method, body=body, headers=operator.headers, status=400
        )
        assert invalid(reply, operator.token) == broken(
            "json", "invalid", "All JSON must be valid", target="body"
        )


@pytest.mark.parametrize("members", [{}, {"ips": [FIRST]}, {"data": None}, {"DATA": None, "a": 1}])
def test_an_envelope_needs_data(api: TestApp, load: Any, operator: Any, members: Any) -> None:
    load(kazoo_document(FIRST, owner=operator.id))
    for method in ("POST", "PUT", "DELETE"):
        reply = api.request(
            bulk(operator), method=method, body=json.dumps(members).encode(),
            headers=operator.headers, status=400,
        )  # fmt: skip
        rest = {k.lower(): v for k, v in members.items() if v is not None}
        message = "Field is required but missing"
        assert invalid(reply, operator.token) == broken("data", "required", message, value=rest)
    shown = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200).json["data"]
    assert shown["status"] == "assigned"


@pytest.mark.parametrize("value", ["x", 5, True, [], [FIRST], [{"ip": FIRST}], False, 0, ""])
def test_data_has_to_be_an_object(api: TestApp, load: Any, operator: Any, value: Any) -> None:
    load(kazoo_document(FIRST, owner=operator.id))
    for method in ("POST", "PUT", "DELETE"):
        reply = api.request(
            bulk(operator), method=method, body=json.dumps({"data": value}).encode(),
            headers=operator.headers, status=400,
        )  # fmt: skip
        assert invalid(reply, operator.token) == wrong_type("data", "object", value)
    shown = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200).json["data"]
    assert shown["status"] == "assigned"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_missing_body_where_data_is_needed_is_400(
    api: TestApp, pool: Any, operator: Any, method: str
) -> None:
    reply = api.request(bulk(operator), method=method, headers=operator.headers, status=400)
    assert invalid(reply, operator.token)


@pytest.mark.parametrize(
    ("path", "method"), [("", "GET"), ("/assigned", "GET"), (f"/{FIRST}", "GET"),
                         (f"/{FIRST}", "POST"), (f"/{FIRST}", "DELETE")],
)  # fmt: skip
def test_an_invalid_body_is_refused_even_if_none_is_needed(
    api: TestApp, load: Any, databases: Databases, alice: Any, path: str, method: str
) -> None:
    load(kazoo_document(FIRST))
    before = documents(databases)
    url = bulk(alice) + path
    reply = api.request(url, method=method, body=b"{", headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == {"json"}
    assert documents(databases) == before


TYPES = [
    "application/json", "application/json; charset=utf-8", "application/x-json", "text/json",
    "text/x-json", "application/x-www-form-urlencoded", "application/vnd.api+json",
    "APPLICATION/JSON", "Application/X-WWW-Form-Urlencoded; charset=UTF-8", "",
]  # fmt: skip


@pytest.mark.parametrize("content_type", TYPES)
def test_json_is_read_with_any_content_type_of_usual_clients(
    api: TestApp, load: Any, alice: Any, content_type: str
) -> None:
    load(kazoo_document(FIRST))
    reply = api.request(
        bulk(alice), method="POST", body=json.dumps({"data": {"ips": [FIRST]}}).encode(),
        headers={**alice.headers, "Content-Type": content_type}, status=200,
    )  # fmt: skip
    assert success(reply, alice.token) == {"ips": [FIRST]}


@pytest.mark.parametrize(
    "content_type", ["text/plain", "image/png", "application/xml", "multipart/form-data", "x"]
)
def test_a_body_of_another_type_is_415(
    api: TestApp, load: Any, databases: Databases, operator: Any, content_type: str
) -> None:
    load(kazoo_document(FIRST))
    before = documents(databases)
    for method in ("POST", "PUT", "DELETE"):
        reply = api.request(
            bulk(operator), method=method, body=json.dumps({"data": {"ips": [FIRST]}}).encode(),
            headers={**operator.headers, "Content-Type": content_type}, status=415,
        )  # fmt: skip
        data = failure(reply, operator.token, "unsupported_media_type")
        assert data == {"message": "unsupported media type"}
    assert documents(databases) == before


def test_a_content_type_without_a_body_is_ignored(api: TestApp, load: Any, alice: Any) -> None:
    load(kazoo_document(FIRST))
    headers = {**alice.headers, "Content-Type": "image/png"}
    api.request(f"{bulk(alice)}/{FIRST}", method="POST", headers=headers, status=200)
    api.request(bulk(alice), method="GET", headers=headers, status=200)


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/xml", "text/plain"])
def test_a_client_that_does_not_accept_json_gets_406(
    api: TestApp, load: Any, alice: Any, accept: str
) -> None:
    load(kazoo_document(FIRST))
    headers = {**alice.headers, "Accept": accept}
    for path in ("", "/assigned", "/zones", f"/{FIRST}"):
        reply = api.get(bulk(alice) + path, headers=headers, status=406)
        assert failure(reply, alice.token, "not_acceptable") == {"message": "not acceptable"}


def test_a_client_that_accepts_only_csv_gets_406_without_a_list(
    api: TestApp, load: Any, databases: Databases, operator: Any
) -> None:
    load(kazoo_document(FIRST))
    before = documents(databases)
    headers = {**operator.headers, "Accept": "text/csv"}
    for method, path in [
        ("GET", f"{bulk(operator)}/{FIRST}"), ("POST", f"{bulk(operator)}/{FIRST}"),
        ("GET", f"/v2/ips/{FIRST}"), ("DELETE", f"/v2/ips/{FIRST}"), ("GET", "/v2/about"),
    ]:  # fmt: skip
        reply = api.request(path, method=method, headers=headers, status=406)
        assert failure(reply, operator.token, "not_acceptable") == {"message": "not acceptable"}
    assert documents(databases) == before


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/*", "application/json;q=0.1", "image/png, application/json;q=0.1",
     "text/csv;q=0.1, application/json", "text/html, */*;q=0.1", ""],
)  # fmt: skip
def test_a_client_that_accepts_json_gets_it(
    api: TestApp, pool: Any, alice: Any, accept: str
) -> None:
    reply = api.get(bulk(alice), headers={**alice.headers, "Accept": accept}, status=200)
    assert page(reply, alice.token) == []


def test_a_body_of_more_than_8_000_000_bytes_is_413(api: TestApp, alice: Any) -> None:
    frame = b'{"data":{"x":"%s"}}'
    for method in ("POST", "DELETE"):
        body = frame % (b"x" * (8_000_001 - len(frame) + 2))
        assert len(body) == 8_000_001
        reply = api.request(
            bulk(alice), method=method, body=body, headers=alice.headers, status=413
        )
        data = failure(reply, alice.token, "request_too_large")
        assert data == {"message": "request body too large"}
    reply = api.request(
        bulk(alice), method="POST", body=body[:-4] + b'"}}', headers=alice.headers, status=400
    )
    assert invalid(reply, alice.token) == required("ips")


def test_the_last_of_two_equal_keys_counts(api: TestApp, load: Any, alice: Any) -> None:
    load(kazoo_document(FIRST), kazoo_document(SECOND))
    body = f'{{"data":{{"ips":["{FIRST}"],"ips":["{SECOND}"]}}}}'.encode()
    reply = api.request(bulk(alice), method="POST", body=body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [SECOND]}


def test_members_of_the_envelope_are_known_in_capitals_too(
    api: TestApp, load: Any, alice: Any
) -> None:
    load(kazoo_document(FIRST))
    body = {"DATA": {"ips": [FIRST]}, "Auth_Token": alice.token, "ui_metadata": {"ui": "monster"}}
    reply = api.post_json(bulk(alice), body, status=200)
    assert success(reply, alice.token) == {"ips": [FIRST]}


# Verbs through POST


@pytest.mark.parametrize("verb", ["DELETE", "delete", "Delete"])
@pytest.mark.parametrize("where", ["data", "query", "envelope"])
def test_a_verb_tunnels_through_post(
    api: TestApp, load: Any, databases: Databases, alice: Any, where: str, verb: str
) -> None:
    load(kazoo_document(FIRST, owner=alice.id), kazoo_document(SECOND, owner=alice.id))
    body: dict[str, Any] = {"data": {"ips": [FIRST]}}
    path = bulk(alice)
    if where == "data":
        body["data"]["verb"] = verb
    elif where == "envelope":
        body["verb"] = verb
    else:
        path += f"?verb={verb}"
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FIRST]}
    assert databases.get("dedicated_ips", FIRST)["pvt_status"] == "available"
    assert databases.get("dedicated_ips", SECOND)["pvt_status"] == "assigned"


def test_tunnelled_get_and_put_work(api: TestApp, pool: Any, operator: Any) -> None:
    path = f"{bulk(operator)}?verb=put"
    reply = api.post_json(path, {"data": GOOD}, headers=operator.headers, expect_errors=True)
    assert reply.status_int in (200, 201)  # Crossbar's is 200, which no client depends on
    reply = api.post(f"{bulk(operator)}?verb=get", headers=operator.headers, status=200)
    assert page(reply, operator.token) == [GOOD]


def test_a_tunnelled_verb_is_authorised_as_itself(
    api: TestApp, load: Any, databases: Databases, alice: Any
) -> None:
    load(kazoo_document(FIRST))
    path = f"{bulk(alice)}?verb=put"
    data = {**GOOD, "ip": SECOND}
    reply = api.post_json(path, {"data": data}, headers=alice.headers, status=403)
    assert failure(reply, alice.token, "forbidden") == {"message": "forbidden"}
    assert databases.find("dedicated_ips", SECOND) is None
    path = f"/v2/ips/{FIRST}?verb=delete"
    api.post(path, headers=alice.headers, status=403)
    api.post(path, status=401)
    assert databases.find("dedicated_ips", FIRST)


@pytest.mark.parametrize("verb", ["patch", "head", "options", "nonsense", "DELETE GET", "é"])
def test_a_tunnelled_verb_that_a_route_does_not_have_is_405(
    api: TestApp, load: Any, alice: Any, verb: str
) -> None:
    load(kazoo_document(FIRST))
    reply = api.post_json(
        bulk(alice), {"data": {"ips": [FIRST]}, "verb": verb}, headers=alice.headers, status=405
    )
    assert failure(reply, alice.token, "invalid_method") == {"message": "method not allowed"}
    assert reply.headers["Allow"] == "DELETE, GET, HEAD, POST, PUT"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_tunnels(
    api: TestApp, load: Any, databases: Databases, alice: Any, method: str
) -> None:
    load(kazoo_document(FIRST))
    path = f"{bulk(alice)}/{FIRST}?verb=post"
    api.request(path, method=method, headers=alice.headers, expect_errors=True)
    assert databases.get("dedicated_ips", FIRST)["pvt_status"] == "available"


@pytest.mark.parametrize("verb", [5, None, [], {}, ""])
def test_a_verb_that_is_no_text_is_ignored(api: TestApp, load: Any, alice: Any, verb: Any) -> None:
    load(kazoo_document(FIRST))
    body = {"data": {"ips": [FIRST]}, "verb": verb}
    reply = api.post_json(bulk(alice), body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FIRST]}
