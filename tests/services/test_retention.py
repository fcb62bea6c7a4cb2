"""Years of the history: which are deleted, by whom, and what the doctor reports."""

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import DatastoreForbidden
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.history_years import HistoryYears
from kazoo_ips.repositories.records import Records
from kazoo_ips.services.maintenance.retention import RetentionService
from tests.services.test_history_archive import NEW_YEAR, Archive, event

DAY = 86_400


class Kept(Archive):
    """An archive with the years 2026 to 2029, at the beginning of 2029."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.now = NEW_YEAR + 2 * 365 * DAY + 10 * DAY
        self.refused = 0
        self.couch.database("kazoo_ips").create()
        for year in (2026, 2027, 2028, 2029):
            self.years.create(year)

    def retention(self, kept: int = 2) -> RetentionService:
        """Return the service of another process."""
        years = HistoryYears(self.couch, lambda: self.now)
        checkpoints = Checkpoints(Records(self.couch))
        return RetentionService(years, checkpoints, kept, lambda: self.now, self._count)

    def _count(self) -> None:
        self.refused += 1


@pytest.fixture
def own(settings: Settings) -> Iterator[Kept]:
    """An archive of this test's own."""
    made = Kept(settings)
    yield made
    for name in made.couch.databases():
        made.couch.database(name).delete()


def years(own: Kept) -> list[int]:
    """The years that have a database."""
    return [int(name[-4:]) for name in own.names()]


@pytest.mark.parametrize(
    ("kept", "deleted"), [(0, []), (1, [2026, 2027]), (2, [2026]), (3, []), (1000, [])]
)
def test_older_years_are_deleted(own: Kept, kept: int, deleted: list[int]) -> None:
    retention = own.retention(kept)
    assert retention.expired() == deleted
    assert retention.delete_expired() == deleted
    assert years(own) == sorted({2026, 2027, 2028, 2029} - set(deleted))


def test_one_process_a_day_looks(own: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Database) -> None:
        raise DatastoreForbidden("You are not a server admin.")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "delete", refuse)
        assert own.retention().delete_expired() == []
        assert own.refused == 1
    assert own.retention().delete_expired() == []
    own.now += DAY - 1
    assert own.retention().delete_expired() == []
    own.now += 2
    assert own.retention().delete_expired() == [2026]
    assert own.refused == 1


def test_a_clock_that_is_wrong_deletes_nothing(own: Kept) -> None:
    right = own.now
    own.now += 20 * 365 * DAY
    assert own.retention().expired()
    assert own.retention().delete_expired() == []
    assert years(own) == [2026, 2027, 2028, 2029]
    own.now = right
    assert own.retention().delete_expired() == [2026]


# Commands. They use the clock of this machine, whose year is 2026 or later.


class Commands(Archive):
    """An archive of the year 2026, with the environment of a command."""

    def run(self, *arguments: str, **more: Any) -> tuple[int, str]:
        """Run a command; return its exit status and what it printed."""
        environment = {
            "COUCHDB_URL": self.settings.couchdb_url,
            "COUCHDB_ADMIN_URL": "",
            "KAZOO_IPS_PREFIX": self.settings.prefix,
            "KAZOO_IPS_HISTORY_YEARS": "",
            **more,
        }
        result = CliRunner().invoke(cli, arguments, env=environment)
        return result.exit_code, result.output


@pytest.fixture
def commands(settings: Settings) -> Iterator[Commands]:
    """An archive with two events in its only year."""
    made = Commands(settings)
    made.archive.append([event(1), event(2)])
    yield made
    for name in made.couch.databases():
        made.couch.database(name).delete()


def test_the_command_deletes_after_a_question(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.run("history-expire")[1].startswith("all years are kept")
    assert commands.run("history-expire", KAZOO_IPS_HISTORY_YEARS="1") == (0, "")
    now = NEW_YEAR + 3 * 365 * DAY - GREGORIAN_EPOCH
    monkeypatch.setattr("kazoo_ips.app.time.time", lambda: now)
    kept = {"KAZOO_IPS_HISTORY_YEARS": "1"}
    assert "2026: not deleted" in commands.run("history-expire", "--dry-run", **kept)[1]
    assert "Delete the history of 2026?" in commands.run("history-expire", **kept)[1]
    assert commands.names() == ["kazoo_ips_history_2026"]
    assert "2026: deleted" in commands.run("history-expire", "--yes", **kept)[1]
    assert commands.names() == []


def test_the_doctor_knows_the_databases_of_the_history(commands: Commands) -> None:
    assert commands.years.problems() == [
        "the database kazoo_ips_history_2027 is missing; run setup"
    ]
    commands.years.create(2027)
    assert commands.years.problems() == []
    database = commands.years.database(2026)
    document = database.get("_design/append_only")
    database.remove(document["_id"], document["_rev"])
    assert commands.years.problems() == [
        "the design document append_only of kazoo_ips_history_2026 is not current; run setup"
    ]
    assert commands.years.create(2026) == ["kazoo_ips_history_2026/_design/append_only"]
