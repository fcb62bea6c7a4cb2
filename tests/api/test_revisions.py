"""Revisions: ETag, If-None-Match and If-Match."""

from typing import Any

import pytest
from webtest import TestApp

from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.replies import broken, failure, invalid, success

ADDRESS = "192.0.2.1"
SINGLE = ["/v2/accounts/{A}/ips/192.0.2.1", "/v2/ips/192.0.2.1"]
LISTS = [
    "/v2/accounts/{A}/ips", "/v2/accounts/{A}/ips/assigned", "/v2/accounts/{A}/ips/zones",
    "/v2/accounts/{A}/ips/hosts", "/v2/ips", "/v2/ips/assigned", "/v2/ips/zones", "/v2/ips/hosts",
]  # fmt: skip


def revision(databases: Databases) -> str:
    return str(databases.get("dedicated_ips", ADDRESS)["_rev"])


def url(path: str, account: Any) -> str:
    return path.format(A=account.id)


# What it is


@pytest.mark.parametrize("path", SINGLE)
def test_the_revision_of_one_address_is_its_documents(
    api: TestApp, load: Any, databases: Databases, operator: Any, path: str
) -> None:
    load(kazoo_document(ADDRESS))
    reply = api.get(url(path, operator), headers=operator.headers, status=200)
    success(reply, operator.token)
    assert reply.json["revision"] == revision(databases)
    assert reply.headers["ETag"] == f'"{revision(databases)}"'


def test_a_write_returns_its_new_revision(
    api: TestApp, pool: Any, databases: Databases, operator: Any
) -> None:
    data = {"ip": ADDRESS, "zone": "us-east", "host": "proxy1.example.com"}
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=201)
    assert success(reply, operator.token)["_read_only"]["rev"] == revision(databases)
    seen = [reply.json["revision"]]
    for method in ("POST", "DELETE"):
        path = url(SINGLE[0], operator)
        reply = api.request(path, method=method, headers=operator.headers, status=200)
        success(reply, operator.token)
        assert reply.json["revision"] == revision(databases)
        seen.append(reply.json["revision"])
    assert len(set(seen)) == 3


@pytest.mark.parametrize("path", LISTS)
def test_the_revision_of_a_list_changes_with_its_data_and_with_nothing_else(
    api: TestApp, load: Any, operator: Any, path: str
) -> None:
    load(kazoo_document(ADDRESS), kazoo_document("192.0.2.2", owner=operator.id))

    def current_revision() -> str:
        reply = api.get(url(path, operator), headers=operator.headers, status=200)
        return str(reply.json["revision"])

    first = current_revision()
    assert current_revision() == first
    more = ("eu-west", "proxy2.example.com")
    load(
        kazoo_document("192.0.2.3", *more),
        kazoo_document("192.0.2.4", *more, owner=operator.id),
    )
    assert current_revision() != first


# If-None-Match


@pytest.mark.parametrize("path", [*SINGLE, *LISTS])
def test_if_none_match_with_the_current_revision_is_304_without_a_body(
    api: TestApp, load: Any, operator: Any, path: str
) -> None:
    load(kazoo_document(ADDRESS))
    path = url(path, operator)
    reply = api.get(path, headers=operator.headers, status=200)
    etag = reply.headers["ETag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        headers = {**operator.headers, "If-None-Match": given}
        reply = api.get(path, headers=headers, status=304)
        assert reply.body == b""
        assert reply.headers["ETag"] == etag
        assert reply.headers["X-Request-ID"]
        assert "Content-Type" not in reply.headers


@pytest.mark.parametrize("path", [*SINGLE, *LISTS])
def test_if_none_match_with_another_revision_is_200(
    api: TestApp, load: Any, operator: Any, path: str
) -> None:
    load(kazoo_document(ADDRESS))
    for given in ('"1-0"', '"automatic"', "nonsense", '"'):
        headers = {**operator.headers, "If-None-Match": given}
        reply = api.get(url(path, operator), headers=headers, status=200)
        assert reply.json["status"] == "success"


def test_after_a_write_the_old_revision_is_200_again(
    api: TestApp, load: Any, operator: Any, alice: Any
) -> None:
    load(kazoo_document(ADDRESS))
    path = url(SINGLE[0], alice)
    etag = api.get(path, headers=alice.headers, status=200).headers["ETag"]
    api.post(path, headers=alice.headers, status=200)
    headers = {**alice.headers, "If-None-Match": etag}
    reply = api.get(path, headers=headers, status=200)
    assert success(reply, alice.token)["status"] == "assigned"


def test_a_caller_without_access_gets_no_304(
    api: TestApp, load: Any, databases: Databases, alice: Any, bob: Any
) -> None:
    load(kazoo_document(ADDRESS, owner=bob.id))
    headers = {"If-None-Match": f'"{revision(databases)}"'}
    api.get(url(SINGLE[0], alice), headers={**alice.headers, **headers}, status=404)
    api.get(url(SINGLE[0], bob), headers={**alice.headers, **headers}, status=403)
    api.get(url(SINGLE[0], bob), headers=headers, status=401)
    api.get(url(SINGLE[0], alice), headers={**alice.headers, "If-None-Match": "*"}, status=404)


# If-Match


def steps(api: TestApp, operator: Any, alice: Any) -> list[tuple[str, str, str | None]]:
    return [
        ("POST", url(SINGLE[0], alice), None),
        ("DELETE", url(SINGLE[0], alice), alice.id),
        ("DELETE", SINGLE[1], None),
        ("DELETE", f"{SINGLE[1]}?force=true", alice.id),
    ]


@pytest.mark.parametrize("step", range(4), ids=["assign", "release", "delete", "force delete"])
def test_a_write_with_the_current_revision_in_if_match_is_done(
    api: TestApp, load: Any, databases: Databases, operator: Any, alice: Any, step: int
) -> None:
    method, path, owner = steps(api, operator, alice)[step]
    for form in ('"{}"', '"1-0", "{}"', "*"):
        load(kazoo_document(ADDRESS, owner=owner))
        given = form.format(revision(databases))
        headers = {**operator.headers, "If-Match": given}
        api.request(path, method=method, headers=headers, status=200)
        left = databases.find("dedicated_ips", ADDRESS)
        if left:
            databases.put("dedicated_ips", {**left, "_deleted": True})


@pytest.mark.parametrize("step", range(4), ids=["assign", "release", "delete", "force delete"])
def test_a_write_with_another_revision_in_if_match_is_412_and_not_done(
    api: TestApp, load: Any, databases: Databases, operator: Any, alice: Any, step: int
) -> None:
    method, path, owner = steps(api, operator, alice)[step]
    load(kazoo_document(ADDRESS, owner=owner))
    read = revision(databases)
    databases.change("dedicated_ips", ADDRESS, note="written meanwhile")
    before = databases.get("dedicated_ips", ADDRESS)
    for given in (f'"{read}"', '"1-0"', '"nonsense"', f'"x{before["_rev"]}"'):
        headers = {**operator.headers, "If-Match": given}
        reply = api.request(path, method=method, headers=headers, status=412)
        data = failure(reply, operator.token, "precondition_failed")
        assert data == {"message": "precondition failed"}
    assert databases.get("dedicated_ips", ADDRESS) == before


@pytest.mark.parametrize("form", ['W/"{}"', "nonsense", '"'])
def test_a_weak_or_malformed_if_match_is_412(
    api: TestApp, load: Any, databases: Databases, alice: Any, form: str
) -> None:
    load(kazoo_document(ADDRESS))
    headers = {**alice.headers, "If-Match": form.format(revision(databases))}
    before = databases.get("dedicated_ips", ADDRESS)
    api.post(url(SINGLE[0], alice), headers=headers, status=412)
    assert databases.get("dedicated_ips", ADDRESS) == before


def test_if_match_on_an_unknown_address_is_404(api: TestApp, pool: Any, operator: Any) -> None:
    for given in ("*", '"1-0"'):
        headers = {**operator.headers, "If-Match": given}
        for method, path in (("POST", SINGLE[0]), ("DELETE", SINGLE[0]), ("DELETE", SINGLE[1])):
            api.request(url(path, operator), method=method, headers=headers, status=404)


def test_a_write_in_the_wrong_state_is_400_even_if_the_revision_matches(
    api: TestApp, load: Any, databases: Databases, alice: Any
) -> None:
    load(kazoo_document(ADDRESS))
    headers = {**alice.headers, "If-Match": f'"{revision(databases)}"'}
    reply = api.delete(url(SINGLE[0], alice), headers=headers, status=400)
    assert invalid(reply, alice.token) == broken(
        "ips.0", "superfluous", "ip not assigned", value=ADDRESS
    )


@pytest.mark.parametrize("given", ["*", '"1-0"'])
def test_a_creation_with_if_match_is_412(
    api: TestApp, pool: Any, databases: Databases, operator: Any, given: str
) -> None:
    data = {"ip": ADDRESS, "zone": "us-east", "host": "proxy1.example.com"}
    headers = {**operator.headers, "If-Match": given}
    reply = api.put_json("/v2/ips", {"data": data}, headers=headers, status=412)
    refusal = failure(reply, operator.token, "precondition_failed")
    assert refusal == {"message": "precondition failed"}
    assert databases.find("dedicated_ips", ADDRESS) is None


def test_the_copy_has_a_revision_of_its_own(
    api: TestApp, load: Any, databases: Databases, alice: Any
) -> None:
    load(kazoo_document(ADDRESS))
    api.post(url(SINGLE[0], alice), headers=alice.headers, status=200)
    copy = databases.get(account_database(alice.id), ADDRESS)
    api.delete(url(SINGLE[0], alice), headers={**alice.headers, "If-Match": f'"{copy["_rev"]}"'},
               status=412)  # fmt: skip
    databases.change(account_database(alice.id), ADDRESS, note="a hand was here")
    headers = {**alice.headers, "If-Match": f'"{revision(databases)}"'}
    api.delete(url(SINGLE[0], alice), headers=headers, status=200)
    assert databases.find(account_database(alice.id), ADDRESS) is None
