"""If the doctor's process is killed, another process continues its examination."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.repositories.doctor_reports import DoctorReportRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.services.maintenance import copy_examination, doctor, examinations
from kazoo_ips.services.maintenance.findings import Finding
from tests.api.couchdb import Databases, kazoo_document
from tests.own_databases import own_databases

BY = "kazoo-ips doctor"
KILLED = f"""
import os, signal, sys
from kazoo_ips import app
from kazoo_ips.config import Settings
from kazoo_ips.services.maintenance import copy_examination, doctor, examinations
doctor.CHUNK, copy_examination.CHUNK, examinations._INTERVAL = 2, 2, 0.0
left = int(sys.argv[1])
def seen(count):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
list(app.build(Settings.load(os.environ)).examinations.run("{BY}", seen=seen))
"""


class World:
    """A pool with eight damaged addresses of accounts that do not exist, and three accounts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reports = DoctorReportRepository(Records(composition.connect(settings)))
        services = self.instance()
        self.accounts = [
            services.accounts.create(f"Account {n}", f"a{n}.example.com").id for n in range(3)
        ]
        databases = Databases(settings.couchdb_url, settings.prefix)
        owners = [*("f" * 31 + str(n) for n in range(8))]
        for n, owner in enumerate(owners):
            databases.put("dedicated_ips", kazoo_document(f"192.0.2.{n}", owner=owner))
        for n, account in enumerate(self.accounts):  # these accounts lack the copies
            databases.put("dedicated_ips", kazoo_document(f"198.51.100.{n}", owner=account))

    def instance(self) -> Instance:
        return composition.build(self.settings)

    def run(self, by: str = BY) -> Counter[Finding]:
        """Return the findings. CouchDB reads the shards of a database in any order."""
        return Counter(self.instance().examinations.run(by))

    def killed(self, after: int) -> bool:
        """Examine in a process that is killed after some steps; return whether it was."""
        environment = {
            **os.environ, "COUCHDB_URL": self.settings.couchdb_url,
            "KAZOO_IPS_PREFIX": self.settings.prefix,
        }  # fmt: skip
        command = [sys.executable, "-c", KILLED, str(after)]
        done = subprocess.run(command, env=environment, timeout=60, check=False)
        assert done.returncode in (0, -9)
        return done.returncode == -9


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for module in (doctor, copy_examination):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(examinations, "_INTERVAL", 0.0)
    with own_databases(settings.as_administrator()) as own:
        yield World(own)


def test_a_killed_examination_goes_on_at_every_step(world: World) -> None:
    whole = world.run()
    assert {each.problem for each in whole} == {"unknown_owner", "copy_missing"}
    assert world.reports.progress(BY) is None
    step = 1
    while world.killed(step):
        begun = world.reports.progress(BY)
        assert begun is not None
        found = [Finding(*each) for each in begun.findings]
        steps = 0

        def seen(_count: int) -> None:
            nonlocal steps
            steps += 1

        again = list(world.instance().examinations.run(BY, seen=seen))
        assert again[: len(found)] == found
        assert Counter(again) == whole
        report = world.reports.find()
        assert report is not None
        assert (sum(report.counts.values()), report.started) == (whole.total(), begun.started)
        assert world.reports.progress(BY) is None
        step += 3
    assert step > 6


def test_what_was_examined_is_not_read_again(world: World) -> None:
    everything = steps_of(world)
    assert world.killed(4)
    assert steps_of(world) == everything - 4


def steps_of(world: World) -> int:
    """Examine all that is left; return the number of steps."""
    steps = 0

    def seen(_count: int) -> None:
        nonlocal steps
        steps += 1

    list(world.instance().examinations.run(BY, seen=seen))
    return steps


def test_an_old_progress_and_that_of_another_pool_are_left(world: World) -> None:
    whole = world.run()
    assert world.killed(3)
    progress = world.reports.progress(BY)
    assert progress is not None
    old = replace(progress, saved=progress.saved - 86_400, findings=())
    world.reports.put_progress(old)
    assert world.run() == whole
    other = replace(progress, position=progress.position._replace(pool="other"), findings=())
    world.reports.put_progress(other)
    assert world.run() == whole


def test_examinations_by_others_are_separate(world: World) -> None:
    whole = world.run()
    assert world.killed(3)
    assert world.run("background") == whole
    assert world.reports.progress(BY) is not None
    assert world.reports.progress("background") is None
