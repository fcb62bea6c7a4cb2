"""Several accounts assign one address at the same moment, over all nodes.

`RACE_CONTESTS` is the number of contested addresses (default 20). `RACE_NODE_DOWN` means that the
caller kills and restarts nodes during the test. Then requests may end with an unknown outcome.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import DedicatedIP
from tests.conftest import Member
from tests.openapi_check import checked
from tests.races.test_exact_fit import Field, assert_assigned_are_acknowledged, field

CONTESTS = int(os.environ.get("RACE_CONTESTS", "20"))

__all__ = ["field"]


def test_one_of_many_concurrent_requests_gets_the_address(
    field: Field,
    settings: Settings,
    couch: Couch,
    add: Callable[..., DedicatedIP],
    child: Member,
    capsys: pytest.CaptureFixture[str],
) -> None:
    members = [*field.members, child]
    contested = [add(f"198.51.{n // 250}.{n % 250}").address for n in range(CONTESTS)]
    http = urllib3.PoolManager(maxsize=8, num_pools=4)
    start = threading.Barrier(len(members))

    def send(place: int, address: str) -> int:
        start.wait()
        server = field.servers[place % len(field.servers)]
        url = f"{server.url}/v2/accounts/{members[place].id}/ips/{address}"
        try:
            headers = members[place].headers
            reply = http.request("POST", url, headers=headers, retries=False, timeout=60)
            return checked("POST", reply).status
        except urllib3.exceptions.HTTPError:
            return 0

    acknowledged: Counter[tuple[int, str]] = Counter()
    rounds: Counter[tuple[int, ...]] = Counter()
    with ThreadPoolExecutor(len(members)) as clients:
        for address in contested:
            futures = [clients.submit(send, place, address) for place in range(len(members))]
            statuses = [future.result() for future in futures]
            rounds[tuple(sorted(statuses))] += 1
            acknowledged[200, address] += statuses.count(200)
    with capsys.disabled():
        print("\n   ", dict(rounds))
    assert set(acknowledged.values()) <= {0, 1}, "an address was acknowledged twice"
    _wait_for_agreement(settings)
    if os.environ.get("RACE_NODE_DOWN"):
        acknowledged = _with_unacknowledged(acknowledged, couch, contested)
    assert_assigned_are_acknowledged(+acknowledged, contested, couch, members)


def _wait_for_agreement(settings: Settings) -> None:
    """Let the workers restore withdrawn addresses, then run the doctor an hour ahead."""
    time.sleep(float(os.environ.get("RACE_SETTLE", "0")))
    doctor = composition.build(settings, clock=lambda: time.time() + 3600).doctor
    for _ in range(20):  # the other nodes get a write a little later
        if not list(doctor.examine(repair=True)):
            return
        time.sleep(0.5)
    raise AssertionError(f"the doctor still finds: {list(doctor.examine())}")


def _with_unacknowledged(
    acknowledged: Counter[tuple[int, str]], couch: Couch, contested: list[str]
) -> Counter[tuple[int, str]]:
    """Add addresses that are assigned after a 503, and check that no acknowledged one is lost."""
    documents = couch.database("dedicated_ips").get_all(contested)
    assigned = {a for a, d in documents.items() if d["pvt_status"] == "assigned"}
    acknowledged_addresses = {address for (_, address), count in acknowledged.items() if count}
    assert acknowledged_addresses <= assigned, "an acknowledged address was lost"
    return Counter({(200, address): 1 for address in assigned})
