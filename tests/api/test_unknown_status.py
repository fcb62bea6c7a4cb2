"""An address with an unknown status is shown and counted, and not changed."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import Conflict, IPExists
from kazoo_ips.model import (
    AssignIP,
    CreateIP,
    ReleaseIP,
    Status,
)
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import TRAIL, WRITTEN, from_document, to_document
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import broken, failure, invalid, page, success

FREE, RESTING, KEPT = "192.0.2.1", "192.0.2.2", "192.0.2.3"
LINE = {"zone": "us-east", "host": "proxy1.example.com"}
WHY = "ip has a status that this release does not know: "


@pytest.fixture
def resting(load: Callable[..., None], databases: Databases) -> dict[str, Any]:
    """An address with a status and fields of a newer release, and an available one."""
    document = kazoo_document(
        RESTING, pvt_status="parked", pvt_parked_until=64000000000, labels={"a": 1}
    )
    load(document, kazoo_document(FREE))
    return databases.get("dedicated_ips", RESTING)


@pytest.fixture
def kept(load: Callable[..., None], databases: Databases, alice: Any) -> dict[str, Any]:
    """An address of Alice's with a status of a newer release."""
    load(kazoo_document(KEPT, owner=alice.id, pvt_status="suspended", pvt_request_id="r"))
    return databases.get("dedicated_ips", KEPT)


@pytest.fixture
def later(settings: Settings) -> Instance:
    """The services with a clock that is five minutes ahead, so that no document is recent."""
    return composition.build(settings.as_administrator(), clock=lambda: time.time() + 300)


def unchanged(databases: Databases, document: dict[str, Any]) -> bool:
    return databases.get("dedicated_ips", document["_id"]) == document


@pytest.mark.parametrize("status", ["parked", "held", "Available", "available ", "lost"])
def test_a_document_read_and_written_back_keeps_its_status_and_its_fields(status: str) -> None:
    document = kazoo_document(FREE, pvt_status=status, pvt_until=7, _rev="1-a")
    ip = from_document(document)
    assert not ip.has_known_status
    written = to_document(ip)
    assert {k: v for k, v in written.items() if k not in (TRAIL, WRITTEN)} == document


@pytest.mark.parametrize("status", [None, "", 7, ["available"]])
def test_a_document_without_a_status_is_not_available(status: Any) -> None:
    assert from_document({**kazoo_document(FREE), "pvt_status": status, "_rev": "1-a"}).status is (
        Status.ASSIGNED
    )


def test_an_unknown_status_is_shown_and_in_no_list(
    api: TestApp, resting: dict[str, Any], alice: Any, operator: Any
) -> None:
    reply = api.get(f"/v2/accounts/{alice.id}/ips/{RESTING}", headers=alice.headers, status=200)
    assert success(reply, alice.token)["status"] == "parked"
    for path in ("/v2/ips", f"/v2/accounts/{alice.id}/ips"):
        reply = api.get(path, headers=operator.headers, status=200)
        assert page(reply, operator.token) == [{"ip": FREE, **LINE}]
    for path in ("/v2/ips/assigned", f"/v2/accounts/{alice.id}/ips/assigned"):
        reply = api.get(path, headers=operator.headers, status=200)
        assert page(reply, operator.token) == []
    reply = api.get("/v2/ips/zones", headers=operator.headers, status=200)
    assert success(reply, operator.token) == ["us-east"]


def test_an_address_with_an_owner_and_an_unknown_status_is_hidden_from_others(
    api: TestApp, kept: dict[str, Any], alice: Any, bob: Any
) -> None:
    reply = api.get(f"/v2/accounts/{alice.id}/ips/{KEPT}", headers=alice.headers, status=200)
    assert success(reply, alice.token)["assigned_to"] == alice.id
    api.get(f"/v2/accounts/{bob.id}/ips/{KEPT}", headers=bob.headers, status=404)


def test_an_unknown_status_is_counted_by_its_name(
    couch: Couch, resting: dict[str, Any], services: Instance, environment: dict[str, str]
) -> None:
    zone = "us-east"
    assert ListRepository(couch).counts() == {(zone, "parked"): 1, (zone, "available"): 1}
    assert [(row.address, status) for row, status in services.lists.summary()] == [
        (FREE, "available"),
        (RESTING, "parked"),
    ]
    assert services.lists.unknown_statuses() == {"parked": 1}
    table = CliRunner(env=environment).invoke(cli, ["summary"]).output
    assert f"| {RESTING}       | parked     |" in table


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unknown_status_is_neither_assigned_nor_released(
    api: TestApp,
    databases: Databases,
    resting: dict[str, Any],
    kept: dict[str, Any],
    alice: Any,
    method: str,
) -> None:
    for document, status in ((resting, "parked"), (kept, "suspended")):
        address = document["_id"]
        path = f"/v2/accounts/{alice.id}/ips"
        why = broken("ips.0", "forbidden", WHY + status, value=address)
        reply = api.request(f"{path}/{address}", method=method, headers=alice.headers, status=400)
        assert invalid(reply, alice.token) == why
        body = b'{"data": {"ips": ["%b"]}}' % address.encode()
        reply = api.request(path, method=method, body=body, headers=alice.headers, status=400)
        assert invalid(reply, alice.token) == why
        assert unchanged(databases, document)


def test_an_unknown_status_in_a_list_prevents_the_whole_assignment(
    api: TestApp, databases: Databases, resting: dict[str, Any], alice: Any
) -> None:
    body = {"data": {"ips": [FREE, RESTING]}}
    reply = api.post_json(f"/v2/accounts/{alice.id}/ips", body, headers=alice.headers, status=400)
    assert [*invalid(reply, alice.token)] == ["ips.1"]
    assert databases.get("dedicated_ips", FREE)["pvt_status"] == "available"


def test_allocation_skips_an_unknown_status(
    api: TestApp, databases: Databases, resting: dict[str, Any], alice: Any
) -> None:
    path, body = f"/v2/accounts/{alice.id}/ips", {"data": {"quantity": 2}}
    reply = api.post_json(path, body, headers=alice.headers, status=409)
    assert failure(reply, alice.token, "insufficient_ips")["available"] == 1
    reply = api.post_json(path, {"data": {"quantity": 1}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FREE]}
    assert unchanged(databases, resting)


def test_releasing_all_skips_an_unknown_status_and_reports_it(
    api: TestApp,
    wsgi: Any,
    databases: Databases,
    resting: dict[str, Any],
    kept: dict[str, Any],
    services: Instance,
    alice: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services.ips.assign(AssignIP(alice.id, FREE), uuid4().hex)
    # A view that lags has the address as it was before the write of the newer release.
    holdings = wsgi.extensions["kazoo_ips"].ips._holdings
    monkeypatch.setattr(holdings, "candidates", lambda account_id: [FREE, KEPT])
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.delete(path, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [FREE], "left": {KEPT: "suspended"}}
    assert databases.get("dedicated_ips", FREE)["pvt_status"] == "available"
    assert unchanged(databases, kept)


def test_an_unknown_status_is_deleted_only_with_force(
    api: TestApp,
    databases: Databases,
    couch: Couch,
    kept: dict[str, Any],
    alice: Any,
    operator: Any,
) -> None:
    copies = couch.database(account_database(alice.id))
    copies.put({k: v for k, v in kept.items() if k != "_rev"})
    reply = api.delete(f"/v2/ips/{KEPT}", headers=operator.headers, status=409)
    assert failure(reply, operator.token, "datastore_conflict")["ips"] == {KEPT: "unknown_status"}
    assert unchanged(databases, kept)
    reply = api.delete(f"/v2/ips/{KEPT}?force=true", headers=operator.headers, status=200)
    assert success(reply, operator.token)["status"] == "suspended"
    assert databases.find("dedicated_ips", KEPT) is None
    assert copies.find(KEPT) is None


def test_the_commands_refuse_an_unknown_status_with_a_reason(
    environment: dict[str, str], databases: Databases, kept: dict[str, Any], alice: Any
) -> None:
    runner = CliRunner(env=environment)
    for command, message in (
        (["release", KEPT], f"unable to release IP: {WHY}suspended\n"),
        (["assign", KEPT, alice.id], f"unable to assign IP: {WHY}suspended\n"),
        (["delete", KEPT], "unable to delete IP: unknown_status\n"),
    ):
        result = runner.invoke(cli, command)
        assert (result.exit_code, result.output) == (1, message)
    assert unchanged(databases, kept)


def test_the_doctor_skips_an_unknown_status_and_its_copies(
    later: Instance,
    databases: Databases,
    couch: Couch,
    resting: dict[str, Any],
    kept: dict[str, Any],
    alice: Any,
    bob: Any,
) -> None:
    copies = couch.database(account_database(bob.id))
    copies.put(kazoo_document(RESTING, owner=bob.id))
    later.background.recover()  # findings that earlier tests have left
    found = [each.problem for each in later.doctor.examine(repair=True)]
    assert set(found) <= {"withdrawn"}
    assert unchanged(databases, resting)
    assert unchanged(databases, kept)
    assert copies.find(RESTING)
    assert couch.database(account_database(alice.id)).find(KEPT) is None


def test_the_doctor_prints_how_many_addresses_it_skipped(
    environment: dict[str, str], resting: dict[str, Any]
) -> None:
    result = CliRunner(env=environment).invoke(cli, ["doctor", "--repair"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1:] == ["nothing found"]
    assert result.stderr.endswith("skipped: 1 with the unknown status parked\n")


def test_the_background_worker_skips_the_copies_of_an_unknown_status(
    services: Instance, couch: Couch, resting: dict[str, Any], bob: Any
) -> None:
    copies = couch.database(account_database(bob.id))
    copies.put(kazoo_document(RESTING, owner=bob.id))
    services.copies.schedule_check(RESTING, bob.id)
    assert services.background.check_due(time.monotonic() + 300) >= 1
    assert copies.find(RESTING)


def test_a_conflict_with_an_unknown_status_is_not_resolved(
    later: Instance, pool: Database, resting: dict[str, Any], databases: Databases
) -> None:
    rival = {**resting, "pvt_status": "available", "_rev": f"1-{'f' * 32}"}
    pool.graft(rival, f"0-{'0' * 32}")

    def leaves() -> list[Any]:  # sorted, because the database returns them in any order
        found = databases("GET", "dedicated_ips", f"/{RESTING}?open_revs=all")
        return sorted(found, key=lambda leaf: leaf["ok"]["_rev"])

    before = leaves()
    assert [(f.problem, f.repaired) for f in later.doctor.examine(repair=True)] == [
        ("conflict", False)
    ]
    assert leaves() == before
    with pytest.raises(Conflict):
        later.ips.release(ReleaseIP(None, RESTING), uuid4().hex)


def test_another_spelling_of_an_address_with_an_unknown_status_is_not_added(
    services: Instance, load: Callable[..., None]
) -> None:
    load(kazoo_document("2001:DB8::A", pvt_status="held"))
    with pytest.raises(IPExists):
        services.pool.create(CreateIP("2001:db8::a", "us-east", "h"), uuid4().hex)
    assert services.ips.fetch("2001:db8::a").status == "held"


def test_a_list_finds_an_unknown_status_by_any_spelling(
    services: Instance, load: Callable[..., None]
) -> None:
    load(kazoo_document("2001:DB8::A", pvt_status="held"))
    command = CreateIP("2001:db8::a", "us-east", "proxy1.example.com")
    found = services.bulk_additions.preview(
        [command], services.bulk_additions.respelled([command])
    )
    assert [each.outcome for each in found] == ["unchanged"]


def test_a_status_that_a_newer_release_wrote_after_a_release_is_not_undone(
    later: Instance,
    services: Instance,
    couch: Couch,
    databases: Databases,
    load: Callable[..., None],
    alice: Any,
) -> None:
    document = kazoo_document(RESTING, pvt_status="parked", pvt_request_id="theirs")
    load(document)
    log = TransactionLog(Records(couch))
    at = document["pvt_modified"]
    transaction = log.begin(Action.RELEASE, alice.id, "theirs", at, [RESTING])
    databases.put("dedicated_ips", {
        **databases.get("dedicated_ips", RESTING), "pvt_transaction": transaction.id,
        "pvt_assigned_to": alice.id,
    })  # fmt: skip
    log.commit(transaction, [RESTING])
    later.background.recover()
    assert log.find(transaction.id) is None
    assert databases.get("dedicated_ips", RESTING)["pvt_status"] == "parked"
