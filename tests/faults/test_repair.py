"""A worker is killed at any of its requests. Two minutes later, all documents agree."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.background.worker import ROUND
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIPs, DedicatedIP, ReleaseIPs
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.faults.conftest import Clock
from tests.faults.proxy import FaultProxy, Request, hold
from tests.servers import Gunicorn
from tests.timing import eventually

IPS = [f"198.51.100.{n}" for n in range(3)]
TWO_MINUTES = 120
DATA = r"-dedicated_ips/|-account/.*(_bulk|198\.51)|kazoo_ips/"
"""Requests about addresses, copies, records and keys."""

REQUESTS: dict[str, tuple[str, str, Any, bool]] = {
    "assign one": ("POST", f"/accounts/{{}}/ips/{IPS[0]}", None, False),
    "release one": ("DELETE", f"/accounts/{{}}/ips/{IPS[0]}", None, True),
    "assign several": ("POST", "/accounts/{}/ips", {"ips": IPS}, False),
    "release several": ("DELETE", "/accounts/{}/ips", {"ips": IPS}, True),
    "delete by force": ("DELETE", f"/ips/{IPS[0]}?force=true", None, True),
}
"""For each request: method, path, data, and whether the addresses are assigned before it."""


@pytest.fixture(scope="module")
def gunicorn(
    environment: dict[str, str],
    running_proxy: FaultProxy,
    operator: Member,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gunicorn]:
    """One worker behind the proxy."""
    proxied_environment = {**environment, "COUCHDB_URL": running_proxy.url}
    log = tmp_path_factory.mktemp("gunicorn") / "log"
    with Gunicorn(proxied_environment, log, workers=1) as server:
        yield server


class OtherInstance:
    """Another instance, which runs the background work with its own clock."""

    def __init__(self, settings: Settings) -> None:
        self._clock = Clock()
        self._services = composition.build(settings, clock=self._clock)
        self._services.background.follow()

    def wait(self, seconds: int) -> None:
        """Advance the clock, with the background work."""
        background = self._services.background
        for second in range(seconds):
            self._clock.ahead += 1
            background.follow()
            if second % ROUND == 0:
                background.recover()

    def problems(self) -> list[str]:
        """Return the findings of the doctor."""
        return [f"{f.problem} {f.address}" for f in self._services.doctor.examine()]


@pytest.mark.parametrize("request_", REQUESTS)
def test_two_minutes_after_a_worker_was_killed_everything_is_consistent(
    gunicorn: Gunicorn,
    proxy: FaultProxy,
    settings: Settings,
    services: Instance,
    couch: Couch,
    pool: Database,
    operator: Member,
    alice: Member,
    add: Callable[..., DedicatedIP],
    request_: str,
) -> None:
    """CouchDB executes the request at which the worker is killed."""
    method, path, data, assigned = REQUESTS[request_]
    copies = couch.database(account_database(alice.id))
    http = urllib3.PoolManager()

    def send(name: str) -> urllib3.BaseHTTPResponse:
        return http.request(
            method,
            f"{gunicorn.url}/v2{path.format(alice.id)}",
            json={"data": data} if data else None,
            headers={**operator.headers, "X-Request-ID": name},
            retries=False,
            timeout=30,
        )

    def is_killed_at(place: int) -> bool:
        name, gate = f"kill-{place}-{uuid4().hex[:8]}", threading.Event()
        rule = proxy.rule(hold(gate), path=DATA, when=_is_for(name), first=place)
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(send, name)
            assert eventually(lambda: bool(rule.met) or answer.done(), 30)
            if answer.done():
                assert answer.result().status == 200
                return False
            gunicorn.kill_a_worker()
            assert answer.exception()
            gate.set()
        return proxy.wait_until_idle()

    for place in count(1):
        for address in set(IPS) - set(pool.get_all(IPS)):
            add(address)
        services.ips.release_all(ReleaseIPs(alice.id, None), uuid4().hex)
        if assigned:
            services.ips.assign_all(AssignIPs(alice.id, tuple(IPS)), uuid4().hex)
        services.background.work()
        elsewhere = OtherInstance(settings)
        killed = is_killed_at(place)
        elsewhere.wait(TWO_MINUTES)
        assert elsewhere.problems() == [], f"killed at its request {place}"
        owned = {a for a, d in pool.get_all(IPS).items() if "pvt_assigned_to" in d}
        assert set(copies.get_all(IPS)) == owned
        if not killed:
            break
    assert place > 3


def _is_for(name: str) -> Callable[[Request], bool]:
    return lambda request: name.encode() in request.head
