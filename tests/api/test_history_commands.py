"""The commands `history` and `history-export`: their output, and what they refuse."""

import csv
import io
import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from kazoo_ips.cli import cli
from kazoo_ips.cli import history as commands
from kazoo_ips.config import Settings
from kazoo_ips.model.history import Author
from tests.api.own_application import OwnApplication, create_own_application
from tests.history_timeline import BOB, Timeline

ADDRESS = "192.0.2.1"
START = 63_963_000_000
"""2026-11-27T12:00:00Z."""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def line() -> Timeline:
    """The timeline: an address is assigned to Alice, released and deleted."""
    return Timeline(START)


@pytest.fixture(scope="module")
def own_app(settings: Settings, line: Timeline) -> Iterator[OwnApplication]:
    """The history of the timeline in databases of its own."""
    with create_own_application(settings) as made:
        alice = made.services.accounts.create("Alice", "alice.example.com").id
        line.create(ADDRESS)
        line.now += 60
        line.assign(ADDRESS, alice, Author(alice, "=user"))
        line.now += 60
        line.release(ADDRESS, Author(command="kazoo-ips release", system_user="root"))
        line.now += 60
        line.delete(ADDRESS)
        made.services.archive.append(line.events)
        yield made


@pytest.fixture
def kazoo_ips(own_app: OwnApplication, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs `kazoo-ips`."""
    monkeypatch.setenv("COUCHDB_URL", own_app.settings.couchdb_url)
    monkeypatch.setenv("COUCHDB_ADMIN_URL", own_app.settings.couchdb_admin_url)
    monkeypatch.setenv("KAZOO_IPS_PREFIX", own_app.settings.prefix)

    def run(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == status, result.output
        return result

    return run


def test_an_address_is_shown_as_a_table(kazoo_ips: Run) -> None:
    lines = kazoo_ips("history", ADDRESS).stdout.splitlines()
    cells = [[cell.strip() for cell in each.split("|")[1:-1]] for each in lines if "|" in each]
    assert cells[0] == ["Time", "IP", "Event", "Account", "Zone", "By", "Certain", "Name"]
    assert [row[2] for row in cells[1:]] == ["deleted", "released", "assigned", "created"]
    assert cells[1][0] == "2026-11-27T12:03:00Z"
    assert cells[2][5] == "kazoo-ips release (root)"
    assert (cells[3][5].endswith(" =user"), cells[3][7]) == (True, "Alice")


def test_times_limit_the_events(kazoo_ips: Run) -> None:
    arguments = ["--from", "2026-11-27T13:01:00+01:00", "--to", str(START + 120), "--json"]
    for name in (ADDRESS, "Alice", "alice.example.com"):
        found = kazoo_ips("history", name, *arguments).stdout.splitlines()
        assert [json.loads(each)["event"] for each in found] == ["assigned"]
    assert kazoo_ips("history", ADDRESS, "--to", "2020-01-01").stdout == "No events found\n"


def test_at_prints_who_had_an_address(
    kazoo_ips: Run, own_app: OwnApplication, line: Timeline
) -> None:
    alice = own_app.services.accounts.candidates("Alice")[0].id
    at = ("--at", "2026-11-27T12:01:30.9Z")
    assert kazoo_ips("history", ADDRESS, *at).stdout.splitlines() == [
        f"ip: {ADDRESS}", "status: assigned", f"account_id: {alice}", "account_name: Alice",
        f"since: {START + 60}", "since_iso_8601: 2026-11-27T12:01:00Z",
        f"until: {START + 120}", "until_iso_8601: 2026-11-27T12:02:00Z", "certain: true",
        f"by_account_id: {alice}", "by_user_id: =user", f"request_id: {line.events[1].request_id}",
    ]  # fmt: skip
    shown = json.loads(kazoo_ips("history", ADDRESS, *at, "--json").stdout)
    assert (shown["account_name"], shown["until"]) == ("Alice", START + 120)
    [row] = csv.DictReader(io.StringIO(kazoo_ips("history", ADDRESS, *at, "--csv").stdout))
    assert (row["account_name"], row["by_user_id"]) == ("Alice", "'=user")


@pytest.mark.parametrize(
    "arguments",
    [["history", ADDRESS], ["history", "Alice"], ["history-export", "2026"]],
)
def test_csv_and_json_have_the_same_events(kazoo_ips: Run, arguments: list[str]) -> None:
    as_csv = arguments if arguments[0] == "history-export" else [*arguments, "--csv"]
    rows = [*csv.DictReader(io.StringIO(kazoo_ips(*as_csv).stdout))]
    found = [json.loads(each) for each in kazoo_ips(*arguments, "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == [each["id"] for each in found]
    assert len(found) == (2 if "Alice" in arguments else 4)


def test_an_export_has_the_events_in_order_of_time(kazoo_ips: Run, line: Timeline) -> None:
    found = kazoo_ips("history-export", "2026", "--json").stdout.splitlines()
    assert [json.loads(each)["id"] for each in found] == [event.id for event in line.events]
    assert json.loads(found[0])["at"] == START


def test_the_api_has_the_years_and_the_same_events(
    kazoo_ips: Run, own_app: OwnApplication
) -> None:
    api, headers = own_app.api, own_app.headers
    years = api.get("/v2/ips/history/years", headers=headers).json["data"]
    assert 2026 in years
    reply = api.get("/v2/ips/history/years/2026", headers=headers)
    assert reply.content_type == "application/x-ndjson"
    assert reply.text == kazoo_ips("history-export", "2026", "--json").stdout
    as_csv = api.get("/v2/ips/history/years/2026", headers={**headers, "Accept": "text/csv"})
    rows = [*csv.DictReader(io.StringIO(as_csv.text))]
    assert rows == [*csv.DictReader(io.StringIO(kazoo_ips("history-export", "2026").stdout))]
    for year in ("1066", "02026", "last"):
        unknown = api.get(f"/v2/ips/history/years/{year}", headers=headers, status=404)
        assert unknown.json["data"]["cause"] == year


def test_a_table_has_only_the_latest_events(
    kazoo_ips: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_SHOWN", 2)
    result = kazoo_ips("history", ADDRESS)
    assert result.stdout.count(ADDRESS) == 2
    assert "the latest 2 events" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["history", ADDRESS, "--at", "yesterday"], 2, "neither Gregorian seconds nor ISO 8601"),
        (["history", "Alice", "--at", "2026-11-01"], 2, "--at takes an address"),
        (["history", ADDRESS, "--at", "1", "--from", "1"], 2, "without --from"),
        (["history", ADDRESS, "--csv", "--json"], 2, "either --csv or --json"),
        (["history", "Nobody"], 1, "not_found"),
        (["history", "192.0.2.77"], 1, "unable to read the history: not_found"),
        (["history", "192.0.2.77", "--at", "1"], 1, "unable to read the history: not_found"),
        (["history-export", "2020"], 1, "no database of this year; years: 2026"),
        (["history-export", "last"], 2, "not a valid integer"),
    ],
)
def test_a_mistake_is_explained(
    kazoo_ips: Run, arguments: list[str], status: int, text: str
) -> None:
    assert text in kazoo_ips(*arguments, status=status).stderr


def test_a_deleted_account_is_found_by_its_id(kazoo_ips: Run) -> None:
    assert kazoo_ips("history", BOB).stdout == "No events found\n"
