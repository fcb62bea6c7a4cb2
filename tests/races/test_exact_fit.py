"""64 clients and 4 workers allocate N addresses of a pool of N, each address once.

A pool with exactly enough addresses has the most conflicts. `RACE_ROUNDS` is the number of rounds
of each test (default 1). `RACE_COUCHDB_URLS` has the URLs of a cluster's nodes, separated by
commas. Then each node has its own gunicorn, and the clients use all of them.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.faults.proxy import FaultProxy, Forward, Reply, lose_reply
from tests.openapi_check import checked
from tests.servers import Gunicorn

CLIENTS = 64
ADDRESSES = 96
ROUNDS = int(os.environ.get("RACE_ROUNDS", "1"))


@dataclass(frozen=True)
class Field:
    """The servers and accounts of a race."""

    servers: list[Gunicorn]
    members: list[Member]

    def allocate(self, http: urllib3.PoolManager, key: str | None = None) -> tuple[int, list[str]]:
        """Allocate one address to a random account at a random server.

        :returns: the status (0 without a reply), and the addresses or the message
        """
        member, server = random.choice(self.members), random.choice(self.servers)
        return self._send(http, member, server, key)

    def allocate_with_retries(self, http: urllib3.PoolManager) -> tuple[int, list[str]]:
        """Allocate with an Idempotency-Key, and repeat the request until a final reply."""
        member, key = random.choice(self.members), uuid4().hex
        for _ in range(200):
            status, ips = self._send(http, member, random.choice(self.servers), key)
            if status == 200 or (status == 409 and ips == ["insufficient_ips"]):
                return status, ips
            threading.Event().wait(random.uniform(0.05, 0.3))
        raise AssertionError(f"no final reply; the last was {status} {ips}")

    def _send(
        self, http: urllib3.PoolManager, member: Member, server: Gunicorn, key: str | None
    ) -> tuple[int, list[str]]:
        headers = {**member.headers, **({"Idempotency-Key": key} if key else {})}
        try:
            reply = http.request(
                "POST",
                f"{server.url}/v2/accounts/{member.id}/ips",
                json={"data": {"quantity": 1}},
                headers=headers,
                retries=False,
                timeout=30,
            )
        except urllib3.exceptions.HTTPError:
            return 0, []
        body = checked("POST", reply).json()
        return reply.status, body["data"]["ips"] if reply.status == 200 else [body["message"]]


@pytest.fixture(scope="module")
def field(
    environment: dict[str, str],
    alice: Member,
    bob: Member,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Field]:
    """Four workers in all, on one server or one for each node of a cluster."""
    urls = os.environ.get("RACE_COUCHDB_URLS", environment["COUCHDB_URL"]).split(",")
    folder = tmp_path_factory.mktemp("gunicorn")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Gunicorn({**environment, "COUCHDB_URL": url}, folder / str(n), -(-4 // len(urls)))
            )
            for n, url in enumerate(urls)
        ]
        yield Field(servers, [alice, bob])


@pytest.fixture
def free(pool: Database, add: Callable[..., DedicatedIP]) -> list[str]:
    """Create all addresses of the pool."""
    addresses = [f"192.0.2.{n}" for n in range(ADDRESSES)]
    for address in addresses:
        add(address)
    return addresses


def race(requests: int, send: Callable[[urllib3.PoolManager], tuple[int, list[str]]]) -> Counter:
    """Send requests from 64 clients; return the count of each address and each refusal."""
    http = urllib3.PoolManager(maxsize=CLIENTS, num_pools=4)
    with ThreadPoolExecutor(CLIENTS) as clients:
        futures = [clients.submit(send, http) for _ in range(requests)]
        return Counter(
            (status, ip) for future in futures for status, ips in [future.result()] for ip in ips
        )


def assert_assigned_are_acknowledged(
    replies: Counter, free: list[str], couch: Couch, members: list[Member]
) -> None:
    """Check that the pool, the accounts' copies and the replies agree."""
    acknowledged = [ip for status, ip in replies.elements() if status == 200]
    assert len(acknowledged) == len(set(acknowledged)), "an address was acknowledged twice"
    documents = couch.database("dedicated_ips").get_all(free)
    assert set(documents) == set(free), "an address was lost"
    assigned = {a for a, d in documents.items() if d["pvt_status"] == "assigned"}
    assert assigned == set(acknowledged)
    copies = [
        (address, member.id)
        for member in members
        for address in couch.database(account_database(member.id)).get_all(free)
    ]
    assert sorted(copies) == sorted((a, documents[a]["pvt_assigned_to"]) for a in assigned)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_address_is_acknowledged_once(
    field: Field, free: list[str], couch: Couch, round_: int
) -> None:
    replies = race(ADDRESSES, field.allocate)
    late = race(8, field.allocate)
    assert_assigned_are_acknowledged(replies + late, free, couch, field.members)
    assert sum(n for (status, _), n in replies.items() if status == 200) == ADDRESSES
    assert late == {(409, "insufficient_ips"): 8}


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_no_address_is_lost_or_assigned_twice_when_workers_are_killed(
    field: Field, free: list[str], couch: Couch, round_: int
) -> None:
    done = threading.Event()

    def kill() -> None:
        for _ in range(6):  # a new worker takes a second to start
            if not done.wait(random.uniform(0.1, 0.6)):
                random.choice(field.servers).kill_a_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        replies = race(ADDRESSES, field.allocate_with_retries)
    finally:
        done.set()
        killer.join()
    assert_assigned_are_acknowledged(replies, free, couch, field.members)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_no_address_is_lost_or_assigned_twice_when_replies_are_dropped(
    environment: dict[str, str],
    free: list[str],
    couch: Couch,
    alice: Member,
    bob: Member,
    tmp_path: Path,
    round_: int,
) -> None:
    def sometimes(forward: Forward) -> Reply:
        return lose_reply(forward) if random.random() < 0.2 else forward()

    with FaultProxy(environment["COUCHDB_URL"]) as proxy:
        proxy.rule(sometimes, "PUT", times=None)
        with Gunicorn({**environment, "COUCHDB_URL": proxy.url}, tmp_path / "log") as server:
            field = Field([server], [alice, bob])
            replies = race(ADDRESSES, field.allocate_with_retries)
    assert_assigned_are_acknowledged(replies, free, couch, field.members)
