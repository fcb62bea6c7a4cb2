"""The export of everything, and its import into an empty database: byte for byte the same."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIPs, CreateIP, DeleteIP, ReleaseIP, ReleaseIPs
from kazoo_ips.observability import audit
from kazoo_ips.remote import exports as remote_exports
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.pool import export_files, exports
from tests.api.couchdb import Databases, kazoo_document
from tests.openapi_check import CheckedApp
from tests.own_databases import own_databases
from tests.servers import Gunicorn

ALICE, GONE = "a" * 32, "f" * 32
START = 1_800_000_000.0
OTHER_SPELLING = "2001:DB8:0:0::7"


class World:
    """Databases of their own, with a clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = START
        self.services: Instance = composition.build(
            settings.as_administrator(), clock=lambda: self.clock, pause=lambda _: None
        )
        self.databases = Databases(settings.as_administrator().couchdb_url, settings.prefix)
        accounts = self.services.accounts
        self.operator = accounts.create("Operator", "operator.example.com")
        accounts.create("Alice", "alice.example.com", account_id=ALICE)

    @property
    def token(self) -> str:
        return self.services.auth.open_session(self.operator).token

    def archive(self) -> None:
        """Let the archiver archive all changes."""
        for _ in range(8):
            self.services.background.archive()
            self.clock += 1

    def export(self, **how: bool) -> bytes:
        lines = self.services.exports.lines(**how)
        return "".join(f"{export_files.to_json(line)}\n" for line in lines).encode()

    def lines(self, **how: bool) -> list[Any]:
        return [json.loads(line) for line in self.export(**how).splitlines()]

    def fill(self) -> None:
        """Addresses of every kind, with a history."""
        services = self.services
        addresses = tuple(f"192.0.2.{n}" for n in range(1, 8))
        for address in addresses:
            services.pool.create(CreateIP(address, "us-east", "proxy1.example.com"), uuid4().hex)
        self.databases.put(
            "dedicated_ips",
            kazoo_document("198.51.100.1", owner=ALICE, note="kept", nested={"a": [1, None]}),
            kazoo_document("198.51.100.2", owner=GONE),
            kazoo_document("198.51.100.3", "zone ü", "h;\"'", pvt_status="quarantined"),
            kazoo_document(OTHER_SPELLING),
            {"_id": "not-an-address", "pvt_type": "other"},
        )
        self.archive()
        for _ in range(3):  # several events in each trail
            services.ips.assign_all(AssignIPs(ALICE, addresses[:4]), uuid4().hex)
            self.clock += 100
            services.ips.release_all(ReleaseIPs(ALICE, addresses[:4]), uuid4().hex)
            self.archive()
        services.ips.assign_all(AssignIPs(ALICE, addresses[:3]), uuid4().hex)
        services.pool.delete(DeleteIP(addresses[6]), uuid4().hex)
        self.archive()
        self.databases.put(
            "kazoo_ips",
            {"_id": "place-settings", "zones": {"us-east": {"low_percent": 5}}},
            {"_id": "limits", "type": "limits", "own": [], "descendants": []},
            {"_id": "webhook-1", "secret": "secret"},
        )
        services.background.work()
        self.clock += 300
        services.background.recover()


@contextmanager
def made(settings: Settings) -> Iterator[World]:
    with own_databases(settings, low_percent=0) as own:
        yield World(own)


@pytest.fixture(scope="module")
def source(settings: Settings) -> Iterator[World]:
    """The pool that is exported; for reading only."""
    with made(settings) as world:
        world.fill()
        yield world


@pytest.fixture
def empty(settings: Settings, source: World) -> Iterator[World]:
    """Databases with the same accounts and no addresses."""
    with made(settings) as world:
        world.clock = source.clock
        yield world


def restore(world: World, text: bytes, **how: bool) -> dict[str, dict[str, int]]:
    """Import an export, and return the results by type."""
    counts: dict[str, dict[str, int]] = {}
    lines = export_files.read(io.StringIO(text.decode(), newline=""))
    for result in world.services.restores.restore(lines, **how):
        kind = counts.setdefault(result.type, {})
        for outcome, count in result.counts.items():
            kind[outcome] = kind.get(outcome, 0) + count
    return counts


# The content of an export


def test_an_export_has_every_address_with_all_its_fields(source: World) -> None:
    lines = source.lines()
    documents = {
        row["id"]: row["doc"]
        for row in source.databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"]
        if row["doc"].get("pvt_type") == "dedicated_ip"
    }
    exported = {x["document"]["_id"]: x["document"] for x in lines if x["type"] == "address"}
    assert exported == documents
    assert {"198.51.100.1", OTHER_SPELLING} <= exported.keys()
    assert exported["192.0.2.1"]["pvt_trail"]


def test_an_export_has_every_event_and_the_settings(source: World) -> None:
    lines = source.lines()
    feed = source.services.changes.read("0", 1000).entries
    events = [line["document"] for line in lines if line["type"] == "event"]
    assert sorted(e["id"] for e in events) == sorted(entry.event.id for entry in feed)
    assert {e["event"] for e in events} >= {"created", "assigned", "released", "deleted"}
    settings = {x["document"]["_id"]: x["document"] for x in lines if x["type"] == "settings"}
    assert settings["place-settings"]["zones"] == {"us-east": {"low_percent": 5}}
    assert settings.keys() == {"limits", "place-settings"}
    ended = {
        "type": "end",
        "settings": 2,
        "event": len(events),
        "address": len(lines) - 4 - len(events),
    }
    assert lines[-1] == ended
    assert [line["type"] for line in source.lines(history=False)].count("event") == 0


def test_two_exports_are_the_same(source: World) -> None:
    assert source.export() == source.export()


# Export and import


@pytest.mark.parametrize("form", ["NDJSON", "CSV"])
def test_an_import_of_an_export_has_the_same_export(
    source: World, empty: World, form: str
) -> None:
    api = CheckedApp(composition.create_app(source.settings, clock=lambda: source.clock))
    accept = {"Accept": "text/csv"} if form == "CSV" else {}
    reply = api.get("/v2/ips/export", headers={"X-Auth-Token": source.token, **accept})
    counts = restore(empty, reply.body)
    assert {outcome for each in counts.values() for outcome in each} == {"added"}
    assert empty.export() == source.export()
    again = restore(empty, reply.body)
    assert {outcome for each in again.values() for outcome in each} == {"unchanged"}
    # The background work finds nothing to add.
    empty.archive()
    assert empty.export() == source.export()


def test_an_imported_pool_goes_on_as_the_other_would(source: World, empty: World) -> None:
    restore(empty, source.export())
    # The import writes the copy that Kazoo's documents in the test lack.
    found = [f for f in source.services.doctor.examine() if f.problem != "copy_missing"]
    assert [*empty.services.doctor.examine()] == found
    copy = empty.databases.get(account_database(ALICE), "192.0.2.1")
    assert copy["pvt_assigned_to"] == ALICE
    for services in (source.services, empty.services):
        held = services.history.holder("192.0.2.1", int(START) + 62_167_219_200 + 150)
        assert (held.account_id, held.certain) == (
            source.services.history.holder(
                "192.0.2.1", int(START) + 62_167_219_200 + 150
            ).account_id,
            True,
        )
    fetched = source.services.ips.fetch("192.0.2.1")
    assert empty.services.ips.fetch("192.0.2.1").revision == fetched.revision
    revision = (fetched.revision or "",)
    command = ReleaseIP(ALICE, "192.0.2.1", revision)
    assert empty.services.ips.release(command, uuid4().hex).status == "available"
    empty.archive()
    events = [e.event.event for e in empty.services.changes.read("0", 1000).entries]
    assert events.count("released") == 13


def test_a_dry_run_stores_nothing(source: World, empty: World) -> None:
    text = source.export()
    before = empty.export()
    counts = restore(empty, text, dry_run=True)
    assert {outcome for each in counts.values() for outcome in each} == {"added"}
    assert empty.export() == before


def test_what_the_database_has_is_not_changed(source: World, empty: World) -> None:
    empty.services.pool.create(CreateIP("192.0.2.1", "elsewhere", "h"), uuid4().hex)
    empty.services.pool.create(CreateIP("192.0.2.2", "elsewhere", "h"), uuid4().hex)
    empty.services.pool.delete(DeleteIP("192.0.2.2"), uuid4().hex)
    empty.databases.put("kazoo_ips", {"_id": "place-settings", "zones": {}})
    counts = restore(empty, source.export())
    assert counts["address"]["different"] == 2
    assert counts["settings"] == {"added": 1, "different": 1}
    assert empty.services.ips.fetch("192.0.2.1").zone == "elsewhere"
    assert "_conflicts" not in empty.databases("GET", "dedicated_ips", "/192.0.2.1?conflicts=true")


def test_the_guard_lets_an_import_pass(source: World, empty: World) -> None:
    composition.databases(empty.settings).guard(True)
    counts = restore(empty, source.export())
    assert counts["address"].keys() <= {"added", "failed"}
    # The guard refuses from an import what it refuses from every client: here an unknown status.
    assert counts["address"].get("failed", 0) <= 1


# Files that are not exports


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "this is not an export"),
        ("ip,zone,host\n", "this is not an export"),
        ('{"type":"address"}\n', "this is not an export"),
        ('{"type":"export","version":2}\n', "cannot read version 2"),
        ('{"type":"export","version":1}\n', "it has no last line"),
        ('{"type":"export","version":1}\n{"type":"address"}\n', "line 2 is not a line"),
        ('{"type":"export","version":1}\nnonsense\n', "line 2 is not JSON"),
        ('{"type":"export","version":1}\n[]\n', "line 2 is not a JSON object"),
        ('{"type":"export","version":1}\n{"type":"end","address":3}\n', "0 lines of the type"),
    ],
)
def test_a_file_that_is_no_export_or_incomplete_is_refused(
    empty: World, text: str, problem: str
) -> None:
    with pytest.raises(exports.BadExport, match=problem):
        restore(empty, text.encode())


def test_an_export_that_was_cut_off_is_refused_at_its_end(source: World, empty: World) -> None:
    lines = source.export().splitlines(keepends=True)
    with pytest.raises(exports.BadExport, match="incomplete"):
        restore(empty, b"".join(lines[:-1]))
    with pytest.raises(exports.BadExport, match="incomplete"):
        restore(empty, b"".join([*lines[:-3], lines[-1]]))
    restore(empty, source.export())
    assert empty.export() == source.export()


# CSV and commands


def test_csv_has_columns_for_people(source: World) -> None:
    api = CheckedApp(composition.create_app(source.settings, clock=lambda: source.clock))
    headers = {"X-Auth-Token": source.token, "Accept": "text/csv"}
    reply = api.get("/v2/ips/export?history=false", headers=headers)
    rows = {row["ip"]: row for row in csv.DictReader(io.StringIO(reply.text, newline=""))}
    one = rows["192.0.2.1"]
    assert (one["type"], one["zone"], one["status"], one["account_id"]) == (
        "address", "us-east", "assigned", ALICE,
    )  # fmt: skip
    assert json.loads(one["content"])["document"]["pvt_assigned_to"] == ALICE


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def command(world: World, *arguments: str, **more: Any) -> Any:
        monkeypatch.setenv("COUCHDB_URL", world.settings.as_administrator().couchdb_url)
        monkeypatch.setenv("KAZOO_IPS_PREFIX", world.settings.prefix)
        return CliRunner().invoke(cli, arguments, **more)

    return command


@pytest.mark.parametrize("form", [(), ("--csv",)])
def test_the_commands_export_and_import(
    source: World, empty: World, run: Callable[..., Any], tmp_path: Path, form: tuple[str, ...]
) -> None:
    path = tmp_path / "pool"
    done = run(source, "export", "--output", str(path), *form)
    assert (done.exit_code, done.output) == (0, "")
    assert [each.name for each in tmp_path.iterdir()] == ["pool"]
    piped = run(source, "export", *form)
    assert piped.stdout_bytes.replace(b"\r\n", b"\n") == path.read_bytes().replace(b"\r\n", b"\n")
    done = run(empty, "import", str(path))
    assert done.exit_code == 0, done.output
    assert "address: 10 added" in done.stdout
    assert "no copies: the account " + GONE in done.stderr
    assert empty.export() == source.export()
    again = json.loads(run(empty, "import", str(path), "--json").stdout)
    assert again["counts"]["address"] == {"unchanged": 10}
    assert again["accounts_without_database"] == [GONE]


# Over the API.


@pytest.fixture
def at_url(
    empty: World, source: World, run: Callable[..., Any], tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """A function that runs a command at the URL of a service on the empty databases."""
    environment = {
        "COUCHDB_URL": empty.settings.as_administrator().couchdb_url,
        "KAZOO_IPS_PREFIX": empty.settings.prefix,
        "KAZOO_IPS_LOW_PERCENT": "0",
    }
    with Gunicorn(environment, tmp_path / "log", workers=1, background=False) as server:
        token = composition.build(empty.settings).auth.open_session(empty.operator).token
        yield lambda *arguments, **more: run(
            empty, "--url", server.url, "--token", token, *arguments, **more
        )


@pytest.mark.parametrize("size", [None, 300])
def test_an_import_by_url_has_the_same_export(
    source: World,
    empty: World,
    at_url: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int | None,
) -> None:
    if size:  # maximum characters of a request: less than two lines
        monkeypatch.setattr(remote_exports, "_MOST_CHARACTERS", size)
    path = tmp_path / "pool"
    path.write_bytes(source.export())
    before = empty.export()
    assert "address: 10 added" in at_url("import", str(path), "--dry-run").stdout
    assert empty.export() == before
    done = at_url("import", str(path))
    assert done.exit_code == 0, done.output
    assert "address: 10 added" in done.stdout
    assert "no copies: the account " + GONE in done.stderr
    assert empty.export() == source.export()
    copies = empty.databases("GET", account_database(ALICE), "/_all_docs")["rows"]
    assert "192.0.2.1" in {row["id"] for row in copies}
    again = json.loads(at_url("import", str(path), "--json").stdout)
    assert again["counts"]["address"] == {"unchanged": 10}


REVISION = "1-" + "a" * 32
GOOD = {"type": "address", "document": {**kazoo_document("192.0.2.99"), "_rev": REVISION}}


def changed(kind: str = "address", **members: Any) -> dict[str, Any]:
    """Return a line with other members in its document."""
    document: Any = GOOD["document"]
    return {"type": kind, "document": {**document, **members}}


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (None, "required"), ([], "minItems"), ({}, "type"), ([GOOD] * 1001, "maxItems"),
        *(([line], "not_one_schema_valid") for line in (
            1, {}, {"type": "end"}, {"type": "address"}, {"type": "address", "document": 1},
            changed(_rev=1), changed(_rev="1-x"), changed(_rev="0-" + "a" * 32),
            changed(_id="not-an-address"), changed(_id=1), changed(pvt_type="user"),
            changed(pvt_deleted=True), changed(_deleted=True), changed(_attachments={}),
            changed("user"), changed("event"),
            {"type": "event", "year": "2026", "document": {"_id": "1", "event": "assigned"}},
            {"type": "event", "year": 2026, "document": {"_id": "1"}},
            {"type": "event", "year": 2026, "document": {"_id": "1", "event": "e", "_x": 1}},
            {"type": "settings", "document": {"_id": "webhook-1", "secret": "x"}},
            {"type": "settings", "document": {"_id": "lease"}},
            {"type": "settings", "document": {"_id": "limits", "_rev": REVISION}},
        )),
        ([GOOD, {"type": "settings", "document": {"_id": "limits"}}], "not_one_schema_valid"),
    ],
)  # fmt: skip
def test_lines_that_no_export_has_are_refused(empty: World, lines: Any, rule: str) -> None:
    api = CheckedApp(composition.create_app(empty.settings))
    before = empty.export()
    body = {"data": {} if lines is None else {"lines": lines}}
    token = composition.build(empty.settings).auth.open_session(empty.operator).token
    headers = {"X-Auth-Token": token}
    reply = api.post_json("/v2/ips/restore", body, headers=headers, status=400)
    assert rule in reply.json["data"]["lines"]
    assert empty.export() == before


def test_an_import_over_the_api_has_audit_lines_and_is_done_once(
    empty: World, caplog: pytest.LogCaptureFixture
) -> None:
    api = CheckedApp(composition.create_app(empty.settings))
    token = composition.build(empty.settings).auth.open_session(empty.operator).token
    headers = {"X-Auth-Token": token, "Idempotency-Key": "import"}
    body = {"data": {"lines": [GOOD]}}
    caplog.set_level("INFO", logger=audit.log.name)
    first = api.post_json("/v2/ips/restore", body, headers=headers).json["data"]
    assert first["counts"] == {"added": 1}
    assert api.post_json("/v2/ips/restore", body, headers=headers).json["data"] == first
    [fields] = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert fields.items() >= {"audit": "imported", "account_id": empty.operator.id}.items()
    assert fields["addresses"] == ["192.0.2.99"]


def test_a_failed_import_ends_with_status_1(
    empty: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "pool"
    path.write_text('{"type":"export","version":1}\n')
    done = run(empty, "import", str(path))
    assert done.exit_code == 1
    assert "the file is incomplete" in done.stderr
