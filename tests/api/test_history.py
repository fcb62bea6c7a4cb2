"""The routes of the history: who sees what, in which form, and which queries are refused."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import Author
from tests.api.couchdb import kazoo_document
from tests.api.own_application import OwnApplication, create_own_application
from tests.api.replies import failure, invalid, page, streamed, success
from tests.history_timeline import BOB, NEW_YEAR, RESELLER, Timeline
from tests.openapi_check import CheckedApp

START = NEW_YEAR - 20
ADDRESS = "2001:db8::1"


@dataclass
class World:
    """An application whose clock is in 2027, an account, and the events of the timeline."""

    own_app: OwnApplication
    api: TestApp
    alice: str
    own: dict[str, str]
    line: Timeline

    def get(self, path: str, query: str = "", status: int = 200, **headers: str) -> Any:
        """Send a request of the operator."""
        return self.api.get(
            f"/v2{path}{query}", headers={**self.own_app.headers, **headers}, status=status
        )

    def data(self, path: str, query: str = "") -> Any:
        """The data of a page that the operator gets."""
        return page(self.get(path, query), self.own_app.token)


@pytest.fixture(scope="module")
def world(settings: Settings) -> Iterator[World]:
    """Alice got an address, and released it; Bob got it; the operator deleted it."""
    with create_own_application(settings) as own_app:
        alice = own_app.services.accounts.create("Alice", "alice.example.com").id
        line = Timeline(START)
        line.create(ADDRESS)
        line.now = NEW_YEAR - 10
        line.assign(ADDRESS, alice, Author(alice, "alice-user"))
        line.now = NEW_YEAR + 10
        line.release(ADDRESS, Author(command="kazoo-ips release", system_user="root"))
        line.now = NEW_YEAR + 20
        line.assign(ADDRESS, BOB, Author(RESELLER, "reseller-user"))
        line.now = NEW_YEAR + 30
        line.release(ADDRESS, Author(BOB, "bob-user"))
        line.now = NEW_YEAR + 40
        line.delete(ADDRESS)
        now = NEW_YEAR + 1000 - GREGORIAN_EPOCH
        services = composition.build(own_app.settings.as_administrator(), clock=lambda: now)
        services.archive.append(line.events)
        # The real clock issues the tokens. By the application's clock they never expire.
        own_app.databases.put(
            "dedicated_ips", kazoo_document("192.0.2.9", owner=alice, pvt_written_generation=1)
        )
        token = services.auth.open_session(services.accounts.fetch(alice)).token
        operator = services.auth.open_session(services.accounts.fetch(own_app.id)).token
        api = CheckedApp(composition.create_app(own_app.settings, clock=lambda: now))
        later = OwnApplication(
            own_app.settings, services, own_app.databases, api, own_app.id, operator
        )
        yield World(later, api, alice, {"X-Auth-Token": token}, line)


# Events of an address.


def test_an_address_has_its_events_the_latest_first(world: World) -> None:
    found = world.data(f"/ips/{ADDRESS}/history")
    assert [each["event"] for each in found] == [
        "deleted", "released", "assigned", "released", "assigned", "created",
    ]  # fmt: skip
    event = world.line.events[1]
    assert found[4] == {
        "id": event.id,
        "ip": ADDRESS,
        "event": "assigned",
        "at": NEW_YEAR - 10,
        "at_iso_8601": "2026-12-31T23:59:50Z",
        "account_id": world.alice,
        "before": {
            "status": "available", "zone": "us-east", "host": "proxy1.us-east.example.com",
        },
        "after": {
            "status": "assigned", "account_id": world.alice, "zone": "us-east",
            "host": "proxy1.us-east.example.com",
        },
        "by": {"account_id": world.alice, "user_id": "alice-user"},
        "request_id": event.request_id,
        "source": "service",
        "certain": True,
        "revision": event.revision,
    }  # fmt: skip
    assert found[3]["by"] == {"command": "kazoo-ips release", "system_user": "root"}
    assert "before" not in found[5]
    assert "after" not in found[0]


@pytest.mark.parametrize(
    "spelling", ["2001:DB8:0::1", "2001:db8:0:0:0:0:0:1", "2001%3Adb8%3A%3A1"]
)
def test_any_spelling_of_an_address_works(world: World, spelling: str) -> None:
    assert len(world.data(f"/ips/{spelling}/history")) == 6
    reply = world.get(f"/ips/{spelling}/history", f"?at={NEW_YEAR}")
    assert success(reply, world.own_app.token)["ip"] == ADDRESS


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:DB8::77", "nonsense"])
def test_an_address_without_document_and_events_is_404(world: World, address: str) -> None:
    for query in ("", f"?at={NEW_YEAR}", "?from=1"):
        reply = world.get(f"/ips/{address}/history", query, status=404)
        assert failure(reply, world.own_app.token, "bad_identifier")["cause"] == address


def test_an_address_without_events_has_an_empty_history(world: World) -> None:
    assert world.data("/ips/192.0.2.9/history") == []
    assert world.data(f"/ips/{ADDRESS}/history", f"?from={NEW_YEAR + 500}") == []


def test_from_is_inclusive_and_to_is_not(world: World) -> None:
    def times(query: str) -> list[int]:
        return [each["at"] - NEW_YEAR for each in world.data(f"/ips/{ADDRESS}/history", query)]

    assert times(f"?from={NEW_YEAR + 10}&to={NEW_YEAR + 30}") == [20, 10]
    assert times("?from=2026-12-31T23:59:50Z&to=2027-01-01T00:00:10.5Z") == [10, -10]
    assert times("?from=2027-01-01T01:00:10%2B01:00&to=2027-01-01T00:00:11") == [10]
    assert times("?to=2027-01-01") == [-10, -20]


# Holders


def test_at_says_who_had_an_address(world: World) -> None:
    reply = world.get(f"/ips/{ADDRESS}/history", "?at=2027-01-01T00:00:09.9Z")
    assert success(reply, world.own_app.token) == {
        "ip": ADDRESS,
        "status": "assigned",
        "account_id": world.alice,
        "account_name": "Alice",
        "since": NEW_YEAR - 10,
        "since_iso_8601": "2026-12-31T23:59:50Z",
        "until": NEW_YEAR + 10,
        "until_iso_8601": "2027-01-01T00:00:10Z",
        "certain": True,
        "by": {"account_id": world.alice, "user_id": "alice-user"},
        "request_id": world.line.events[1].request_id,
    }


def test_at_before_the_first_event_is_not_certain(world: World) -> None:
    reply = world.get(f"/ips/{ADDRESS}/history", f"?at={START - 1}")
    assert success(reply, world.own_app.token) == {
        "ip": ADDRESS,
        "until": START,
        "until_iso_8601": "2026-12-31T23:59:40Z",
        "certain": False,
        "by": {},
    }


def test_a_deleted_address_has_an_answer(world: World) -> None:
    found = success(world.get(f"/ips/{ADDRESS}/history", "?at=2030-01-01"), world.own_app.token)
    assert (found["status"], found["since"], found["certain"]) == ("deleted", NEW_YEAR + 40, True)
    assert "account_id" not in found


# Invalid queries


@pytest.mark.parametrize(
    ("path", "query", "name", "rule"),
    [
        (f"/ips/{ADDRESS}/history", "?at=yesterday", "at", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?at=", "at", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?at=2026-13-01", "at", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?at=2026-11-01T00:00:00+01:00", "at", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?at=1&from=1", "at", "forbidden"),
        (f"/ips/{ADDRESS}/history", "?at=1&page_size=5", "at", "forbidden"),
        (f"/ips/{ADDRESS}/history", "?from=-1", "from", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?from=5&to=5", "to", "minimum"),
        (f"/ips/{ADDRESS}/history", "?zone=us-east", "zone", "additionalProperties"),
        (f"/ips/{ADDRESS}/history", "?quantity=5", "quantity", "additionalProperties"),
        (f"/ips/{ADDRESS}/history", "?start_key=x", "start_key", "wrong_format"),
        (f"/ips/{ADDRESS}/history", "?start_key=WzEsMl0=", "start_key", "wrong_format"),
        ("/ips/history", "?at=1", "at", "additionalProperties"),
        ("/ips/history", "?account_id=Nobody", "account_id", "not_found"),
        ("/ips/history", "?account_id=", "account_id", "minLength"),
        ("/ips/history", "?page_size=1001", "page_size", "maximum"),
        ("/accounts/{A}/ips/history", "?at=1", "at", "additionalProperties"),
        ("/accounts/{A}/ips/history", "?from=1", "from", "additionalProperties"),
    ],
)
def test_an_invalid_query_is_refused_with_its_reason(
    world: World, path: str, query: str, name: str, rule: str
) -> None:
    reply = world.get(path.format(A=world.alice), query, status=400)
    assert [*invalid(reply, world.own_app.token)[name]] == [rule]


def test_a_name_of_several_accounts_is_refused(world: World) -> None:
    ids = [world.own_app.services.accounts.create("Twin", f"{n}.example.com").id for n in "12"]
    reply = world.get("/ips/history", "?account_id=Twin", status=400)
    rule = invalid(reply, world.own_app.token)["account_id"]["ambiguous"]
    assert rule["target"] == sorted(ids)


# Events of all addresses.


def test_the_events_of_an_account_are_found_by_id_realm_and_name(world: World) -> None:
    for given in (world.alice, "alice.example.com", "Alice", "alice"):
        found = world.data("/ips/history", f"?account_id={given}")
        assert [each["at"] for each in found] == [NEW_YEAR + 10, NEW_YEAR - 10]
    assert len(world.data("/ips/history", f"?account_id={BOB}")) == 2
    assert world.data("/ips/history", f"?account_id={'f' * 32}") == []


def test_events_are_filtered_by_zone(world: World) -> None:
    assert len(world.data("/ips/history", "?zone=us-east")) == 6
    assert world.data("/ips/history", "?zone=nowhere") == []
    found = world.data("/ips/history", f"?zone=us-east&account_id={BOB}&from={NEW_YEAR + 25}")
    assert [each["event"] for each in found] == ["released"]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("path", [f"/ips/{ADDRESS}/history", "/ips/history"])
def test_pages_follow_each_other(world: World, path: str, size: int) -> None:
    whole, found, query = world.data(path), [], f"?page_size={size}"
    while True:
        body = world.get(path, query).json
        assert body["page_size"] == len(body["data"]) <= size
        found += body["data"]
        if "next_start_key" not in body:
            break
        query = f"?page_size={size}&start_key={body['next_start_key']}"
    assert found == whole
    everything = streamed(world.get(path, "?paginate=false"), world.own_app.token)
    assert everything == whole


@pytest.mark.parametrize("query", ["", f"?at={NEW_YEAR}", "?paginate=false"])
def test_head_has_no_body(world: World, query: str) -> None:
    reply = world.api.head(f"/v2/ips/{ADDRESS}/history{query}", headers=world.own_app.headers)
    assert (reply.status_int, reply.body) == (200, b"")


def test_an_unchanged_history_is_304(world: World) -> None:
    tag = world.get(f"/ips/{ADDRESS}/history").headers["ETag"]
    assert world.get(f"/ips/{ADDRESS}/history", status=304, **{"If-None-Match": tag}).body == b""


# CSV.


def table(reply: Any) -> list[dict[str, str]]:
    assert reply.headers["Content-Type"] == "text/csv"
    return [*csv.DictReader(io.StringIO(reply.text))]


@pytest.mark.parametrize("path", [f"/ips/{ADDRESS}/history", "/ips/history"])
def test_csv_has_every_event(world: World, path: str) -> None:
    found = table(world.get(path, Accept="text/csv"))
    assert [row["event"] for row in found] == [each["event"] for each in world.data(path)]
    assert found[4] == {
        "at": str(NEW_YEAR - 10), "at_iso_8601": "2026-12-31T23:59:50Z", "ip": ADDRESS,
        "event": "assigned", "account_id": world.alice, "before_status": "available",
        "before_account_id": "", "before_zone": "us-east",
        "before_host": "proxy1.us-east.example.com", "after_status": "assigned",
        "after_account_id": world.alice, "after_zone": "us-east",
        "after_host": "proxy1.us-east.example.com", "by_account_id": world.alice,
        "by_user_id": "alice-user", "by_command": "", "by_system_user": "",
        "request_id": "request-1", "source": "service", "certain": "true",
        "id": world.line.events[1].id, "revision": world.line.events[1].revision, "retracts": "",
        "reason": "",
    }  # fmt: skip
    paged = table(world.get(path, "?page_size=2", Accept="text/csv"))
    assert paged == found[:2]


def test_who_had_an_address_as_csv(world: World) -> None:
    [row] = table(world.get(f"/ips/{ADDRESS}/history", f"?at={NEW_YEAR}", Accept="text/csv"))
    assert (row["account_name"], row["since"], row["certain"]) == (
        "Alice", str(NEW_YEAR - 10), "true",
    )  # fmt: skip


# An account.


def test_an_account_sees_its_own_tenures(world: World) -> None:
    reply = world.api.get(f"/v2/accounts/{world.alice}/ips/history", headers=world.own)
    held, tenure = page(reply, world.own["X-Auth-Token"])[::-1]
    assert tenure == {
        "ip": ADDRESS,
        "zone": "us-east",
        "host": "proxy1.us-east.example.com",
        "since": NEW_YEAR - 10,
        "since_iso_8601": "2026-12-31T23:59:50Z",
        "until": NEW_YEAR + 10,
        "until_iso_8601": "2027-01-01T00:00:10Z",
        "certain": True,
        "assigned_by": {
            "account_id": world.alice, "user_id": "alice-user", "request_id": "request-1",
        },
    }  # fmt: skip
    assert held == {
        "ip": "192.0.2.9", "zone": "us-east", "host": "proxy1.example.com", "certain": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "accept"),
    [("", "*/*"), ("?page_size=1", "*/*"), ("?paginate=false", "*/*"), ("", "text/csv")],
)
def test_the_history_of_an_account_names_no_other_account(
    world: World, query: str, accept: str
) -> None:
    reply = world.api.get(
        f"/v2/accounts/{world.alice}/ips/history{query}",
        headers={**world.own, "Accept": accept},
    )
    assert "alice-user" in reply.text
    for secret in ("bob", BOB, RESELLER, "reseller", "root", "request-2", "request-3", "release "):
        assert secret not in reply.text, secret


def test_an_account_does_not_see_other_histories(world: World) -> None:
    for path in (
        f"/ips/{ADDRESS}/history",
        "/ips/history",
        f"/accounts/{world.own_app.id}/ips/history",
    ):
        reply = world.api.get(f"/v2{path}", headers=world.own, status=403)
        assert failure(reply, world.own["X-Auth-Token"], "forbidden") == {"message": "forbidden"}


def test_tenures_are_on_pages_and_as_csv(world: World) -> None:
    path = f"/accounts/{world.alice}/ips/history"
    whole = world.data(path)
    first = world.get(path, "?page_size=1").json
    second = world.get(path, f"?page_size=1&start_key={first['next_start_key']}").json
    assert first["data"] + second["data"] == whole
    assert "next_start_key" not in second
    assert streamed(world.get(path, "?paginate=false"), world.own_app.token) == whole
    rows = table(world.get(path, Accept="text/csv"))
    assert [row["ip"] for row in rows] == [each["ip"] for each in whole]
    assert (rows[0]["assigned_by_user_id"], rows[0]["released_by_user_id"]) == ("alice-user", "")
