"""The status of all instances, and the daily examination by the doctor, in one process of all."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.background import scheduled_doctor
from kazoo_ips.cli import cli
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.model import GREGORIAN_EPOCH, CreateIP
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from kazoo_ips.repositories.doctor_reports import Examined
from kazoo_ips.repositories.instances import Worker, WorkerRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.services.maintenance.findings import Finding
from tests.api.couchdb import Databases, kazoo_document
from tests.openapi_check import CheckedApp
from tests.own_databases import own_databases

THREE = 1_796_094_000.0
"""Three o'clock in UTC, in Unix seconds."""
DAY, HOUR = 86_400, 3600


class World:
    """Databases of their own, with a clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = THREE
        self.paused: list[float] = []
        self.services = self.instance()
        self.services.accounts.create("Operator", "operator.example.com")
        self.records = Records(composition.connect(settings))
        self.databases = Databases(settings.couchdb_url, settings.prefix)

    def instance(self) -> Instance:
        """Another instance of the service."""
        return composition.build(self.settings, clock=lambda: self.clock, pause=self.paused.append)

    @property
    def now(self) -> int:
        return int(self.clock) + GREGORIAN_EPOCH


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with own_databases(settings.as_administrator()) as own:
        yield World(own)


# Workers.


def test_the_workers_that_run_are_shown_with_their_release(world: World) -> None:
    assert world.services.status.status().workers == ()
    world.services.status.beat()
    repository = WorkerRepository(world.records)
    repository.put(Worker("b", "machine2", 2, "0.0.9", world.now - 500, world.now - 100))
    repository.put(Worker("c", "machine3", 3, "0.0.9", world.now - 500, world.now - 400))
    status = world.services.status.status()
    assert {(w.host, w.release) for w in status.workers} >= {("machine2", "0.0.9")}
    assert "machine3" not in {w.host for w in status.workers}
    assert len(status.releases) == 2
    assert any("several releases" in problem for problem in status.problems)


def test_a_worker_writes_one_document_and_removes_those_of_the_dead(world: World) -> None:
    repository = WorkerRepository(world.records)
    repository.put(Worker("old", "machine2", 2, "1", world.now - 9999, world.now - 4000))
    for _ in range(3):
        world.services.status.beat()
        world.clock += 60
    (own,) = repository.all()
    assert own.seen - own.started == 120
    repository.remove([own])
    world.services.status.beat()  # notices that the worker is dead
    world.services.status.beat()
    assert len(repository.all()) == 1


# CouchDB and the background work.


def test_couchdb_the_indexes_and_the_followers_are_shown(world: World) -> None:
    world.services.background.archive()
    checkpoints = Checkpoints(world.records)
    checkpoints.put(Checkpoint("healing", "gone", world.now - 60, "0", "", covered=world.now - 90))
    world.services.status.beat()
    status = world.services.status.status()
    assert status.cluster.version
    assert status.cluster.has_quorum is not False
    assert {(i.database, i.name) for i in status.indexes} >= {
        ("dedicated_ips", "ips"), ("accounts", "logins"), ("accounts", "account_tree"),
    }  # fmt: skip
    followers = {f.name: f for f in status.followers}
    assert followers["history"].is_held
    assert (followers["healing"].is_held, followers["healing"].behind) == (False, 90)
    assert "no process does the background work healing" in status.problems


def test_the_command_prints_the_status_and_exits_with_1_if_something_is_wrong(
    world: World,
) -> None:
    environment = {
        "COUCHDB_URL": world.settings.couchdb_url,
        "KAZOO_IPS_PREFIX": world.settings.prefix,
    }
    runner = CliRunner(env=environment)
    done = runner.invoke(cli, ["status"])
    assert done.exit_code == 1
    assert "CouchDB" in done.stdout
    assert "doctor: has not run yet" in done.stdout
    assert "wrong: no worker runs" in done.stdout
    real = composition.build(world.settings)
    real.status.beat()
    real.status.record_doctor(world.now, [Finding("conflict", "192.0.2.1")], "test")
    done = runner.invoke(cli, ["status", "--json"])
    found = json.loads(done.stdout)
    assert (len(found["workers"]), found["doctor"]["counts"]) == (1, {"conflict": 1})
    assert found["problems"] == ["the doctor has found: 1 conflict"]
    real.status.record_doctor(world.now, [Finding("conflict", "192.0.2.1", repaired=True)], "t")
    done = runner.invoke(cli, ["status"])
    assert (done.exit_code, "nothing is wrong" in done.stdout) == (0, True)


def test_the_metrics_have_the_workers_and_the_findings_of_the_doctor(world: World) -> None:
    world.services.status.beat()
    world.services.status.record_doctor(world.now, [Finding("conflict", "192.0.2.1")], "test")
    api = CheckedApp(composition.create_app(world.settings, clock=lambda: world.clock))
    text = api.get("/metrics").text
    release = world.services.status.status().workers[0].release
    assert f'kazoo_ips_workers{{release="{release}"}} 1.0' in text
    assert 'kazoo_ips_doctor_findings{problem="conflict"} 1.0' in text
    assert 'kazoo_ips_doctor_findings{problem="copy_missing"} 0.0' in text
    (ended,) = re.findall("^kazoo_ips_doctor_ended_timestamp_seconds (.*)$", text, re.MULTILINE)
    assert float(ended) == world.clock


# The daily examination


@pytest.fixture
def damaged(world: World) -> World:
    """A pool with an assigned address whose account does not exist."""
    world.services.pool.create(CreateIP("192.0.2.9", "z", "h"), uuid4().hex)
    world.databases.put("dedicated_ips", kazoo_document("192.0.2.1", owner="f" * 32))
    return world


def test_the_doctor_runs_once_a_day_in_its_hours(damaged: World) -> None:
    doctor = damaged.services.scheduled_doctor
    assert doctor.step()
    report = damaged.services.status.last_doctor()
    assert report is not None
    assert (report.by, report.counts) == ("background", {"unknown_owner": 1})
    assert report.examples == (("unknown_owner", "192.0.2.1", "f" * 32),)
    assert not doctor.step()
    assert not damaged.instance().scheduled_doctor.step()
    damaged.clock += 2 * HOUR
    assert not doctor.step()  # it is five o'clock
    damaged.clock += DAY - 2 * HOUR
    assert damaged.instance().scheduled_doctor.step()


def test_the_doctor_only_looks(damaged: World) -> None:
    before = damaged.databases("GET", "dedicated_ips", "/_all_docs")
    assert damaged.services.scheduled_doctor.step()
    assert damaged.databases("GET", "dedicated_ips", "/_all_docs") == before


def test_the_doctor_pauses_as_long_as_it_works(damaged: World) -> None:
    started = time.monotonic()
    assert damaged.services.scheduled_doctor.step()
    assert damaged.paused
    assert 0 < sum(damaged.paused) <= time.monotonic() - started


def test_one_process_of_all_runs_the_doctor(damaged: World, monkeypatch: Any) -> None:
    other = damaged.instance()
    lease = Checkpoints(damaged.records)
    held = lease.put(Checkpoint("doctor", "another machine/1", damaged.now + 30, "", ""))
    assert held is not None
    assert not damaged.services.scheduled_doctor.step()
    damaged.clock += 31
    assert other.scheduled_doctor.step()


def test_a_process_that_loses_the_lease_stops(damaged: World, monkeypatch: Any) -> None:
    def take_over(_seconds: float) -> None:
        checkpoints = Checkpoints(damaged.records)
        held = checkpoints.find("doctor")
        assert held is not None
        damaged.clock += 20  # it is time to renew
        checkpoints.put(replace(held, holder="another machine/1", until=damaged.now + 60))

    services = composition.build(damaged.settings, clock=lambda: damaged.clock, pause=take_over)
    with pytest.raises(scheduled_doctor.LeaseLost):
        services.scheduled_doctor.step()
    assert damaged.services.status.last_doctor() is None


@pytest.mark.parametrize(
    ("hours", "at", "runs"),
    [
        ("2-5", 2, True), ("2-5", 4.9, True), ("2-5", 5, False), ("2-5", 1.9, False),
        ("22-4", 23, True), ("22-4", 3, True), ("22-4", 4, False), ("22-4", 12, False),
        ("0-24", 0, False), ("0-24", 12, False), ("0-23", 12, True), ("never", 3, False),
    ],
)  # fmt: skip
def test_the_hours_may_include_midnight(world: World, hours: str, at: float, runs: bool) -> None:
    world.settings = replace(world.settings, doctor_hours=hours)
    world.clock = THREE + (at - 3) * HOUR
    assert world.instance().scheduled_doctor.step() is runs


@pytest.mark.parametrize("hours", ["5", "x", "2-25", "3-3", "0-24", "2:30-5", "-"])
def test_invalid_hours_are_refused(hours: str) -> None:
    with pytest.raises(BadSetting, match="KAZOO_IPS_DOCTOR_HOURS"):
        Settings.load({"KAZOO_IPS_DOCTOR_HOURS": hours})


def test_the_command_doctor_stores_its_report(damaged: World) -> None:
    environment = {
        "COUCHDB_URL": damaged.settings.couchdb_url, "KAZOO_IPS_PREFIX": damaged.settings.prefix,
    }  # fmt: skip
    done = CliRunner(env=environment).invoke(cli, ["doctor"])
    assert done.exit_code == 1
    report = damaged.services.status.last_doctor()
    assert report is not None
    assert (report.by, dict(report.counts)) == ("kazoo-ips doctor", {"unknown_owner": 1})


@pytest.fixture
def long_ago(world: World) -> World:
    """The same problem, in a pool that has not changed for a long time."""
    world.databases.put("dedicated_ips", kazoo_document("192.0.2.1", owner="f" * 32))
    return world


def test_only_changes_are_examined_on_request(long_ago: World) -> None:
    environment = {
        "COUCHDB_URL": long_ago.settings.couchdb_url, "KAZOO_IPS_PREFIX": long_ago.settings.prefix,
    }  # fmt: skip

    def doctor(*options: str) -> list[tuple[str, str]]:
        done = CliRunner(env=environment).invoke(cli, ["doctor", "--json", *options])
        return [(each["problem"], each["address"]) for each in json.loads(done.stdout)]

    first = ("unknown_owner", "192.0.2.1")
    assert doctor("--changed") == [first]  # it has never examined the pool before
    assert doctor("--changed") == []
    long_ago.databases.put("dedicated_ips", kazoo_document("192.0.2.2", owner="f" * 32))
    for _ in range(2):  # the finding is reported until it is repaired
        assert doctor("--changed") == [("unknown_owner", "192.0.2.2")]
    report = long_ago.services.status.last_doctor()
    assert report is not None
    assert dict(report.counts) == {"unknown_owner": 1}
    assert sorted(doctor()) == [first, ("unknown_owner", "192.0.2.2")]
    assert doctor("--changed") == []


def test_an_account_whose_address_has_changed_is_examined(long_ago: World) -> None:
    services = long_ago.services
    alice = services.accounts.create("Alice", "alice.example.com").id
    assert services.scheduled_doctor.step()
    report = services.status.last_doctor()
    assert report is not None
    long_ago.databases.put("dedicated_ips", kazoo_document("192.0.2.3", owner=alice))
    found = list(services.doctor.examine(after=report.examined))
    assert [(f.problem, f.address, f.account_id) for f in found] == [
        ("copy_missing", "192.0.2.3", alice)
    ]


def test_recent_changes_are_examined_the_next_time(long_ago: World) -> None:
    assert long_ago.services.scheduled_doctor.step()
    report = long_ago.services.status.last_doctor()
    assert report is not None
    recent = kazoo_document("192.0.2.4", owner="f" * 32, pvt_modified=long_ago.now)
    long_ago.databases.put("dedicated_ips", recent)
    doctor = long_ago.services.doctor
    assert list(doctor.examine(after=report.examined)) == []
    assert doctor.examined == report.examined
    long_ago.clock += 60
    assert [f.address for f in doctor.examine(after=doctor.examined)] == ["192.0.2.4"]


def test_a_database_that_was_created_again_is_examined_as_a_whole(long_ago: World) -> None:
    found = list(long_ago.services.doctor.examine(after=Examined("another", "9")))
    assert [f.address for f in found] == ["192.0.2.1"]
