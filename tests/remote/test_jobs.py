"""A command at a URL creates a job and waits until the service has done it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP
from kazoo_ips.remote.jobs import RemotePlans
from tests.conftest import Member
from tests.remote.conftest import Run

OLD, NEW, OTHER = "proxy1.example.com", "proxy9.example.com", "proxy2.example.com"
FIRST, SECOND, SPARE = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@pytest.fixture
def filled(add: Callable[..., Any], services: Instance, alice: Member) -> None:
    """Two addresses of Alice's on the old host, and one available on another one."""
    for address in (FIRST, SECOND):
        add(address, host=OLD)
        services.ips.assign(AssignIP(alice.id, address), "0" * 32)
    add(SPARE, host=OTHER)


@pytest.fixture
def worker(services: Instance) -> Iterator[None]:
    """A process of the service that carries out jobs."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.05):
            for job in services.job_runner.unfinished():
                services.job_runner.step(job)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        ended.set()
        done.result()


@pytest.mark.usefixtures("filled", "worker")
def test_a_move_waits_until_the_service_has_done_it(by_url: Run, services: Instance) -> None:
    result = by_url("move", OLD, "--to-host", NEW)
    [job] = services.jobs.list()
    assert result.out == f"job {job.id}: move {OLD}: done, 2 of 2\nmoved: 2\n"
    assert (result.status, result.err) == (0, "")
    assert {services.ips.fetch(each).host for each in (FIRST, SECOND)} == {NEW}


@pytest.mark.usefixtures("filled", "worker")
def test_an_evacuation_with_something_left_to_do_ends_with_status_1(
    by_url: Run, services: Instance
) -> None:
    result = by_url("evacuate", OLD)
    [job] = services.jobs.list()
    replaced, left = sorted((FIRST, SECOND), key=lambda a: not services.ips.fetch(a).replacement)
    assert result.out.splitlines() == [
        f"job {job.id}: evacuate {OLD}: done, 2 of 2", "insufficient_ips: 1", "replaced: 1",
        f"{left}: insufficient_ips",
    ]  # fmt: skip
    assert (result.status, result.err) == (1, "")
    assert services.ips.fetch(replaced).replacement.address == SPARE


@pytest.mark.usefixtures("filled")
def test_a_plan_that_the_service_does_not_show_whole_says_so(
    by_url: Run, alice: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RemotePlans.items
    monkeypatch.setattr(RemotePlans, "items", lambda *given: islice(whole(*given), 1))
    result = by_url("evacuate", OLD, "--dry-run")
    assert result.out.splitlines() == [
        f"{FIRST} of {alice.id}: {SPARE}", "us-east: 2 needed, 1 available, 1 too few"
    ]  # fmt: skip
    assert (result.status, result.err) == (0, "these are 1 of 2 addresses\n")
