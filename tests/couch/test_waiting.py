"""No thread waits long for a lock that another thread holds during a request."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model.limits import Limits
from kazoo_ips.services.maintenance.health import _Cached
from tests.conftest import Member
from tests.faults.proxy import FaultProxy, Forward, Reply, error_without_type

THREADS = 8
DELAY = 0.5


def failing_slowly(forward: Forward) -> Reply:
    """A server that fails slowly."""
    time.sleep(DELAY)
    return error_without_type(forward)


def seconds(calls: list[Callable[[], object]], error: type[Exception]) -> float:
    """Return the seconds that all of these calls take concurrently; each of them fails."""
    start = threading.Barrier(len(calls) + 1)

    def run(call: Callable[[], object]) -> None:
        start.wait()
        with pytest.raises(error):
            call()

    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(run, call) for call in calls]
        start.wait()
        began = time.monotonic()
        for each in running:
            each.result()
        return time.monotonic() - began


@pytest.mark.parametrize("name", ["dedicated_ips", "db-{}"])
def test_threads_that_need_the_number_of_replicas_fail_together(
    settings: Settings, couchdb_url: str, name: str
) -> None:
    with FaultProxy(couchdb_url) as proxy:
        proxy.rule(failing_slowly, times=None)
        couch = composition.connect(replace(settings, couchdb_url=proxy.url))
        databases = [couch.database(name.format(n)) for n in range(THREADS)]
        calls = [lambda d=database: d.replicas for database in databases]
        assert seconds(calls, DatastoreUnreachable) < DELAY * THREADS / 2
        assert len(proxy.records) == THREADS


def test_concurrent_health_checks_share_one_failure() -> None:
    checks = []

    def check() -> object:
        checks.append(1)
        time.sleep(DELAY)
        raise LookupError

    kept = _Cached(check, 1.0)
    assert seconds([kept] * THREADS, LookupError) < DELAY * THREADS / 2
    assert len(checks) == 1
    with pytest.raises(LookupError):
        kept()
    assert len(checks) == 2, "an error is not cached"


def test_threads_that_count_addresses_against_one_limit_fail_together(
    settings: Settings,
    couchdb_url: str,
    services: Instance,
    add: Callable[..., Any],
    alice: Member,
) -> None:
    ips = [add(f"192.0.2.{n}") for n in range(THREADS)]
    services.limits.set(alice.id, Limits(max=THREADS), uuid4().hex)
    try:
        with FaultProxy(couchdb_url) as proxy:
            limits = composition.build(replace(settings, couchdb_url=proxy.url)).limits
            # Each claim tries to write the ledger three times.
            proxy.rule(failing_slowly, "PUT", "limit-", times=None)
            calls = [lambda ip=ip: limits.claim(uuid4().hex, alice.id, [ip]) for ip in ips]
            assert seconds(calls, DatastoreUnreachable) < 3 * DELAY * THREADS / 2
    finally:
        services.limits.set(alice.id, Limits(), uuid4().hex)
