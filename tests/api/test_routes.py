"""Every route: its reply to the last member, its statuses and its headers."""

import hashlib
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import pytest
from webtest import TestApp

from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP
from tests.api.couchdb import account_database
from tests.api.replies import IP, broken, failure, invalid, page, success, wrong_type
from tests.openapi_check import CheckedApp

FIRST, SECOND, THIRD = "192.0.2.1", "192.0.2.2", "198.51.100.1"
LISTED = {"zone": "us-east", "host": "proxy1.example.com"}


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def available(address: str) -> dict[str, Any]:
    return {"id": address, "ip": address, "status": "available", **IP}


def assigned(address: str, owner: Any) -> dict[str, Any]:
    return {**available(address), "status": "assigned", "assigned_to": owner.id}


@pytest.fixture
def taken(add: Callable[..., Any], services: Any, alice: Any) -> Callable[..., Any]:
    """A function that adds an address and assigns it, by default to Alice."""

    def make(address: str, owner: Any = alice, **where: str) -> Any:
        add(address, **where)
        return services.ips.assign(AssignIP(owner.id, address), "0" * 32)

    return make


# /v2/accounts/{A}/ips


def test_an_account_lists_the_available_addresses(
    api: TestApp, add: Any, taken: Any, alice: Any
) -> None:
    add(SECOND)
    add(FIRST)
    add("203.0.113.1", zone="eu-west", host="proxy2.example.com")
    taken(THIRD)
    reply = api.get(f"/v2/accounts/{alice.id}/ips", headers=alice.headers, status=200)
    assert page(reply, alice.token) == [
        {"ip": "203.0.113.1", "zone": "eu-west", "host": "proxy2.example.com"},
        {"ip": FIRST, **LISTED},
        {"ip": SECOND, **LISTED},
    ]


@pytest.mark.usefixtures("pool")
def test_the_available_list_of_an_empty_pool_is_empty(api: TestApp, alice: Any) -> None:
    reply = api.get(f"/v2/accounts/{alice.id}/ips", headers=alice.headers, status=200)
    assert page(reply, alice.token) == []


def test_an_account_assigns_addresses_in_the_order_of_the_request(
    api: TestApp, add: Any, alice: Any
) -> None:
    for address in (FIRST, SECOND, THIRD):
        add(address)
    requested = [SECOND, THIRD, FIRST]
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.post_json(path, {"data": {"ips": requested}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": requested}
    reply = api.get(f"{path}/assigned", headers=alice.headers, status=200)
    assert page(reply, alice.token) == [{"ip": a, **LISTED} for a in (FIRST, SECOND, THIRD)]
    assert page(api.get(path, headers=alice.headers, status=200), alice.token) == []


def test_an_account_releases_addresses_in_the_order_of_the_request(
    api: TestApp, taken: Any, alice: Any
) -> None:
    for address in (FIRST, SECOND, THIRD):
        taken(address)
    path = f"/v2/accounts/{alice.id}/ips"
    body = {"data": {"ips": [THIRD, FIRST]}}
    reply = api.delete_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [THIRD, FIRST]}
    reply = api.get(f"{path}/assigned", headers=alice.headers, status=200)
    assert page(reply, alice.token) == [{"ip": SECOND, **LISTED}]


@pytest.mark.parametrize("body", [b"", b'{"data":{}}'], ids=["no body", "no ips"])
def test_releasing_without_ips_releases_all_addresses_of_the_account_only(
    api: TestApp, taken: Any, alice: Any, bob: Any, body: bytes
) -> None:
    taken(SECOND)
    taken(FIRST)
    taken(THIRD, bob)
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.request(path, method="DELETE", body=body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FIRST, SECOND]}
    reply = api.request(path, method="DELETE", body=body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": []}
    reply = api.get(f"/v2/accounts/{bob.id}/ips/assigned", headers=bob.headers, status=200)
    assert page(reply, bob.token) == [{"ip": THIRD, **LISTED}]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("path", ["/v2/ips", "/v2/accounts/{A}/ips"])
def test_the_operator_creates_an_address(
    api: TestApp, operator: Any, alice: Any, path: str
) -> None:
    data = {"ip": FIRST, "zone": "us-east", "host": "proxy1.example.com"}
    reply = api.put_json(
        path.format(A=alice.id), {"data": data}, headers=operator.headers, status=201
    )
    made = success(reply, operator.token)
    read_only = made.pop("_read_only")
    assert made == available(FIRST)
    times = read_only.pop("created"), read_only.pop("modified")
    assert times[0] == times[1]
    assert isinstance(times[0], int)
    revision = reply.json["revision"]
    assert read_only == {"id": FIRST, "rev": revision, "vsn": "1", "status": "available", **IP}
    reply = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    assert success(reply, operator.token) == available(FIRST)


@pytest.mark.parametrize("path", ["/v2/ips", "/v2/accounts/{A}/ips"])
def test_an_address_is_created_once(
    api: TestApp, add: Any, operator: Any, alice: Any, path: str
) -> None:
    ip = add(FIRST)
    data = {"ip": FIRST, "zone": "eu-west", "host": "proxy2.example.com"}
    reply = api.put_json(
        path.format(A=alice.id), {"data": data}, headers=operator.headers, status=409
    )
    conflict = failure(reply, operator.token, "datastore_conflict")
    assert conflict == {"message": "conflicting documents"}
    reply = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    assert success(reply, operator.token) == available(FIRST)
    assert reply.json["revision"] == ip.revision


# /v2/accounts/{A}/ips/assigned, zones, hosts


def test_an_account_lists_only_its_own_addresses(
    api: TestApp, add: Any, taken: Any, alice: Any, bob: Any
) -> None:
    add("192.0.2.9")
    taken(SECOND)
    taken(FIRST)
    taken(THIRD, bob)
    reply = api.get(f"/v2/accounts/{alice.id}/ips/assigned", headers=alice.headers, status=200)
    assert page(reply, alice.token) == [{"ip": a, **LISTED} for a in (FIRST, SECOND)]


@pytest.mark.parametrize("prefix", ["/v2", "/v2/accounts/{A}"])
def test_zones_and_hosts_are_sorted_distinct_and_of_the_whole_pool(
    api: TestApp, add: Any, taken: Any, operator: Any, bob: Any, prefix: str
) -> None:
    path = prefix.format(A=bob.id) + "/ips"
    for kind in ("zones", "hosts"):
        reply = api.get(f"{path}/{kind}", headers=operator.headers, status=200)
        assert success(reply, operator.token) == []
    taken(FIRST)
    taken(SECOND, bob, zone="eu-west", host="a.example.com")
    add("203.0.113.1", zone="Zürich", host="B.example.com")
    add("203.0.113.2", zone="eu-west", host="proxy1.example.com")
    reply = api.get(f"{path}/zones", headers=operator.headers, status=200)
    assert success(reply, operator.token) == ["Zürich", "eu-west", "us-east"]
    reply = api.get(f"{path}/hosts", headers=operator.headers, status=200)
    assert success(reply, operator.token) == [
        "B.example.com",
        "a.example.com",
        "proxy1.example.com",
    ]


# /v2/accounts/{A}/ips/{ip}


def test_an_account_reads_assigns_and_releases_one_address(
    api: TestApp, add: Any, alice: Any
) -> None:
    add(FIRST)
    path = f"/v2/accounts/{alice.id}/ips/{FIRST}"
    reply = api.get(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == available(FIRST)
    reply = api.post(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(FIRST, alice)
    reply = api.get(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(FIRST, alice)
    reply = api.delete(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == available(FIRST)
    reply = api.get(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == available(FIRST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"data":{}}',
        b'{"data":{"ips":["203.0.113.99"]}}',
        b'{"data":{"id":"203.0.113.9","zone":"x","status":"available","assigned_to":"y"}}',
        b'{"data":{"ips":"nothing","quantity":3}}',
    ],
)
def test_a_single_assign_ignores_its_body(api: TestApp, add: Any, alice: Any, body: bytes) -> None:
    add(FIRST)
    path = f"/v2/accounts/{alice.id}/ips/{FIRST}"
    reply = api.request(path, method="POST", body=body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(FIRST, alice)


@pytest.mark.parametrize(
    ("method", "owner", "rule", "message"),
    [
        ("POST", "alice", "superfluous", "ip already assigned"),
        ("POST", "bob", "forbidden", "ip assigned to another account"),
        ("DELETE", None, "superfluous", "ip not assigned"),
        ("DELETE", "bob", "forbidden", "ip assigned to another account"),
    ],
)
def test_a_single_address_in_the_wrong_state_is_refused_as_the_first_of_a_list(
    api: TestApp, add: Any, taken: Any, alice: Any, bob: Any, method: str, owner: str | None,
    rule: str, message: str,
) -> None:  # fmt: skip
    if owner:
        taken(FIRST, {"alice": alice, "bob": bob}[owner])
    else:
        add(FIRST)
    path = f"/v2/accounts/{alice.id}/ips/{FIRST}"
    reply = api.request(path, method=method, headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == broken("ips.0", rule, message, value=FIRST)


NO_SUCH = ["192.0.2.77", "2001:db8::77", "nope", "192.0.2.01", "_design",
           "fe80::1%25eth0", "192.0.2.1%20", "%20192.0.2.1", "[2001:db8::1]", "0xc0.0.2.1",
           "3221225985", "%00", "%C3%A9", "192.0.2", "192.0.2.256", "1" * 500]  # fmt: skip


@pytest.mark.parametrize("segment", NO_SUCH)
@pytest.mark.parametrize(
    ("prefix", "methods"),
    [("/v2/accounts/{A}", ("GET", "POST", "DELETE")), ("/v2", ("GET", "DELETE"))],
)
def test_an_unknown_address_and_an_invalid_one_are_the_same_404(
    api: TestApp, operator: Any, alice: Any, prefix: str, methods: Any, segment: str
) -> None:  # fmt: skip
    path = f"{prefix.format(A=alice.id)}/ips/{segment}"
    for method in methods:
        reply = api.request(path, method=method, headers=operator.headers, status=404)
        data = failure(reply, operator.token, "bad_identifier")
        assert data == {"cause": unquote(segment), "message": "bad identifier"}


def test_an_address_of_an_invisible_account_is_404(
    settings: Settings, databases: Any, taken: Any, pool: Any, alice: Any, bob: Any
) -> None:
    now = time.time()
    still = CheckedApp(create_app(settings, clock=lambda: now))
    headers = {**alice.headers, "X-Request-ID": "same"}
    path = f"/v2/accounts/{alice.id}/ips/{FIRST}"
    absent = still.get(path, headers=headers, status=404)
    taken(FIRST, bob)
    hidden = still.get(path, headers=headers, status=404)
    assert hidden.body == absent.body
    assert hidden.headers == absent.headers


def test_an_address_of_an_account_below_is_shown(
    api: TestApp, taken: Any, alice: Any, child: Any
) -> None:
    taken(FIRST, child)
    reply = api.get(f"/v2/accounts/{alice.id}/ips/{FIRST}", headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(FIRST, child)
    reply = api.get(f"/v2/accounts/{child.id}/ips/{FIRST}", headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(FIRST, child)


def test_an_address_of_the_account_above_is_hidden(
    api: TestApp, taken: Any, alice: Any, child: Any
) -> None:
    taken(FIRST, alice)
    reply = api.get(f"/v2/accounts/{child.id}/ips/{FIRST}", headers=child.headers, status=404)
    data = failure(reply, child.token, "bad_identifier")
    assert data == {"cause": FIRST, "message": "bad identifier"}


@pytest.mark.parametrize(
    ("status", "owner", "shown"),
    [("parked", None, 200), ("parked", "bob", 404), ("available", "bob", 200)],
    ids=["no account has it", "another account has it", "it was made available by hand"],
)
def test_an_address_is_hidden_if_another_account_may_have_it(
    api: TestApp, add: Any, pool: Any, alice: Any, bob: Any, status: str, owner: str, shown: int
) -> None:
    """Only a newer release knows the first status."""
    add(FIRST)
    fields = {"pvt_status": status, "pvt_assigned_to": bob.id if owner else None}
    pool.put({k: v for k, v in {**pool.get(FIRST), **fields}.items() if v is not None})
    api.get(f"/v2/accounts/{alice.id}/ips/{FIRST}", headers=alice.headers, status=shown)


def test_an_address_of_a_deleted_account_is_hidden_from_all_but_the_operator(
    api: TestApp, taken: Any, pool: Any, alice: Any, operator: Any
) -> None:
    taken(FIRST, alice)
    pool.put({**pool.get(FIRST), "pvt_assigned_to": "d" * 32})
    path = f"/v2/accounts/{alice.id}/ips/{FIRST}"
    data = failure(api.get(path, headers=alice.headers, status=404), alice.token, "bad_identifier")
    assert data == {"cause": FIRST, "message": "bad identifier"}
    api.get(path, headers=operator.headers, status=200)


# /v2/ips


def test_the_operator_lists_the_pool(
    api: TestApp, add: Any, taken: Any, operator: Any, alice: Any, bob: Any
) -> None:
    add(SECOND)
    add(FIRST)
    taken("203.0.113.2", bob)
    taken("203.0.113.1", alice)
    taken("203.0.113.3", alice, zone="eu-west", host="proxy2.example.com")
    reply = api.get("/v2/ips", headers=operator.headers, status=200)
    assert page(reply, operator.token) == [{"ip": a, **LISTED} for a in (FIRST, SECOND)]
    reply = api.get("/v2/ips/assigned", headers=operator.headers, status=200)
    assert page(reply, operator.token) == [
        {
            "ip": "203.0.113.3",
            "zone": "eu-west",
            "host": "proxy2.example.com",
            "assigned_to": alice.id,
            "account_name": "Alice",
        },
        {"ip": "203.0.113.1", **LISTED, "assigned_to": alice.id, "account_name": "Alice"},
        {"ip": "203.0.113.2", **LISTED, "assigned_to": bob.id, "account_name": "Bob"},
    ]


def test_the_operator_sees_any_address(api: TestApp, taken: Any, operator: Any, bob: Any) -> None:
    taken(FIRST, bob)
    reply = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    assert success(reply, operator.token) == assigned(FIRST, bob)


def test_the_operator_deletes_an_available_address(api: TestApp, add: Any, operator: Any) -> None:
    add(FIRST)
    reply = api.delete(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    deleted = success(reply, operator.token)
    assert {k: v for k, v in deleted.items() if k != "_read_only"} == available(FIRST)
    assert deleted["_read_only"]["deleted"] is True
    api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=404)
    api.delete(f"/v2/ips/{FIRST}", headers=operator.headers, status=404)


@pytest.mark.parametrize("query", ["", "?force=false", "?force=", "?force=0"])
def test_an_assigned_address_is_not_deleted(
    api: TestApp, taken: Any, operator: Any, alice: Any, query: str
) -> None:
    taken(FIRST)
    reply = api.delete(f"/v2/ips/{FIRST}{query}", headers=operator.headers, status=409)
    data = failure(reply, operator.token, "datastore_conflict")
    assert data == {"ips": {FIRST: "assigned"}, "message": "conflicting documents"}
    reply = api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    assert success(reply, operator.token) == assigned(FIRST, alice)


def test_a_force_that_is_no_boolean_is_400_and_deletes_nothing(
    api: TestApp, taken: Any, operator: Any
) -> None:
    taken(FIRST)
    reply = api.delete(f"/v2/ips/{FIRST}?force=perhaps", headers=operator.headers, status=400)
    assert invalid(reply, operator.token) == wrong_type("force", "boolean", "perhaps")
    api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)


@pytest.mark.parametrize("word", ["true", "yes", "1"])
def test_force_deletes_an_assigned_address_and_its_copy(
    api: TestApp, databases: Any, taken: Any, operator: Any, alice: Any, word: str
) -> None:
    taken(FIRST)
    assert databases.find(account_database(alice.id), FIRST)
    reply = api.delete(f"/v2/ips/{FIRST}?force={word}", headers=operator.headers, status=200)
    deleted = success(reply, operator.token)
    assert {k: v for k, v in deleted.items() if k != "_read_only"} == available(FIRST)
    assert deleted["_read_only"]["deleted"] is True
    assert databases.find(account_database(alice.id), FIRST) is None
    assert databases.find("dedicated_ips", FIRST) is None


@pytest.mark.parametrize("value", [True, "true", 1])
@pytest.mark.parametrize("place", ["data", "envelope"])
def test_force_can_be_in_the_body(
    api: TestApp, taken: Any, operator: Any, place: str, value: Any
) -> None:
    taken(FIRST)
    body = {"data": {"force": value}} if place == "data" else {"force": value}
    api.delete_json(f"/v2/ips/{FIRST}", body, headers=operator.headers, status=200)
    api.get(f"/v2/ips/{FIRST}", headers=operator.headers, status=404)


@pytest.mark.parametrize("value", [False, 0, "no", None, ""])
def test_a_force_of_false_in_the_body_deletes_no_assigned_address(
    api: TestApp, taken: Any, operator: Any, value: Any
) -> None:
    taken(FIRST)
    body = {"data": {"force": value}}
    api.delete_json(f"/v2/ips/{FIRST}", body, headers=operator.headers, status=409)


@pytest.mark.parametrize("value", ["perhaps", 2, [], {"a": 1}])
def test_a_force_in_the_body_that_is_no_boolean_is_400(
    api: TestApp, taken: Any, operator: Any, value: Any
) -> None:
    taken(FIRST)
    body = {"data": {"force": value}}
    reply = api.delete_json(f"/v2/ips/{FIRST}", body, headers=operator.headers, status=400)
    assert invalid(reply, operator.token) == wrong_type("force", "boolean", value)


def test_a_deleted_address_can_be_created_again(api: TestApp, add: Any, operator: Any) -> None:
    add(FIRST)
    api.delete(f"/v2/ips/{FIRST}", headers=operator.headers, status=200)
    data = {"ip": FIRST, "zone": "eu-west", "host": "proxy2.example.com"}
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=201)
    made = success(reply, operator.token)
    assert {k: made[k] for k in data} == data


# Logins, methods, paths and request ids


@pytest.mark.parametrize("how", ["account_name", "account_realm", "realm"])
def test_a_login_gives_a_token(api: TestApp, alice: Any, how: str) -> None:
    where = alice.account.name if how == "account_name" else alice.account.realm
    data = {"credentials": md5("admin:secret"), how: where}
    reply = api.put_json("/v2/user_auth", {"data": data}, status=201)
    token = reply.json["auth_token"]
    session = success(reply, token)
    assert (session["account_id"], session["owner_id"]) == (alice.id, alice.user.id)
    assert session["account_name"] == "Alice"
    reply = api.get(
        f"/v2/accounts/{alice.id}/ips/zones", headers={"X-Auth-Token": token}, status=200
    )
    assert success(reply, token) is not None


def test_an_api_key_gives_a_token(api: TestApp, alice: Any) -> None:
    data = {"api_key": alice.account.api_key}
    reply = api.put_json("/v2/api_auth", {"data": data}, status=201)
    token = reply.json["auth_token"]
    session = success(reply, token)
    assert session["account_id"] == alice.id
    assert "owner_id" not in session
    api.get(f"/v2/accounts/{alice.id}/ips", headers={"X-Auth-Token": token}, status=200)


def test_the_operator_reads_the_version(api: TestApp, operator: Any) -> None:
    reply = api.get("/v2/about", headers=operator.headers, status=200)
    assert success(reply, operator.token) == {
        "version": version("kazoo_ips"),
        "python_version": platform.python_version(),
    }


ALLOWED = {
    "/v2/accounts/{A}/ips": "DELETE, GET, HEAD, POST, PUT",
    "/v2/accounts/{A}/ips/assigned": "GET, HEAD",
    "/v2/accounts/{A}/ips/zones": "GET, HEAD",
    "/v2/accounts/{A}/ips/hosts": "GET, HEAD",
    "/v2/accounts/{A}/ips/192.0.2.1": "DELETE, GET, HEAD, POST",
    "/v2/ips": "GET, HEAD, PUT",
    "/v2/ips/assigned": "GET, HEAD",
    "/v2/ips/zones": "GET, HEAD",
    "/v2/ips/hosts": "GET, HEAD",
    "/v2/ips/192.0.2.1": "DELETE, GET, HEAD, PATCH",
    "/v2/user_auth": "PUT",
    "/v2/api_auth": "PUT",
    "/v2/about": "GET, HEAD",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_a_method_that_a_route_does_not_have_is_405_and_allow_names_those_it_has(
    api: TestApp, operator: Any, path: str, allowed: str
) -> None:
    for method in {"PATCH", "GET", "PUT", "POST", "DELETE", "OPTIONS"} - set(allowed.split(", ")):
        url = path.format(A=operator.id)
        reply = api.request(url, method=method, headers=operator.headers, status=405)
        data = failure(reply, operator.token, "invalid_method")
        assert data == {"message": "method not allowed"}
        assert reply.headers["Allow"] == allowed
    if "HEAD" not in allowed:
        reply = api.head(path.format(A=operator.id), headers=operator.headers, status=405)
        assert reply.headers["Allow"] == allowed


def test_a_trailing_slash_is_tolerated(
    api: TestApp, taken: Any, operator: Any, alice: Any
) -> None:
    taken(FIRST)
    for route in ALLOWED:
        path, method = route.format(A=alice.id), "PUT" if route.endswith("_auth") else "GET"
        status = 400 if method == "PUT" else 200
        without = api.request(path, method=method, headers=operator.headers, status=status)
        reply = api.request(f"{path}/", method=method, headers=operator.headers, status=status)
        assert reply.json["data"] == without.json["data"]


def test_a_bulk_assign_with_a_trailing_slash_works(api: TestApp, add: Any, alice: Any) -> None:
    add(FIRST)
    path, body = f"/v2/accounts/{alice.id}/ips/", {"data": {"ips": [FIRST]}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FIRST]}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing", "/v1", "/v1/ips", "/v3/ips", "/ips", "/v2/IPS", "/v2//ips",
        "/v2/accounts", "/v2/accounts/{A}", "/v2/accounts/{A}/nothing", "/v2/accounts//ips",
        "/v2/accounts/{A}/ips/192.0.2.1/more", "/v2/ips/192.0.2.1/more", "/v2/accounts/ips",
        "/v2/user_auth/more", "/v2/accounts/{A}/ips//", "/v2/%E9",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_an_unknown_route_is_404(api: TestApp, operator: Any, path: str, method: str) -> None:
    url = path.format(A=operator.id)
    reply = api.request(url, method=method, headers=operator.headers, status=404)
    assert failure(reply, operator.token, "not_found") == {"message": "not found"}
    reply = api.request(url, method=method, status=404)
    assert failure(reply, None, "not_found") == {"message": "not found"}


def test_a_missing_token_is_401_with_a_challenge(api: TestApp, alice: Any) -> None:
    reply = api.get(f"/v2/accounts/{alice.id}/ips", status=401)
    assert failure(reply, None, "invalid_credentials") == {"message": "invalid credentials"}
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_bad_token_is_401_and_is_echoed(api: TestApp, alice: Any) -> None:
    headers = {"X-Auth-Token": "nonsense"}
    reply = api.get(f"/v2/accounts/{alice.id}/ips", headers=headers, status=401)
    assert failure(reply, "nonsense", "invalid_credentials") == {"message": "invalid credentials"}
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_operator_learns_that_an_account_does_not_exist(api: TestApp, operator: Any) -> None:
    for account_id in ("f" * 32, "nonsense"):
        reply = api.get(f"/v2/accounts/{account_id}/ips", headers=operator.headers, status=404)
        data = failure(reply, operator.token, "bad_identifier")
        assert data == {"cause": account_id, "message": "bad identifier"}


@pytest.mark.parametrize(
    "offered", ["a", "x" * 128, "!", "~", "c4e0e231-0001", '{"a":"b"}', "<script>"]
)
def test_a_request_id_of_visible_ascii_is_echoed(api: TestApp, alice: Any, offered: str) -> None:
    headers = {**alice.headers, "X-Request-ID": offered}
    reply = api.get(f"/v2/accounts/{alice.id}/ips/zones", headers=headers, status=200)
    success(reply, alice.token)
    assert reply.headers["X-Request-ID"] == offered
    reply = api.get("/v2/nothing", headers=headers, status=404)
    failure(reply, alice.token, "not_found")
    assert reply.headers["X-Request-ID"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 129, "two words", "caf\xe9", "a\tb", " a", "a\x7f"])
def test_another_request_id_is_replaced(api: TestApp, alice: Any, offered: str) -> None:
    headers = {**alice.headers, "X-Request-ID": offered}
    reply = api.get(f"/v2/accounts/{alice.id}/ips/zones", headers=headers, status=200)
    success(reply, alice.token)
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["X-Request-ID"])


def test_every_request_without_an_id_gets_one_of_its_own(api: TestApp, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips/zones"
    ids = {api.get(path, headers=alice.headers).headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_an_unexpected_error_is_500_and_logged_with_the_request_id_only(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)

    @app.get("/v2/broken")
    def broken_route() -> str:
        raise ZeroDivisionError("the secret of the house")

    headers = {"X-Request-ID": "find-me"}
    reply = TestApp(app).get("/v2/broken", headers=headers, status=500)
    assert failure(reply, None, "unspecified_fault") == {"message": "unspecified fault"}
    assert "secret" not in reply.text
    assert "find-me" in caplog.text
    assert "the secret of the house" in caplog.text
