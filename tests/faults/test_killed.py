"""A killed worker leaves a transaction record, and another worker rolls it back."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.assigning.recovery import LEASE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import Clock
from tests.faults.proxy import FaultProxy
from tests.openapi_check import checked
from tests.servers import Gunicorn
from tests.timing import eventually

IPS = [f"198.51.100.{n}" for n in range(3)]


@pytest.fixture
def gunicorn(
    environment: dict[str, str], running_proxy: FaultProxy, operator: Member, tmp_path: Path
) -> Iterator[Gunicorn]:
    """One worker behind the proxy."""
    proxied_environment = {**environment, "COUCHDB_URL": running_proxy.url}
    with Gunicorn(proxied_environment, tmp_path / "log", workers=1) as server:
        yield server


@pytest.mark.parametrize("arrives", ["before", "after"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unfinished_request_of_a_killed_worker_is_undone(
    gunicorn: Gunicorn,
    proxy: FaultProxy,
    settings: Settings,
    couch: Couch,
    pool: Database,
    alice: Member,
    add: Callable[..., object],
    method: str,
    arrives: str,
) -> None:
    """The batch of writes arrives before or after the recovery."""
    for address in IPS:
        add(address)
    http = urllib3.PoolManager()
    url = f"{gunicorn.url}/v2/accounts/{alice.id}/ips"

    def send(verb: str) -> int:
        reply = http.request(
            verb, url, json={"data": {"ips": IPS}}, headers=alice.headers, retries=False, timeout=9
        )
        return checked(verb, reply).status

    if method == "DELETE":
        assert send("POST") == 200
    copies = couch.database(account_database(alice.id))
    before = _owners(pool), set(copies.get_all(IPS))
    gate = threading.Event()
    rule = proxy.rule(faults.hold(gate), "POST", "-dedicated_ips/_bulk_docs$")
    clock = Clock()
    clock.ahead = LEASE + 80
    background = composition.build(settings, clock=clock).background
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(send, method)
        assert eventually(lambda: len(rule.met) == 1)
        gunicorn.kill_a_worker()
        with pytest.raises(urllib3.exceptions.HTTPError):
            answer.result()
    if arrives == "after":
        background.recover()
    gate.set()
    assert proxy.wait_until_idle()
    background.recover()
    background.check_due(now=1e12)
    assert (_owners(pool), set(copies.get_all(IPS))) == before
    records = couch.database("kazoo_ips").range("transaction-", "transaction-\uffff")
    unfinished = [record for record in records if not record["finished"]]
    assert not [record for record in unfinished if record["account_id"] == alice.id]


def _owners(pool: Database) -> dict[str, str | None]:
    return {a: d.get("pvt_assigned_to") for a, d in pool.get_all(IPS).items()}
