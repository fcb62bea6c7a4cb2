"""Every command by the URL of a service has the output and the exit status that it has on CouchDB.

The commands that work on CouchDB only say so.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import pytest

from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import BadIdentifier, IPExists
from kazoo_ips.model import (
    AssignIP,
    AssignIPs,
    CreateIP,
    DeleteIP,
    DisableIP,
    EvacuateHost,
    MoveHost,
    ReleaseIP,
    Scope,
)
from kazoo_ips.model.commands import ReserveIPs
from kazoo_ips.model.jobs import Job
from kazoo_ips.remote.client import Service
from kazoo_ips.remote.services import connect
from kazoo_ips.services.pool import export_files
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.command_results import CommandResult
from tests.conftest import Member
from tests.emptying import Emptier, remove_place_settings
from tests.remote.conftest import Run

FREE, NEXT, TAKEN, NEW = "192.0.2.1", "2001:db8::2", "192.0.2.3", "203.0.113.7"
BROKEN, RESTING = "192.0.2.5", "192.0.2.6"
"""A disabled address, and one that rests in the tests of places."""
HELD, OTHER = "192.0.2.4", "198.51.100.9"
"""An address that is reserved for Alice, and an available one in another place."""
JOBS = {"move", "evacuate", "jobs", "job-stop"}
BUSY, BUSY_IP = "busy.example.com", "192.0.2.77"
"""A host that a job works on, and its address."""
PLACE, OTHER_PLACE = ("us-east", "proxy1.example.com"), ("eu", "proxy2.example.com")
LIST = f"""\
ip,zone,host
{NEW},us-east,proxy1.example.com
{FREE},us-east,proxy1.example.com
{TAKEN},eu,proxy9.example.com
{NEW},us-east,proxy1.example.com
nonsense,us-east,proxy1.example.com
198.51.100.0/30,eu,proxy2.example.com
"""

WRITES = [
    ("add", NEW, *PLACE), ("add", FREE, *PLACE), ("add", FREE, "eu", "other.example.com"),
    ("add", "nonsense", *PLACE), ("add", "127.0.0.1", *PLACE), ("add", NEW, " ", PLACE[1]),
    ("add", "198.51.100.0/30", *PLACE), ("add", "192.0.2.0-192.0.2.4", *PLACE, "--json"),
    ("add", NEW, *PLACE, "--dry-run"), ("add", "--from", "{file}"),
    ("add", "--from", "{file}", "--json"), ("add", "--from", "{file}", "--dry-run"),
    ("import", "{file}"), ("import", "{export}"), ("import", "{export}", "--json"),
    ("import", "{export}", "--dry-run"), ("import", "{export}", "--dry-run", "--json"),
    ("assign", FREE, "{alice}"), ("assign", "192.0.02.1", "{alice}"),
    ("assign", "2001:DB8:0::2", "{realm}"), ("assign", FREE, "nobody"),
    ("assign", FREE, "f" * 32), ("assign", TAKEN, "{alice}"), ("assign", TAKEN, "{bob}"),
    ("assign", NEW, "{alice}"), ("assign", "zones", "{alice}"), ("assign", "", "{alice}"),
    ("assign", FREE, ""),
    ("release", TAKEN), ("release", FREE), ("release", NEW), ("release", "assigned"),
    ("release", ""), ("release", "--account", "{alice}"), ("release", "--account", "{bob}"),
    ("release", "--account", "nobody"), ("release",),
    ("delete", FREE), ("delete", TAKEN), ("delete", "--force", TAKEN), ("delete", NEW),
    ("delete", "hosts"), ("delete", ""),
    ("assign", FREE, "{alice}", "--json"), ("release", TAKEN, "--json"),
    ("release", FREE, "--json"), ("release", "--account", "{alice}", "--json"),
    ("delete", FREE, "--json"),
    ("transfer", TAKEN, "--from", "{alice}", "--to", "{bob}"),
    ("transfer", TAKEN, "--from", "{realm}", "--to", "{bob}", "--dry-run"),
    ("transfer", TAKEN, "--from", "{alice}", "--to", "{bob}", "--json"),
    ("transfer", TAKEN, FREE, "--from", "{alice}", "--to", "{bob}"),
    ("transfer", NEW, "--from", "{alice}", "--to", "{bob}"),
    ("transfer", TAKEN, "--from", "{alice}", "--to", "nobody"),
    ("limit", "{alice}", "--max", "3", "--zone", "eu=1", "--descendants-max", "9"),
    ("limit", "{alice}", "--max", "2", "--dry-run", "--json"), ("limit", "{alice}"),
    ("limit", "nobody", "--max", "1"),
    ("limit", "{alice}", "--max", "none", "--zone", "eu=none", "--descendants-max", "none"),
    ("reserve", "create", "{alice}", FREE), ("reserve", "create", "{realm}", FREE, "--json"),
    ("reserve", "create", "{alice}", FREE, NEXT, "--seconds", "60", "--dry-run"),
    ("reserve", "create", "{alice}", "--quantity", "1", "--zone", "eu", "--host", OTHER_PLACE[1]),
    ("reserve", "create", "{alice}", "--quantity", "3", "--distinct-hosts"),
    ("reserve", "create", "{alice}", TAKEN), ("reserve", "create", "{alice}", NEW),
    ("reserve", "create", "{alice}", HELD), ("reserve", "create", "{alice}"),
    ("reserve", "create", "nobody", FREE),
    ("reserve", "extend", "{alice}", "{reservation}", "--seconds", "90"),
    ("reserve", "extend", "{alice}", "{reservation}", "--dry-run", "--json"),
    ("reserve", "extend", "{bob}", "{reservation}"), ("reserve", "extend", "{alice}", ""),
    ("reserve", "cancel", "{alice}", "{reservation}"), ("reserve", "cancel", "{alice}", ""),
    ("reserve", "cancel", "{alice}", "{reservation}", "--dry-run", "--json"),
    ("reserve", "cancel", "{bob}", "{reservation}"),
    ("reserve", "assign", "{alice}", "{reservation}"),
    ("reserve", "assign", "{alice}", "{reservation}", "--json"),
    ("reserve", "assign", "{alice}", "{reservation}", "--dry-run"),
    ("reserve", "assign", "{bob}", "{reservation}"), ("reserve", "assign", "{alice}", ""),
    ("move", PLACE[1], "--to-host", "new.example.com", "--no-wait"),
    ("move", PLACE[1], "--to-zone", "eu", "--no-wait", "--json"),
    ("move", PLACE[1], "--to-host", "new.example.com", "--dry-run"),
    ("move", PLACE[1], "--to-host", "new.example.com", "--dry-run", "--json"),
    ("move", BUSY, "--to-host", "new.example.com"),
    ("move", BUSY, "--to-host", "new.example.com", "--dry-run"),
    ("move", PLACE[1], "--to-host", " "), ("move", PLACE[1]),
    ("evacuate", PLACE[1], "--no-wait"), ("evacuate", PLACE[1], "--dry-run"),
    ("evacuate", PLACE[1], "--dry-run", "--json"), ("evacuate", "nobody.example.com", "--dry-run"),
    ("move", "nobody.example.com", "--to-host", "new.example.com"),
    ("job-stop", "{job}"), ("job-stop", "{job}", "--json"), ("job-stop", "0" * 32),
    ("job-stop", ""),
]  # fmt: skip
STATES = [
    ("drain", "--host", PLACE[1], "--reason", "broken"),
    ("drain", "--zone", PLACE[0], "--reason", "broken", "--json"),
    ("drain", "--host", PLACE[1], "--reason", "broken", "--dry-run"),
    ("drain", "--zone", PLACE[0], "--reason", "broken", "--dry-run", "--json"),
    ("drain", "--host", "nobody.example.com", "--reason", "x"),
    ("drain", "--zone", "", "--reason", "x"), ("drain", "--host", PLACE[1], "--reason", ""),
    ("drain", "--host", OTHER_PLACE[1], "--reason", "again"),
    ("enable", "--host", OTHER_PLACE[1]), ("enable", "--host", OTHER_PLACE[1], "--json"),
    ("enable", "--host", OTHER_PLACE[1], "--dry-run"), ("enable", "--zone", PLACE[0]),
    ("enable", "--host", "nobody.example.com"),
    ("age", "--zone", PLACE[0], "--seconds", "600", "--when-empty", "oldest"),
    ("age", "--zone", PLACE[0], "--seconds", "600", "--json"), ("age", "--zone", PLACE[0]),
    ("age", "--zone", PLACE[0], "--seconds", "60", "--dry-run"),
    ("age", "--zone", "nowhere", "--seconds", "60"),
    ("age", RESTING, "--reason", "asked"), ("age", RESTING, "--reason", "asked", "--json"),
    ("age", RESTING, "--reason", "asked", "--dry-run"), ("age", RESTING),
    ("age", FREE, "--reason", "asked"), ("age", NEW, "--reason", "asked"),
    ("age", "zones", "--reason", "asked"),
    ("disable", FREE, "--reason", "blocklisted"), ("disable", TAKEN, "--reason", "blocklisted"),
    ("disable", "192.0.02.1", "--reason", "blocklisted", "--json"),
    ("disable", TAKEN, "--reason", "blocklisted", "--dry-run", "--json"),
    ("disable", HELD, "--reason", "blocklisted"), ("disable", NEW, "--reason", "x"),
    ("disable", "zones", "--reason", "x"), ("disable", "", "--reason", "x"),
    ("disable", FREE, "--reason", " "), ("disable", OTHER, "--reason", "blocklisted", "--json"),
    ("enable", FREE), ("enable", TAKEN, "--json"), ("enable", NEW), ("enable", OTHER),
    ("enable", BROKEN), ("enable", BROKEN, "--reason", "mended", "--json"),
    ("enable", BROKEN, "--dry-run"), ("enable", BROKEN, "--reason", " "),
]  # fmt: skip
"""Commands that change addresses, zones and hosts. The other place is drained before."""
READS = [
    ("history", FREE), ("history", TAKEN, "--json"), ("history", BROKEN, "--json"),
    ("history", TAKEN, "--csv"),
    ("history", TAKEN, "--at", "2100-01-01"), ("history", TAKEN, "--at", "2100-01-01", "--json"),
    ("history", TAKEN, "--at", "2100-01-01", "--csv"), ("history", TAKEN, "--at", "2000-01-01"),
    ("history", "203.0.113.200"), ("history", "{alice}"), ("history", "{realm}", "--json"),
    ("history", "f" * 32), ("history", "nobody"), ("history", TAKEN, "--from", "2000-01-01"),
    ("history", TAKEN, "--to", "2000-01-01"), ("history", TAKEN, "--at", "nonsense"),
    ("history-export", "{year}"), ("history-export", "{year}", "--json"),
    ("history-export", "1066"),
    ("plot", "us-east"), ("plot", "us-east", "--days", "3", "--json"), ("plot", "nowhere"),
    ("plot", ""), ("plot", "us-east", "--output", "{svg}"),
    ("summary",), ("summary", "proxy1.example.com"), ("summary", "nobody.example.com"),
    ("summary", "--zone", "us-east", "--json"), ("summary", "--zone", "nowhere"),
    *(("summary", "--by", by) for by in ("status", "zone", "host", "account")),
    *(("summary", "--by", by, "--json") for by in ("status", "zone", "host", "account")),
    ("summary", "--by", "host", "--zone", "us-east"), ("summary", "--by", "zone", "--zone", "x"),
    ("account", "list"), ("account", "list", "--json"),
    ("reserve", "list", "{alice}"), ("reserve", "list", "{realm}", "--json"),
    ("reserve", "list", "{bob}"),
    ("export",), ("export", "--csv"), ("export", "--no-history"),
    ("jobs",), ("jobs", "--json"), ("jobs", "{job}"), ("jobs", "{job}", "--json"),
    ("jobs", "{ended}"), ("jobs", "{ended}", "--json"), ("jobs", "nonsense"), ("jobs", ""),
]  # fmt: skip
AS_JSON = [
    ("setup", "--json"), ("secure", "--dry-run", "--json"), ("refresh", "--json"),
    ("doctor", "--json"), ("history-expire", "--dry-run", "--json"), ("status", "--json"),
    ("account", "enable", "{alice}", "--json"),
    ("account", "create", "New", "--realm", "{new}.example.com", "--json"),
]  # fmt: skip
"""Commands whose JSON on CouchDB no other case checks."""
ONLY_ON_COUCHDB = [
    ("setup",), ("secure",), ("doctor",), ("doctor", "--repair"), ("refresh",),
    ("history-expire", "--yes"),
    ("account", "show", "{alice}"),
    ("account", "create", "New", "--realm", "new.example.com"),
    ("account", "enable", "{alice}"), ("account", "disable", "{alice}"),
    ("user", "create", "{alice}", "somebody", "--password-stdin"),
    ("user", "disable", "{alice}", "admin"),
]  # fmt: skip
COMPARED_BELOW = {("status",)}
OWN = {("login",), ("logout",), ("profiles",), ("completion",)}
"""Commands about services at URLs, which do not work on CouchDB."""


def words(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command below a command."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name, each in command.commands.items():
        yield from words(each, (*path, name))


def test_every_command_has_a_case() -> None:
    cases = [*WRITES, *STATES, *READS, *COMPARED_BELOW, *ONLY_ON_COUCHDB, *OWN]
    for path in words(cli):
        assert any(case[: len(path)] == path for case in cases), path


NO_JSON = {("export",), ("account", "show"), ("completion",)}
"""Commands that print JSON, CSV or a script in any case."""


def test_every_command_that_prints_data_takes_json() -> None:
    without = {
        path for path in words(cli)
        if not any("--json" in option.opts for option in command_of(path).params)
    }  # fmt: skip
    assert without == NO_JSON


def command_of(path: tuple[str, ...]) -> click.Command:
    """Return the command that has these words."""
    found: click.Command = cli
    for word in path:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    return found


def is_json(text: str) -> bool:
    """Return whether a text is one JSON value, or one object on each line."""
    for values in ([text], text.splitlines()):
        with suppress(ValueError):
            return all(isinstance(json.loads(each), dict | list) for each in values)
    return False


def test_the_page_lists_the_commands_that_work_at_a_url() -> None:
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text()
    marked = re.findall("`(.*?)`", page.partition("These work at a URL:")[2].partition("\n\n")[0])
    cases = [*WRITES, *STATES, *READS, *COMPARED_BELOW]
    wanted = {" ".join(p) for p in words(cli) if any(case[: len(p)] == p for case in cases)}
    assert set(marked) == wanted


@pytest.fixture
def prepare(emptier: Emptier, services: Instance, alice: Member) -> Callable[[], None]:
    """A function that fills the empty pool with six addresses.

    One of the addresses is Alice's, one is reserved for her, and one is disabled.
    """

    def fill() -> None:
        emptier()
        for address in (FREE, NEXT, TAKEN, HELD):
            services.pool.create(CreateIP(address, *PLACE), "0" * 32)
        services.pool.create(CreateIP(OTHER, *OTHER_PLACE), "0" * 32)
        services.ips.assign(AssignIP(alice.id, TAKEN), "0" * 32)
        services.reservations.reserve(ReserveIPs(AssignIPs(alice.id, (HELD,)), 600), "0" * 32)
        services.pool.create(CreateIP(BROKEN, *PLACE), "0" * 32)
        services.operator_changes.disable(DisableIP(BROKEN, "blocklisted"), "0" * 32)

    return fill


def end(services: Instance, command: EvacuateHost) -> Job:
    """Create a job, carry it out, and return it."""
    job = services.jobs.create(command, "0" * 32)
    while not job.has_ended:
        job = services.job_runner.step(job)
    return job


@pytest.fixture
def filled_in(
    couch: Couch, alice: Member, bob: Member, services: Instance, tmp_path: Path
) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """A function that replaces the placeholders for accounts, a file, reservations and jobs in a
    case.

    For a command about jobs it creates a job, after it has deleted those of earlier tests.
    """
    records = couch.database("kazoo_ips")
    file = tmp_path / "pool.csv"
    file.write_text(LIST)
    values = {
        "alice": alice.id,
        "year": str(services.history.years()[0]),
        "svg": str(tmp_path / "use.svg"),
        "realm": alice.account.realm,
        "bob": bob.id,
        "file": str(file),
        "new": f"new-{uuid4().hex[:8]}",
    }

    def exported() -> str:
        """Return the name of a file with an export. One of its addresses is deleted since."""
        path = tmp_path / "pool.ndjson"
        lines = services.exports.lines(history=False)
        path.write_text("".join(f"{export_files.to_json(line)}\n" for line in lines))
        services.pool.delete(DeleteIP(NEXT), "0" * 32)
        return str(path)

    def fill_in(case: tuple[str, ...]) -> tuple[str, ...]:
        opened = services.reservations.all_open(alice.id) if "{reservation}" in case else []
        values["reservation"] = opened[0].id if opened else ""
        if "{export}" in case:
            values["export"] = exported()
        if case[0] in JOBS:
            for document in list(records.range("job", "job\uffff")):
                records.remove(document["_id"], document["_rev"])
            with suppress(IPExists):
                services.pool.create(CreateIP(BUSY_IP, PLACE[0], BUSY), "0" * 32)
            job = services.jobs.create(MoveHost(BUSY, "new.example.com"), "0" * 32)
            values["job"] = job.id
        if "{ended}" in case:
            values["ended"] = end(services, EvacuateHost(PLACE[1])).id
        return tuple(word.format_map(values) for word in case)

    return fill_in


def comparable(done: CommandResult, accounts: Collection[str]) -> CommandResult:
    """Return a result without the new ids and the times in its output.

    :param accounts: the ids that are kept
    """

    def neutral(found: re.Match[str]) -> str:
        return found[0] if found[0] in accounts else "<new>"

    pattern = r"\b[0-9a-f]{32}\b|\b\d{4}-\d\d-\d\dT[\d:]+Z|\b6\d{10}\b"
    out, err = (re.sub(pattern, neutral, text) for text in (done.out, done.err))
    return CommandResult(done.status, out, err)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", WRITES, ids=" ".join)
def test_a_write_by_url_does_and_prints_the_same(
    case: tuple[str, ...],
    on_couchdb: Run,
    by_url: Run,
    prepare: Callable[[], None],
    filled_in: Any,
    services: Instance,
    alice: Member,
    bob: Member,
) -> None:
    accounts = (alice.id, bob.id)
    prepare()
    local, left = on_couchdb(*filled_in(case)), list(services.lists.summary())
    assert "--json" not in case or not local.out or is_json(local.out)
    prepare()
    assert comparable(by_url(*filled_in(case)), accounts) == comparable(local, accounts)
    assert list(services.lists.summary()) == left


@pytest.fixture
def drain(
    couch: Couch, services: Instance, prepare: Callable[[], None], live: str, operator: Member,
    alice: Member,
) -> Iterator[Callable[[], None]]:  # fmt: skip
    """A function that fills the pool, and drains the other place."""
    at_url = connect(Service(live, operator.token)).places
    place = Place(Scope.HOST, OTHER_PLACE[1])

    def forget() -> None:
        remove_place_settings(couch, services)
        with suppress(BadIdentifier):
            at_url.fetch(place)  # the service reads the settings

    def start() -> None:
        forget()
        prepare()
        services.pool.create(CreateIP(RESTING, "south", "proxy3.example.com"), "0" * 32)
        services.places.set(ChangePlace(Place(Scope.ZONE, "south"), aging_seconds=600))
        services.ips.assign(AssignIP(alice.id, RESTING), "0" * 32)
        assert services.ips.release(ReleaseIP(alice.id, RESTING), "0" * 32).status == "aging"
        services.places.change(ChangePlace(place, enabled=False, reason="broken"), "0" * 32)
        at_url.fetch(place)

    yield start
    forget()


def states(services: Instance) -> list[Any]:
    """Return counts and settings of zones and hosts, without times, to compare them."""
    zones, hosts = zip(PLACE, OTHER_PLACE, strict=True)
    places = [Place(Scope.ZONE, each) for each in zones] + [Place(Scope.HOST, h) for h in hosts]
    found: list[Any] = [services.ips.fetch(RESTING).status]
    for state in map(services.places.fetch, places):
        kept, drained = state.settings, state.settings.drained
        reason = drained.reason if drained else None
        found += [(state.summary, state.pending, kept.aging_seconds, kept.takes_oldest, reason)]
    return found


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", STATES, ids=" ".join)
def test_a_change_of_a_state_by_url_does_and_prints_the_same(
    case: tuple[str, ...],
    on_couchdb: Run,
    by_url: Run,
    drain: Callable[[], None],
    services: Instance,
) -> None:
    drain()
    local, left = on_couchdb(*case), states(services)
    drain()
    assert by_url(*case) == local
    assert "--json" not in case or not local.out or is_json(local.out)
    assert states(services) == left


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", READS, ids=" ".join)
def test_a_read_by_url_prints_the_same(
    case: tuple[str, ...],
    on_couchdb: Run,
    by_url: Run,
    prepare: Callable[[], None],
    filled_in: Any,
) -> None:
    prepare()
    arguments = filled_in(case)
    local = on_couchdb(*arguments)
    assert by_url(*arguments) == local
    assert "--json" not in case or not local.out or is_json(local.out)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", AS_JSON, ids=" ".join)
def test_a_command_on_couchdb_prints_json_and_nothing_else(
    case: tuple[str, ...], on_couchdb: Run, filled_in: Any, services: Instance
) -> None:
    services.background.archive()
    result = on_couchdb(*filled_in(case))
    assert is_json(result.out) or (case[0] == "history-expire" and not result.out), result
    if case[0] not in {"secure", "doctor", "status", "history-expire"}:  # they find something
        assert (result.status, result.err) == (0, "")


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_status_by_url_is_the_same(
    options: tuple[str, ...], on_couchdb: Run, by_url: Run, services: Instance
) -> None:
    services.background.archive()
    services.status.beat()
    local, by_api = (still(run("status", *options)) for run in (on_couchdb, by_url))
    assert by_api == local
    assert re.search("[Ww]orker", local.out)


def still(result: CommandResult) -> CommandResult:
    """Return a result without its times and without the lag of background work."""
    changing = r'\b6\d{10}\b|\d{4}-\d\d-\d\dT[\d:]+Z|\d+ (s|changes)\b|"(behind|pending)": \w+'
    out = re.sub(r" +\|", " |", re.sub(changing, "<changing>", result.out))
    return CommandResult(result.status, out, result.err)


@pytest.mark.parametrize("case", ONLY_ON_COUCHDB, ids=" ".join)
def test_a_command_that_works_on_couchdb_only_says_so_in_one_line(
    case: tuple[str, ...], by_url: Run, filled_in: Any, live: str, services: Instance
) -> None:
    before = services.accounts.list()
    result = by_url(*filled_in(case))
    [path] = [path for path in words(cli) if case[: len(path)] == path]
    command = " ".join(("kazoo-ips", *path))
    assert (result.status, result.out) == (1, "")
    assert result.err == f"'{command}' works on CouchDB only, not at {live}\n"
    assert services.accounts.list() == before
