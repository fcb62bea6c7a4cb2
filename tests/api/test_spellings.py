"""Every spelling of an address is one dedicated IP, in requests and in Kazoo's documents."""

from typing import Any
from urllib.parse import quote

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, AssignIPs, ReleaseIP, ReleaseIPs
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.replies import IP, broken, failure, invalid, page, success

CANONICAL = "2001:db8::1"
SPELLINGS = [
    "2001:db8::1", "2001:DB8::1", "2001:0db8::0001", "2001:db8:0:0:0:0:0:1", "2001:db8:0::0:1",
    "2001:0DB8:0000:0000:0000:0000:0000:0001", "2001:db8::0.0.0.1",
]  # fmt: skip
IN_PATHS = [*SPELLINGS, quote("2001:DB8::1", safe=""), "2001%3adb8%3a%3a1", "%32001:db8::1"]
PAIRS = {
    "192.0.2.1": ["::FFFF:192.0.2.1", "::ffff:c000:201", "0:0:0:0:0:ffff:c000:0201"],
    "2001:db8:0:1:1:1:1:1": ["2001:db8::1:1:1:1:1"],
    "2001:db8::1:0:0:1": ["2001:db8:0:0:1::1", "2001:db8:0:0:1:0:0:1"],
    "1::": ["1::0", "0001:0:0:0:0:0:0:0", "1::0.0.0.0"],
    "2001:db8:a::": ["2001:DB8:A::0", "2001:db8:a:0:0:0:0:0"],
}


def assigned(address: str, owner: Any) -> dict[str, Any]:
    shown = {"id": address, "ip": address, "status": "assigned", "assigned_to": owner.id}
    return {**shown, **IP}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_address_is_created_in_its_canonical_spelling(
    api: TestApp, pool: Any, databases: Databases, operator: Any, spelling: str
) -> None:
    data = {"ip": spelling, "zone": "us-east", "host": "proxy1.example.com"}
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=201)
    made = success(reply, operator.token)
    assert (made["id"], made["ip"], made["_read_only"]["id"]) == (CANONICAL,) * 3
    assert databases.find("dedicated_ips", CANONICAL)
    for other in (CANONICAL, SPELLINGS[-1]):
        again = {"data": {**data, "ip": other}}
        reply = api.put_json("/v2/ips", again, headers=operator.headers, status=409)
        refusal = failure(reply, operator.token, "datastore_conflict")
        assert refusal == {"message": "conflicting documents"}


@pytest.mark.parametrize("canonical", PAIRS)
def test_the_canonical_spelling_is_that_of_rfc_5952(
    api: TestApp, pool: Any, databases: Databases, operator: Any, canonical: str
) -> None:
    data = {"zone": "us-east", "host": "proxy1.example.com"}
    first, *others = [*PAIRS[canonical], canonical]
    body = {"data": {**data, "ip": first}}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=201)
    assert reply.json["data"]["ip"] == canonical
    for other in others:
        body = {"data": {**data, "ip": other}}
        api.put_json("/v2/ips", body, headers=operator.headers, status=409)


@pytest.mark.parametrize("segment", IN_PATHS)
def test_any_spelling_in_a_path_finds_the_address(
    api: TestApp, add: Any, operator: Any, alice: Any, segment: str
) -> None:
    add(CANONICAL)
    path = f"/v2/accounts/{alice.id}/ips/{segment}"
    reply = api.post(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(CANONICAL, alice)
    reply = api.get(f"/v2/ips/{segment}", headers=operator.headers, status=200)
    assert success(reply, operator.token) == assigned(CANONICAL, alice)
    reply = api.delete(path, headers=alice.headers, status=200)
    assert success(reply, alice.token)["id"] == CANONICAL
    api.delete(f"/v2/ips/{segment}", headers=operator.headers, status=200)
    api.get(f"/v2/ips/{segment}", headers=operator.headers, status=404)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_spelling_in_a_list_finds_the_address(
    api: TestApp, add: Any, databases: Databases, alice: Any, spelling: str
) -> None:
    add(CANONICAL)
    path, body = f"/v2/accounts/{alice.id}/ips", {"data": {"ips": [spelling]}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [CANONICAL]}
    assert databases.get(account_database(alice.id), CANONICAL)["pvt_assigned_to"] == alice.id
    reply = api.delete_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [CANONICAL]}
    assert databases.find(account_database(alice.id), CANONICAL) is None


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_two_spellings_of_one_address_are_a_repetition(
    api: TestApp, add: Any, alice: Any, method: str
) -> None:
    add(CANONICAL)
    path, items = f"/v2/accounts/{alice.id}/ips", [CANONICAL, "192.0.2.1", "2001:DB8::1"]
    send = {"POST": api.post_json, "DELETE": api.delete_json}[method]
    reply = send(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
    message = "List of items is not unique"
    assert invalid(reply, alice.token) == broken(
        "ips.2", "uniqueItems", message, value="2001:DB8::1"
    )


# Documents of Kazoo in other spellings


KAZOOS = "2001:DB8:0::1"


@pytest.mark.parametrize("query", ["", "&zone=us-east", "&host={host}", "&status=all"])
def test_the_pages_of_a_list_have_each_document_of_an_address_once(
    api: TestApp, load: Any, operator: Any, query: str
) -> None:
    documents = [kazoo_document(each) for each in (CANONICAL, KAZOOS, "2001:db8::0.0.0.1")]
    load(*documents, kazoo_document("2001:db8::2"))
    host = documents[0]["pvt_host"]
    path, start_key, listed = f"/v2/ips?page_size=1{query.format(host=host)}", "", []
    for _ in range(5):
        reply = api.get(path + start_key, headers=operator.headers, status=200).json
        listed += [line["ip"] for line in reply["data"]]
        if "next_start_key" not in reply:
            break
        start_key = f"&start_key={quote(reply['next_start_key'])}"
    assert sorted(listed) == sorted([each["_id"] for each in documents] + ["2001:db8::2"])


@pytest.mark.parametrize("spelling", [KAZOOS, *SPELLINGS[:3]])
def test_a_document_of_kazoo_in_another_spelling_is_found_by_any_spelling(
    api: TestApp, load: Any, databases: Databases, operator: Any, alice: Any, spelling: str
) -> None:
    load(kazoo_document(KAZOOS), kazoo_document("192.0.2.1", "eu-west"))
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(f"{path}/{spelling}", headers=alice.headers, status=200)
    assert success(reply, alice.token)["id"] == KAZOOS
    reply = api.post(f"{path}/{spelling}", headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(KAZOOS, alice)
    assert databases.get("dedicated_ips", KAZOOS)["pvt_assigned_to"] == alice.id
    assert databases.get(account_database(alice.id), KAZOOS)["pvt_assigned_to"] == alice.id
    assert databases.find("dedicated_ips", CANONICAL) is None
    body = {"data": {"ips": ["192.0.2.1", spelling]}}
    reply = api.post_json(path, body, headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == {"ips.1"}
    body = {"data": {"ips": [spelling]}}
    reply = api.delete_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [KAZOOS]}
    assert databases.find(account_database(alice.id), KAZOOS) is None
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [KAZOOS]}
    api.delete(f"/v2/ips/{spelling}?force=true", headers=operator.headers, status=200)
    assert databases.find("dedicated_ips", KAZOOS) is None


@pytest.mark.parametrize("spelling", [KAZOOS, *SPELLINGS[:2]])
def test_an_address_that_kazoo_spelled_otherwise_is_not_created_again(
    api: TestApp, load: Any, databases: Databases, operator: Any, spelling: str
) -> None:
    load(kazoo_document(KAZOOS))
    data = {"ip": spelling, "zone": "us-east", "host": "proxy1.example.com"}
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=409)
    refusal = failure(reply, operator.token, "datastore_conflict")
    assert refusal == {"message": "conflicting documents"}
    assert databases.find("dedicated_ips", CANONICAL) is None


def test_an_address_that_kazoo_spelled_otherwise_is_listed_by_its_id_at_its_sort_position(
    api: TestApp, load: Any, alice: Any
) -> None:
    ids = ["192.0.2.9", "192.0.2.10", KAZOOS, "2001:0db8::0002", "2001:DB8::F", "2001:db8::10"]
    load(*map(kazoo_document, sorted(ids)))
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(path, headers=alice.headers, status=200)
    assert [line["ip"] for line in page(reply, alice.token)] == ids
    body = {"data": {"ips": [KAZOOS, "2001:DB8::2", "192.0.2.10", "2001:db8::f"]}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    took = [KAZOOS, "2001:0db8::0002", "192.0.2.10", "2001:DB8::F"]
    assert success(reply, alice.token) == {"ips": took}
    reply = api.delete(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": sorted(took, key=ids.index)}


# Two documents of one address, as Kazoo and earlier releases of this service could create them


MAPPED = "::ffff:192.0.2.1"
TWINS = [
    (CANONICAL, KAZOOS),
    (CANONICAL, "2001:DB8::1"),
    ("192.0.2.1", MAPPED),
    ("192.0.2.1", "::ffff:c000:201"),
    ("192.0.2.1", "0:0:0:0:0:ffff:c000:0201"),
    ("2001:0db8::1", "2001:DB8::1"),
]
"""Pairs of ids of one address. Only the first id of a pair can be assigned."""


def refused(reply: Any, token: str, address: str, message: str, rule: str = "forbidden") -> None:
    assert invalid(reply, token) == broken("ips.0", rule, message, value=address)


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_each_document_of_one_address_is_readable_and_releasable_under_its_own_id(
    api: TestApp, load: Any, databases: Databases, alice: Any, bob: Any, first: str, second: str
) -> None:
    load(kazoo_document(first, owner=alice.id), kazoo_document(second, owner=bob.id))
    for address, owner in ((first, alice), (second, bob)):
        path = f"/v2/accounts/{owner.id}/ips"
        reply = api.get(f"{path}/{address}", headers=owner.headers, status=200)
        assert success(reply, owner.token)["id"] == address
        reply = api.get(f"{path}/assigned", headers=owner.headers, status=200)
        assert [line["ip"] for line in page(reply, owner.token)] == [address]
        reply = api.delete(f"{path}/{address}", headers=owner.headers, status=200)
        assert success(reply, owner.token)["status"] == "available"
        reply = api.get(f"{path}/{address}", headers=owner.headers, status=200)
        assert success(reply, owner.token)["id"] == address


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_of_two_documents_of_one_address_only_one_is_ever_assigned(
    api: TestApp, load: Any, alice: Any, bob: Any, first: str, second: str
) -> None:
    load(kazoo_document(first), kazoo_document(second), kazoo_document("192.0.2.9"))
    path = f"/v2/accounts/{bob.id}/ips"
    why = f"ip cannot be assigned: the pool has it as {first} as well"
    reply = api.post(f"{path}/{second}", headers=bob.headers, status=400)
    refused(reply, bob.token, second, why)
    for items in ([second], [second, "192.0.2.9"]):
        reply = api.post_json(path, {"data": {"ips": items}}, headers=bob.headers, status=400)
        refused(reply, bob.token, second, why)
    reply = api.post(f"/v2/accounts/{alice.id}/ips/{first}", headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(first, alice)
    taken = "ip assigned to another account"
    for address in (first, second):
        reply = api.post(f"{path}/{address}", headers=bob.headers, status=400)
        refused(reply, bob.token, address, taken)


UNUSUAL = {KAZOOS, "0:0:0:0:0:ffff:c000:0201"}


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_an_address_that_an_account_has_under_one_spelling_is_not_assigned_under_another(
    wsgi: Any, api: TestApp, load: Any, alice: Any, bob: Any, first: str, second: str
) -> None:
    load(kazoo_document(first), kazoo_document(second, owner=bob.id), kazoo_document("192.0.2.9"))
    path = f"/v2/accounts/{alice.id}/ips"
    taken = "ip assigned to another account"
    if second in UNUSUAL:  # every process reads the unusual spellings when it starts
        wsgi.extensions["kazoo_ips"].background.learn_spellings()
    for items in ([first, "192.0.2.9"], [first]):
        reply = api.post_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
        refused(reply, alice.token, first, taken)
    body = {"data": {"ips": [first]}}
    reply = api.post_json(f"/v2/accounts/{bob.id}/ips", body, headers=bob.headers, status=400)
    refused(reply, bob.token, first, "ip already assigned", "superfluous")
    reply = api.post_json(path, {"data": {"quantity": 1}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": ["192.0.2.9"]}
    api.delete(f"/v2/accounts/{bob.id}/ips/{second}", headers=bob.headers, status=200)
    api.post(f"{path}/{first}", headers=alice.headers, status=200)


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_allocation_assigns_one_of_two_documents_of_one_address(
    api: TestApp, load: Any, alice: Any, first: str, second: str
) -> None:
    load(kazoo_document(first), kazoo_document(second))
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.post_json(path, {"data": {"quantity": 2}}, headers=alice.headers, status=409)
    assert failure(reply, alice.token, "insufficient_ips")["available"] == 1
    reply = api.post_json(path, {"data": {"quantity": 1}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [first]}
    api.post_json(path, {"data": {"quantity": 1}}, headers=alice.headers, status=409)


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_each_document_of_one_address_can_be_deleted_and_the_other_is_then_usable(
    api: TestApp, load: Any, operator: Any, alice: Any, first: str, second: str
) -> None:
    load(kazoo_document(first), kazoo_document(second))
    api.delete(f"/v2/ips/{first}", headers=operator.headers, status=200)
    path = f"/v2/accounts/{alice.id}/ips"
    for spelling in (first, second):
        reply = api.post(f"{path}/{spelling}", headers=alice.headers, status=200)
        assert success(reply, alice.token) == assigned(second, alice)
        api.delete(f"{path}/{spelling}", headers=alice.headers, status=200)
    api.delete(f"/v2/ips/{second}", headers=operator.headers, status=200)
    api.get(f"/v2/ips/{first}", headers=operator.headers, status=404)


def test_assigning_an_address_by_name_takes_three_database_requests(
    settings: Settings, load: Any, alice: Any
) -> None:
    load(kazoo_document("192.0.2.1"), kazoo_document(CANONICAL))
    sent: list[str] = []
    services = composition.build(settings, trace=lambda method, url: sent.append(url))
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), "first")
    for address in (CANONICAL, "192.0.2.1"):
        if address == "192.0.2.1":
            sent.clear()
            services.ips.release(ReleaseIP(alice.id, address), "release")
            assert len(sent) == 4
        sent.clear()
        services.ips.assign(AssignIP(alice.id, address), "assign")
        assert len(sent) == 3


def test_assigning_a_thousand_addresses_takes_ten_database_requests(
    settings: Settings, load: Any, alice: Any
) -> None:
    ids = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
    load(*map(kazoo_document, ids))
    sent: list[str] = []
    services = composition.build(settings, trace=lambda method, url: sent.append(url))
    services.background.read_settings()  # as the background worker of a process does
    services.limits.refresh()
    sent.clear()
    services.ips.assign_all(AssignIPs(alice.id, tuple(ids)), "assign")
    assert len(sent) <= 10, sent
    assert not [url for url in sent if "/_view/" in url]  # CouchDB would have to update its index
    sent.clear()
    services.ips.release_all(ReleaseIPs(alice.id, tuple(ids)), "release")
    assert len(sent) <= 10, sent


# IPv4-mapped IPv6


@pytest.mark.parametrize("spelling", [MAPPED, "::FFFF:C000:0201", "0:0:0:0:0:ffff:c000:0201"])
def test_an_ipv4_mapped_address_is_the_ipv4_address_everywhere(
    api: TestApp, pool: Any, operator: Any, alice: Any, spelling: str
) -> None:
    data = {"zone": "us-east", "host": "proxy1.example.com"}
    body = {"data": {**data, "ip": spelling}}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=201)
    assert success(reply, operator.token)["id"] == "192.0.2.1"
    for ip in ("192.0.2.1", spelling):
        body = {"data": {**data, "ip": ip}}
        api.put_json("/v2/ips", body, headers=operator.headers, status=409)
        body = {"data": {"ips": [{**data, "ip": "192.0.2.2"}, {**data, "ip": ip}]}}
        reply = api.put_json("/v2/ips", body, headers=operator.headers, status=409)
        refusal = failure(reply, operator.token, "datastore_conflict")
        assert refusal["ips"] == {"192.0.2.1": "exists"}
    path = f"/v2/accounts/{alice.id}/ips"
    body = {"data": {"ips": [spelling]}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": ["192.0.2.1"]}
    reply = api.get(f"{path}/{spelling}", headers=alice.headers, status=200)
    assert success(reply, alice.token)["id"] == "192.0.2.1"
    twice = {"data": {"ips": [spelling, "192.0.2.1"]}}
    reply = api.delete_json(path, twice, headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == {"ips.1"}
    reply = api.delete_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": ["192.0.2.1"]}


@pytest.mark.parametrize("kazoos", [MAPPED, "0:0:0:0:0:FFFF:C000:0201"])
def test_an_ipv4_mapped_id_that_kazoo_wrote_is_the_ipv4_address(
    api: TestApp, load: Any, operator: Any, alice: Any, kazoos: str
) -> None:
    load(kazoo_document("192.0.2.2"), kazoo_document(kazoos), kazoo_document("192.0.2.0"))
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(path, headers=alice.headers, status=200)
    assert [line["ip"] for line in page(reply, alice.token)] == ["192.0.2.0", kazoos, "192.0.2.2"]
    data = {"zone": "us-east", "host": "proxy1.example.com"}
    one, several = {**data, "ip": "192.0.2.1"}, {"ips": [{**data, "ip": "192.0.2.1"}]}
    for query in ("", "?dry_run=true"):
        for body in (one, several):
            send = {"data": body}
            api.put_json(f"/v2/ips{query}", send, headers=operator.headers, status=409)
    reply = api.post(f"{path}/192.0.2.1", headers=alice.headers, status=200)
    assert success(reply, alice.token) == assigned(kazoos, alice)
    body = {"data": {"ips": ["192.0.2.1"]}}
    reply = api.delete_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [kazoos]}


def test_an_address_that_kazoo_spelled_otherwise_is_found_among_many_unknown_ones(
    api: TestApp, load: Any, alice: Any
) -> None:
    load(kazoo_document(KAZOOS), kazoo_document("2001:0db8::0002", "eu-west"))
    path = f"/v2/accounts/{alice.id}/ips"
    requested = [f"2001:db8::{number:x}" for number in range(1, 40)]
    reply = api.post_json(path, {"data": {"ips": requested}}, headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == {f"ips.{index}" for index in range(2, 39)}


MAPPED_SPELLINGS = [MAPPED, "::FFFF:C000:0201", "0:0:0:0:0:ffff:c000:0201"]


@pytest.mark.parametrize("spelling", MAPPED_SPELLINGS)
def test_an_ipv4_mapped_address_is_the_ipv4_address_in_the_requests_of_the_operator(
    api: TestApp, add: Any, operator: Any, alice: Any, bob: Any, spelling: str
) -> None:
    add("192.0.2.1")
    headers, where = operator.headers, f"/v2/ips/{spelling}"
    api.post(f"/v2/accounts/{alice.id}/ips/192.0.2.1", headers=alice.headers, status=200)
    body = {"data": {"ips": [spelling], "from": alice.id, "to": bob.id}}
    reply = api.post_json("/v2/ips/transfer", body, headers=headers, status=200)
    assert success(reply, operator.token) == {"ips": ["192.0.2.1"]}
    body = {"data": {"ips": [spelling, "192.0.2.1"], "from": bob.id, "to": alice.id}}
    reply = api.post_json("/v2/ips/transfer", body, headers=headers, status=400)
    assert invalid(reply, operator.token).keys() == {"ips.1"}
    for change in ({"labels": {"a": "1"}}, {"enabled": False, "reason": "x"}, {"enabled": True}):
        reply = api.patch_json(where, {"data": change}, headers=headers, status=200)
        assert success(reply, operator.token)["id"] == "192.0.2.1"
    for query in (f"cidr={spelling}", f"cidr={spelling}/128&label=a:1"):
        reply = api.get(f"/v2/ips?status=all&{query}", headers=headers, status=200)
        assert [line["ip"] for line in page(reply, operator.token)] == ["192.0.2.1"]
    reply = api.get(f"{where}/history", headers=headers, status=200)
    assert {event["ip"] for event in reply.json["data"]} == {"192.0.2.1"}
    now = reply.json["data"][0]["at"]
    holder = api.get(f"{where}/history?at={now}", headers=headers, status=200).json["data"]
    assert (holder["ip"], holder["account_id"]) == ("192.0.2.1", bob.id)
    api.delete(f"{where}?force=true", headers=headers, status=200)
    api.get("/v2/ips/192.0.2.1", headers=headers, status=404)


@pytest.mark.parametrize("spelling", MAPPED_SPELLINGS)
def test_an_ipv4_mapped_address_is_the_ipv4_address_in_a_reservation(
    api: TestApp, add: Any, alice: Any, spelling: str
) -> None:
    add("192.0.2.1")
    path = f"/v2/accounts/{alice.id}/ips"
    twice = {"data": {"ips": ["192.0.2.1", spelling]}}
    reply = api.put_json(f"{path}/reservations", twice, headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == {"ips.1"}
    body: Any = {"data": {"ips": [spelling]}}
    reply = api.put_json(f"{path}/reservations", body, headers=alice.headers, status=201)
    made = success(reply, alice.token)
    assert made["ips"] == ["192.0.2.1"]
    api.put_json(f"{path}/reservations", body, headers=alice.headers, status=400)
    body = {"data": {"reservation": made["id"]}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": ["192.0.2.1"]}


@pytest.mark.parametrize("spelling", MAPPED_SPELLINGS)
def test_an_ipv4_mapped_address_that_kazoo_wrote_is_drained_and_moved_as_the_ipv4_address(
    services: Instance, api: TestApp, load: Any, operator: Any, spelling: str
) -> None:
    load(kazoo_document(spelling), kazoo_document("192.0.2.9"))
    host, headers = "/v2/ips/hosts/proxy1.example.com", operator.headers
    body: Any = {"data": {"enabled": False, "reason": "x"}}
    assert api.patch_json(host, body, headers=headers, status=200).json["data"]["pending"] == 0
    reply = api.get("/v2/ips/192.0.2.1", headers=headers, status=200)
    assert success(reply, operator.token)["disabled"]["scope"] == "host"
    body = {"data": {"host": "proxy9.example.com"}}
    job = api.post_json(f"{host}/move", body, headers=headers, status=202).json["data"]["id"]
    while jobs := services.job_runner.unfinished():
        for each in jobs:
            services.job_runner.step(each)
    reply = api.get(f"/v2/ips/jobs/{job}", headers=headers, status=200)
    assert reply.json["data"]["results"] == {"moved": 2}
    reply = api.get("/v2/ips/192.0.2.1", headers=headers, status=200)
    assert success(reply, operator.token)["host"] == "proxy9.example.com"
