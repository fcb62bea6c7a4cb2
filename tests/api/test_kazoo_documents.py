"""Documents of a running Kazoo are usable, and the service writes the same fields."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.model import generation
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.recorded import (
    DATABASES,
    MASTER,
    SUB_ONE,
    SUB_THREE,
    SUB_TWO,
    Kazoo,
    document,
    token,
)
from tests.api.replies import broken, failure, invalid, page, success

GREGORIAN = 62_167_219_200
MASTERS = {"X-Auth-Token": token("user_auth ok by realm")}
ANNS = {"X-Auth-Token": token("user_auth s1admin")}
BOBS = {"X-Auth-Token": token("user_auth s2admin")}
POOL = DATABASES["dedicated_ips"]
ADDRESS = "192.0.2.1"


def numeric(document: dict[str, Any]) -> Any:
    return document["pvt_zone"], [int(n) for n in document["_id"].split(".")]


def listed(document: dict[str, Any]) -> dict[str, str]:
    return {
        "ip": document["_id"],
        "zone": document["pvt_zone"],
        "host": document["pvt_host"],
    }


OURS = {"pvt_request_id", "pvt_trail", "pvt_written_generation"}
"""Fields that Kazoo's own documents do not have."""
OF_THE_POOL = {"_rev", "pvt_trail", "pvt_transaction", "pvt_written_generation"}
"""Fields that only our documents of the pool have. The copies do not have them."""


def without_revision(document: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k not in OF_THE_POOL}


# Kazoo's


def test_addresses_written_by_kazoo_are_listed(kazoo: Kazoo) -> None:
    free = sorted((d for d in POOL if d["pvt_status"] == "available"), key=numeric)
    taken = sorted((d for d in POOL if d["pvt_status"] == "assigned"), key=numeric)
    reply = kazoo.api.get("/v2/ips", headers=MASTERS, status=200)
    assert page(reply, MASTERS["X-Auth-Token"]) == [listed(d) for d in free]
    reply = kazoo.api.get("/v2/ips/assigned", headers=MASTERS, status=200)
    assert page(reply, MASTERS["X-Auth-Token"]) == [
        {
            **listed(d),
            "assigned_to": d["pvt_assigned_to"],
            "account_name": document("accounts", d["pvt_assigned_to"])["name"],
        }
        for d in taken
    ]
    reply = kazoo.api.get(f"/v2/accounts/{SUB_ONE}/ips/assigned", headers=ANNS, status=200)
    assert page(reply, ANNS["X-Auth-Token"]) == [
        listed(d) for d in taken if d["pvt_assigned_to"] == SUB_ONE
    ]


def test_zones_and_hosts_written_by_kazoo_are_listed(kazoo: Kazoo) -> None:
    reply = kazoo.api.get("/v2/ips/zones", headers=MASTERS, status=200)
    zones = success(reply, MASTERS["X-Auth-Token"])
    assert zones == sorted({d["pvt_zone"] for d in POOL})
    reply = kazoo.api.get("/v2/ips/hosts", headers=MASTERS, status=200)
    hosts = success(reply, MASTERS["X-Auth-Token"])
    assert hosts == sorted({d["pvt_host"] for d in POOL})


@pytest.mark.parametrize("address", ["10.1.0.1", "10.1.0.2", "10.1.0.3"])
def test_a_document_written_by_kazoo_is_shown(kazoo: Kazoo, address: str) -> None:
    recorded = document("dedicated_ips", address)
    shown = {
        "id": address,
        **listed(recorded),
        "status": recorded["pvt_status"],
        "type": "dedicated_ip",
    }
    if recorded["pvt_status"] == "assigned":
        shown["assigned_to"] = recorded["pvt_assigned_to"]
    reply = kazoo.api.get(f"/v2/ips/{address}", headers=MASTERS, status=200)
    assert success(reply, MASTERS["X-Auth-Token"]) == shown
    assert reply.json["revision"] == recorded["_rev"]


def test_a_document_written_by_kazoo_is_assigned_released_and_deleted(kazoo: Kazoo) -> None:
    address, copies = "10.77.119.10", account_database(SUB_TWO)
    before = document("dedicated_ips", address)
    path = f"/v2/accounts/{SUB_TWO}/ips/{address}"
    headers = {**BOBS, "X-Request-ID": "the-first-write"}
    reply = kazoo.api.post(path, headers=headers, status=200)
    now = kazoo.databases.get("dedicated_ips", address)
    assert without_revision(now) == {
        **without_revision(before),
        "pvt_status": "assigned",
        "pvt_assigned_to": SUB_TWO,
        "pvt_modified": now["pvt_modified"],
        "pvt_request_id": "the-first-write",
    }
    assert now["_rev"] == reply.json["revision"]
    assert now["_rev"].startswith("4-")
    copy = kazoo.databases.get(copies, address)
    assert without_revision(copy) == without_revision(now)

    kazoo.api.delete(path, headers={**BOBS, "X-Request-ID": "the-second-write"}, status=200)
    now = kazoo.databases.get("dedicated_ips", address)
    assert without_revision(now) == {
        **without_revision(before),
        "pvt_modified": now["pvt_modified"],
        "pvt_request_id": "the-second-write",
    }
    assert kazoo.databases.find(copies, address) is None

    kazoo.api.delete(f"/v2/ips/{address}", headers=MASTERS, status=200)
    assert kazoo.databases.find("dedicated_ips", address) is None


def test_an_address_assigned_by_kazoo_is_released_with_its_copy(kazoo: Kazoo) -> None:
    address, copies = "10.1.0.11", account_database(SUB_ONE)
    assert kazoo.databases.get(copies, address)["pvt_assigned_to"] == SUB_ONE
    body = {"data": {"ips": [address]}}
    kazoo.api.delete_json(f"/v2/accounts/{SUB_ONE}/ips", body, headers=ANNS, status=200)
    now = kazoo.databases.get("dedicated_ips", address)
    assert now["pvt_status"] == "available"
    assert "pvt_assigned_to" not in now
    assert kazoo.databases.find(copies, address) is None
    assert kazoo.databases.get(copies, "10.1.0.1") == document(copies, "10.1.0.1")


def test_an_existing_copy_is_overwritten(kazoo: Kazoo) -> None:
    address, copies = "172.16.30.1", account_database(SUB_ONE)
    left_over = document(copies, address)
    kazoo.databases.put("dedicated_ips", kazoo_document(address, "zone9", "host9.example.com"))
    kazoo.api.post(f"/v2/accounts/{SUB_ONE}/ips/{address}", headers=ANNS, status=200)
    copy = kazoo.databases.get(copies, address)
    assert copy["_rev"].startswith("2-")
    assert copy["_rev"] != left_over["_rev"]
    pool = kazoo.databases.get("dedicated_ips", address)
    assert without_revision(copy) == without_revision(pool)
    kazoo.api.delete(f"/v2/ips/{address}?force=true", headers=MASTERS, status=200)


def test_an_address_assigned_by_kazoo_to_another_account_is_refused(kazoo: Kazoo) -> None:
    body = {"data": {"ips": ["10.1.0.2", "10.1.0.1", "10.1.0.3"]}}
    reply = kazoo.api.post_json(f"/v2/accounts/{SUB_ONE}/ips", body, headers=ANNS, status=400)
    assert invalid(reply, ANNS["X-Auth-Token"]) == {
        **broken("ips.0", "forbidden", "ip assigned to another account", value="10.1.0.2"),
        **broken("ips.1", "superfluous", "ip already assigned", value="10.1.0.1"),
    }
    assert kazoo.databases.get("dedicated_ips", "10.1.0.3") == document(
        "dedicated_ips", "10.1.0.3"
    )


def test_the_operator_releases_an_address_of_a_disabled_account(kazoo: Kazoo) -> None:
    path = f"/v2/accounts/{SUB_THREE}/ips/10.3.0.2"
    kazoo.api.delete(path, headers=MASTERS, status=200)
    assert kazoo.databases.find(account_database(SUB_THREE), "10.3.0.2") is None
    kazoo.api.post(path, headers=MASTERS, status=200)
    copy = kazoo.databases.get(account_database(SUB_THREE), "10.3.0.2")
    assert copy["pvt_assigned_to"] == SUB_THREE


def test_copies_without_a_pool_document_stay_when_all_is_released(kazoo: Kazoo) -> None:
    reply = kazoo.api.delete(f"/v2/accounts/{MASTER}/ips", headers=MASTERS, status=200)
    assert success(reply, MASTERS["X-Auth-Token"]) == {"ips": []}


# Ours


def test_a_created_document_has_kazoos_fields_and_the_request_id(
    api: TestApp, pool: Any, databases: Databases, operator: Any
) -> None:
    kazoos = document("dedicated_ips", "10.1.0.10")
    data = {"ip": ADDRESS, "zone": "zone1", "host": "host2.example.com", "note": "x", "pvt_a": 1}
    headers = {**operator.headers, "X-Request-ID": "made-here"}
    start = int(time.time()) + GREGORIAN
    reply = api.put_json("/v2/ips", {"data": data}, headers=headers, status=201)
    made = databases.get("dedicated_ips", ADDRESS)
    assert made.keys() == kazoos.keys() | OURS
    assert start <= made["pvt_created"] <= int(time.time()) + GREGORIAN
    assert made == {
        **kazoos,
        "_id": ADDRESS,
        "_rev": reply.json["revision"],
        "pvt_created": made["pvt_created"],
        "pvt_modified": made["pvt_created"],
        "pvt_request_id": "made-here",
        "pvt_written_generation": generation(made["_rev"]),
        "pvt_trail": [
            {
                "event": "created",
                "at": made["pvt_created"],
                "request_id": "made-here",
                "generation": generation(made["_rev"]),
                "by": {"account_id": operator.id, "user_id": operator.user.id},
                "state": {
                    "status": "available",
                    "account_id": None,
                    "zone": "zone1",
                    "host": "host2.example.com",
                },
            }
        ],
    }


@pytest.mark.parametrize("how", ["one", "several"])
def test_an_assigned_document_and_its_copy_have_kazoos_fields(
    api: TestApp, load: Callable[..., None], databases: Databases, alice: Any, how: str
) -> None:
    addresses = [ADDRESS] if how == "one" else [ADDRESS, "192.0.2.2", "2001:db8::1"]
    load(*map(kazoo_document, addresses))
    path = f"/v2/accounts/{alice.id}/ips"
    headers = {**alice.headers, "X-Request-ID": "made-here"}
    if how == "one":
        api.post(f"{path}/{ADDRESS}", headers=headers, status=200)
    else:
        api.post_json(path, {"data": {"ips": addresses}}, headers=headers, status=200)
    kazoos = document("dedicated_ips", "10.1.0.1")
    for address in addresses:
        made = databases.get("dedicated_ips", address)
        ours = OURS | ({"pvt_transaction"} if how != "one" else set())
        assert made.keys() == kazoos.keys() | ours
        assert without_revision(made) == {
            **kazoo_document(address, owner=alice.id),
            "pvt_modified": made["pvt_modified"],
            "pvt_request_id": "made-here",
        }
        assert abs(made["pvt_modified"] - GREGORIAN - time.time()) < 10
        copy = databases.get(account_database(alice.id), address)
        assert without_revision(copy) == without_revision(made)
    api.delete(path, headers=headers, status=200)
    for address in addresses:
        made = databases.get("dedicated_ips", address)
        kazoos = document("dedicated_ips", "10.1.0.10")
        assert made.keys() == kazoos.keys() | OURS
        assert made["pvt_status"] == "available"
        assert databases.find(account_database(alice.id), address) is None


UNKNOWN = {
    "note": "public", "pvt_note": ["private"], "pvt_deep": {"a": {"b": None}}, "pvt_vsn": "7",
    "pvt_account_db": "x",
}  # fmt: skip


@pytest.mark.parametrize("how", ["one", "several"])
def test_every_write_keeps_unknown_fields(
    api: TestApp, load: Callable[..., None], databases: Databases, alice: Any, how: str
) -> None:
    addresses = [ADDRESS] if how == "one" else [ADDRESS, "192.0.2.2"]
    load(*(kazoo_document(address, **UNKNOWN) for address in addresses))
    path = f"/v2/accounts/{alice.id}/ips"
    steps = [("POST", f"{path}/{ADDRESS}"), ("DELETE", f"{path}/{ADDRESS}")]
    if how == "several":
        steps = [("POST", path), ("DELETE", path)]
    for method, url in steps:
        body = {"data": {"ips": addresses}}
        getattr(api, f"{method.lower()}_json")(url, body, headers=alice.headers, status=200)
        for address in addresses:
            now = databases.get("dedicated_ips", address)
            assert {k: now.get(k) for k in UNKNOWN} == UNKNOWN


def test_a_document_with_an_attachment_is_assigned_and_copied(
    api: TestApp, load: Callable[..., None], databases: Databases, alice: Any
) -> None:
    attached = {"a.txt": {"content_type": "text/plain", "data": "eA=="}}
    load(kazoo_document(ADDRESS, _attachments=attached))
    path = f"/v2/accounts/{alice.id}/ips/{ADDRESS}"
    api.post(path, headers=alice.headers, status=200)
    assert databases.get("dedicated_ips", ADDRESS)["_attachments"].keys() == {"a.txt"}
    assert databases.get(account_database(alice.id), ADDRESS)["pvt_assigned_to"] == alice.id


JUNK: list[dict[str, Any]] = [
    {"_id": "junk"},
    {"_id": "192.0.2.50"},
    {"_id": "192.0.2.51", "pvt_type": "something"},
    kazoo_document("192.0.2.52", pvt_deleted=True),
    kazoo_document("192.0.2.53", "zone-x", "x.example.com", owner="f" * 32, pvt_deleted=True),
    kazoo_document("04ba5c3ad8b2a5c9a7b3d4c1b2a0ffee"),
    kazoo_document("192.0.2.054", "zone-x"),
    kazoo_document("192.0.2.0/24", "zone-x"),
    kazoo_document("nope", "zone-x", "x.example.com", owner="f" * 32),
]


def test_a_document_that_is_no_address_is_never_shown_or_written(
    api: TestApp, load: Callable[..., None], databases: Databases, operator: Any, alice: Any
) -> None:
    load(*JUNK, kazoo_document(ADDRESS))
    before = databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"]
    only = [{"ip": ADDRESS, "zone": "us-east", "host": "proxy1.example.com"}]
    get = {"headers": operator.headers, "status": 200}
    assert page(api.get("/v2/ips", **get), operator.token) == only
    assert page(api.get("/v2/ips/assigned", **get), operator.token) == []
    assert success(api.get("/v2/ips/zones", **get), operator.token) == ["us-east"]
    assert success(api.get("/v2/ips/hosts", **get), operator.token) == ["proxy1.example.com"]
    for junk in JUNK:
        if "/" not in junk["_id"]:
            for prefix in ("/v2", f"/v2/accounts/{alice.id}"):
                path = f"{prefix}/ips/{junk['_id']}"
                reply = api.get(path, headers=operator.headers, status=404)
                data = failure(reply, operator.token, "bad_identifier")
                assert data == {"cause": junk["_id"], "message": "bad identifier"}
                api.delete(path, headers=operator.headers, status=404)
    items = ["192.0.2.50", "192.0.2.51", "192.0.2.52", "192.0.2.53"]
    path = f"/v2/accounts/{alice.id}/ips"
    for method in (api.post_json, api.delete_json):
        reply = method(path, {"data": {"ips": items}}, headers=operator.headers, status=400)
        assert invalid(reply, operator.token) == {
            f"ips.{i}": {"not_found": {"message": "ip not found", "value": each}}
            for i, each in enumerate(items)
        }
    assert databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"] == before


@pytest.mark.parametrize("document_id", ["_design%2Fips", "_design/ips", "_design", "_local%2Fx"])
def test_a_design_document_is_never_shown(
    api: TestApp, pool: Any, operator: Any, document_id: str
) -> None:
    reply = api.get(f"/v2/ips/{document_id}", headers=operator.headers, status=404)
    assert "views" not in reply.text


def test_a_design_document_in_a_list_is_no_address(api: TestApp, pool: Any, operator: Any) -> None:
    path, items = f"/v2/accounts/{operator.id}/ips", ["_design/ips", "_local/x", "_all_docs"]
    reply = api.post_json(path, {"data": {"ips": items}}, headers=operator.headers, status=400)
    assert invalid(reply, operator.token) == {
        f"ips.{i}": {"not_one_schema_valid": {"message": "failed to validate", "value": each}}
        for i, each in enumerate(items)
    }


def test_kazoos_design_document_is_left_alone(kazoo: Kazoo) -> None:
    kazoos = {"_id": "_design/dedicated_ips", "language": "javascript", "views": {}}
    kazoo.databases.put("dedicated_ips", kazoos)
    before = kazoo.databases.get("dedicated_ips", "_design/dedicated_ips")
    composition.databases(kazoo.settings).create()
    kazoo.api.get("/v2/ips", headers=MASTERS, status=200)
    assert kazoo.databases.get("dedicated_ips", "_design/dedicated_ips") == before
    reply = kazoo.api.get("/v2/ips/_design%2Fdedicated_ips", headers=MASTERS, status=404)
    assert "views" not in reply.text


@pytest.mark.parametrize("fields", [{"pvt_zone": None}, {"pvt_host": None}, {"pvt_vsn": None}])
def test_a_document_that_lacks_a_field_is_usable(
    api: TestApp, load: Callable[..., None], databases: Databases, alice: Any, fields: Any
) -> None:
    incomplete = {**kazoo_document(ADDRESS), **fields}
    load({k: v for k, v in incomplete.items() if v is not None})
    path = f"/v2/accounts/{alice.id}/ips/{ADDRESS}"
    reply = api.get(path, headers=alice.headers, status=200)
    shown = success(reply, alice.token)
    assert shown == {
        "id": ADDRESS,
        "ip": ADDRESS,
        "zone": incomplete["pvt_zone"] or "",
        "host": incomplete["pvt_host"] or "",
        "status": "available",
        "type": "dedicated_ip",
    }
    reply = api.get(f"/v2/accounts/{alice.id}/ips", headers=alice.headers, status=200)
    assert page(reply, alice.token) == [{k: shown[k] for k in ("ip", "zone", "host")}]
    api.post(path, headers=alice.headers, status=200)
    assert databases.get("dedicated_ips", ADDRESS)["pvt_assigned_to"] == alice.id
    api.delete(path, headers=alice.headers, status=200)


def test_an_address_assigned_to_no_account_cannot_be_assigned(
    api: TestApp, load: Callable[..., None], operator: Any, alice: Any
) -> None:
    load({**kazoo_document(ADDRESS), "pvt_status": "assigned"})
    path = f"/v2/accounts/{alice.id}/ips"
    assert page(api.get(path, headers=alice.headers, status=200), alice.token) == []
    api.get(f"{path}/{ADDRESS}", headers=alice.headers, status=404)
    reply = api.post(f"{path}/{ADDRESS}", headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == broken(
        "ips.0", "forbidden", "ip assigned to another account", value=ADDRESS
    )
    shown = api.get(f"/v2/ips/{ADDRESS}", headers=operator.headers, status=200).json["data"]
    assert shown["status"] == "assigned"
    assert "assigned_to" not in shown
    api.delete(f"/v2/ips/{ADDRESS}?force=true", headers=operator.headers, status=200)


def test_an_address_of_a_deleted_account_can_be_deleted(
    api: TestApp, load: Callable[..., None], databases: Databases, operator: Any, alice: Any
) -> None:
    deleted_account = "0" * 32
    load(kazoo_document(ADDRESS, owner=deleted_account))
    api.get(f"/v2/accounts/{alice.id}/ips/{ADDRESS}", headers=alice.headers, status=404)
    reply = api.get("/v2/ips/assigned", headers=operator.headers, status=200)
    assert [ip["assigned_to"] for ip in page(reply, operator.token)] == [deleted_account]
    api.delete(f"/v2/ips/{ADDRESS}?force=true", headers=operator.headers, status=200)
    assert databases.find("dedicated_ips", ADDRESS) is None
