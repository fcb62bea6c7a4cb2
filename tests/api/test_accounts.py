"""`GET /v2/ips/accounts` and `POST /v2/ips/import`, which commands at a URL use."""

from collections.abc import Callable
from typing import Any

from webtest import TestApp

from tests.conftest import Member

ACCOUNTS, IMPORT = "/v2/ips/accounts", "/v2/ips/import"
PLACE = {"zone": "us-east", "host": "proxy1.example.com"}


def listed(api: TestApp, operator: Member, **query: Any) -> Any:
    return api.get(ACCOUNTS, query, headers=operator.headers, status=200).json


def test_accounts_are_listed_in_pages_without_secrets(
    api: TestApp, operator: Member, alice: Member, bob: Member
) -> None:
    everything = listed(api, operator, paginate="false")["data"]
    assert {alice.id, bob.id, operator.id} <= {each["id"] for each in everything}
    assert [each["realm"] for each in everything] == sorted(each["realm"] for each in everything)
    assert not any("key" in name or "secret" in name for name in everything[0])
    found, start_key = [], None
    while True:
        more = {"start_key": start_key} if start_key else {}
        page = listed(api, operator, page_size=2, **more)
        assert len(page["data"]) <= 2
        found += page["data"]
        start_key = page.get("next_start_key")
        if not start_key:
            break
    assert found == everything


def test_an_account_is_found_by_id_realm_and_name(
    api: TestApp, operator: Member, alice: Member, bob: Member
) -> None:
    for given in (alice.id, alice.account.realm, alice.account.realm.upper()):
        [found] = listed(api, operator, account=given)["data"]
        assert found["id"] == alice.id
    assert listed(api, operator, account="nobody at all")["data"] == []
    both = listed(api, operator, ids=f"{alice.id},{bob.id},{'f' * 32},nonsense")["data"]
    assert {each["id"] for each in both} == {alice.id, bob.id}
    for query in ({"ids": "x", "account": "y"}, {"ids": ",".join(map(str, range(101)))}):
        api.get(ACCOUNTS, query, headers=operator.headers, status=400)


def test_an_import_adds_what_is_missing_and_tells_of_the_rest(
    api: TestApp, operator: Member, add: Callable[..., Any]
) -> None:
    add("192.0.2.1")
    add("192.0.2.2", "eu", "proxy9.example.com")
    ips = [{"ip": f"192.0.2.{n}", **PLACE} for n in (1, 2, 3)]
    headers = {**operator.headers, "Idempotency-Key": "an-import"}
    reply = api.post_json(IMPORT, {"data": {"ips": ips}}, headers=headers, status=200)
    assert reply.json["data"]["results"] == [
        {"ip": "192.0.2.1", "result": "unchanged", **PLACE},
        {"ip": "192.0.2.2", "result": "different", "zone": "eu", "host": "proxy9.example.com"},
        {"ip": "192.0.2.3", "result": "added", **PLACE},
    ]
    again = api.post_json(IMPORT, {"data": {"ips": ips}}, headers=headers, status=200)
    assert again.json["data"] == reply.json["data"]
    assert again.headers["Idempotency-Replayed"] == "true"


def test_an_invalid_import_names_every_broken_rule(
    api: TestApp, operator: Member, pool: Any
) -> None:
    ips = [{"ip": "nonsense", **PLACE}, {"ip": "192.0.2.1", "zone": ""}, 7]
    data = {"ips": ips, "ip": "192.0.2.9"}
    reply = api.post_json(IMPORT, {"data": data}, headers=operator.headers, status=400)
    assert reply.json["data"].keys() == {"ip"}
    reply = api.post_json(IMPORT, {"data": {"ips": ips}}, headers=operator.headers, status=400)
    assert {"ips.0.ip", "ips.1.host", "ips.2"} <= reply.json["data"].keys()
    api.post_json(IMPORT, {"data": {}}, headers=operator.headers, status=400)
