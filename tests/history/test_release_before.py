"""Earlier releases run beside this one, and do not damage the states that they do not know.

Their code comes from the Git history, and runs in a process of its own.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, DisableIP, Scope
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.history.conftest import World

ROOT = Path(__file__).parents[2]
BEFORE = {
    "without history": "54b6424",
    "with a trail": "e968c7b",
}
"""Commits whose code knows two states only. The code of the first one writes no trails."""
FREE, RESTING, RESERVED, DISABLED, MARKED = (f"192.0.2.{n}" for n in range(1, 6))
ORJSON = """
import json
from json import JSONDecodeError, loads
dumps = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
"""
"""A replacement for a library that only the first commit needs, and that is no longer
installed."""
OF_ITS_OWN = """
import os, sys
from uuid import uuid4
from kazoo_ips import app
from kazoo_ips.config import Settings
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import AllocateIPs, AssignIP, ReleaseIP, ReleaseIPs

clock = float(sys.argv[1])
services = app.build(Settings.load(os.environ), clock=lambda: clock)
what, account, *addresses = sys.argv[2:]
if what == "harms":
    for address in addresses:
        for command, do in ((AssignIP, services.ips.assign), (ReleaseIP, services.ips.release)):
            try:
                do(command(account, address), uuid4().hex)
            except KazooIPsError as error:
                print("refused", address)
    try:
        services.allocation.allocate(AllocateIPs(account, 2), uuid4().hex)
    except KazooIPsError as error:
        print("refused", error)
    if hasattr(services, "background"):
        services.background.recover()
        services.background.follow()
    else:
        services.housekeeping.recover()
elif what == "repairs":
    list(services.doctor.examine(repair=True))
else:
    services.ips.release_all(ReleaseIPs(account, None), uuid4().hex)
"""


@pytest.fixture(scope="module", params=BEFORE)
def code(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of an earlier release."""
    commit = BEFORE[request.param]
    command = ["git", "-C", str(ROOT), "archive", commit, "kazoo_ips", "couch_views"]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("the repository has no history here")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    (folder / "orjson.py").write_text(ORJSON)
    return folder


def run_before(world: World, code: Path, *arguments: str) -> str:
    """Run code with the earlier release in a process of its own; return what it prints."""
    settings = world.settings
    environment = {
        **os.environ,
        "COUCHDB_URL": settings.couchdb_url,
        "KAZOO_IPS_PREFIX": settings.prefix,
        "PYTHONPATH": str(code),
    }
    command = [sys.executable, "-c", OF_ITS_OWN, str(world.clock[0]), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=code
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def before(world: World) -> dict[str, Any]:
    """The documents of addresses in the states that the release lacks, and an available one."""
    zone = Place(Scope.ZONE, "z")
    for address in (FREE, RESTING, RESERVED, DISABLED):
        world.create(address)
    world.services.places.set(ChangePlace(zone, aging_seconds=10**6))
    world.assign(RESTING)
    world.release(RESTING)
    world.services.operator_changes.disable(DisableIP(DISABLED, "listed"), uuid4().hex)
    ips = world.services.pool._ips
    at = int(world.clock[0]) + 62_167_219_200
    reserved = ips.get(RESERVED).reserve(
        world.account_id, "one", at + 10**6, at=at, request_id=uuid4().hex
    )
    assert ips.save(reserved).revision
    world.archive()
    world.clock[0] += 300
    return {each: world.pool.get(each) for each in (RESTING, RESERVED, DISABLED)}


def test_an_earlier_release_does_not_change_the_states_that_it_lacks(
    world: World, code: Path, before: dict[str, Any]
) -> None:
    output = run_before(world, code, "harms", world.other_id, *before)
    assert output.splitlines() == [
        *(f"refused {address}" for address in before for _ in range(2)),
        "refused 2 requested, 1 available",
    ]
    assert {each: world.pool.get(each) for each in before} == before


def test_an_address_that_its_doctor_makes_available_is_corrected_before_it_is_assigned(
    world: World, code: Path, before: dict[str, Any]
) -> None:
    # The doctor of the first commit makes every address available whose status it does not know.
    run_before(world, code, "repairs", world.other_id)
    command = AllocateIPs(world.other_id, 2)
    with pytest.raises(InsufficientIPs):
        world.services.allocation.allocate(command, uuid4().hex)
    world.archive()
    assert {each: state(world.pool.get(each)) for each in before} == {
        each: state(document) for each, document in before.items()
    }


def state(document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a document that belong to its state."""
    written = ("pvt_modified", "pvt_request_id", "pvt_trail", "pvt_written_generation")
    return {
        name: value
        for name, value in document.items()
        if name.startswith("pvt_") and name not in written
    }


def test_an_address_that_it_releases_is_corrected(world: World, code: Path) -> None:
    for address in (FREE, MARKED):
        world.create(address)
        world.assign(address)
    world.services.operator_changes.disable(DisableIP(MARKED, "listed"), uuid4().hex)
    world.services.places.set(ChangePlace(Place(Scope.ZONE, "z"), aging_seconds=1000))
    world.archive()
    run_before(world, code, "releases", world.account_id)
    assert {world.pool.get(each)["pvt_status"] for each in (FREE, MARKED)} == {"available"}
    world.archive()
    assert world.pool.get(FREE)["pvt_status"] == "aging"
    assert world.pool.get(FREE)["pvt_last_assigned_to"] == world.account_id
    assert world.pool.get(MARKED)["pvt_status"] == "disabled"
    assert world.pool.get(MARKED)["pvt_disabled"]["reason"] == "listed"
