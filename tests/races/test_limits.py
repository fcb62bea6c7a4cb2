"""50 clients of three instances allocate at once, and get exactly the limit of their account.

`RACE_COUCHDB_URLS` has the URLs of a cluster's nodes, separated by commas; then each instance uses
another node.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.model import DedicatedIP
from kazoo_ips.model.limits import Limits
from kazoo_ips.services.assigning.limits import REFRESH
from tests.conftest import Member
from tests.races.test_exact_fit import Field, race
from tests.servers import Gunicorn

LIMIT, CLIENTS, INSTANCES = 20, 50, 3


class LimitedField(Field):
    """Servers and one account, whose requests are repeated until a final reply."""

    def allocate_with_retries(self, http: object) -> tuple[int, list[str]]:
        """Allocate with an Idempotency-Key, and repeat the request until a final reply."""
        key = uuid4().hex
        for _ in range(200):
            status, ips = self._send(http, self.members[0], random.choice(self.servers), key)  # type: ignore[arg-type]
            if status == 200 or (status == 409 and ips == ["limit_reached"]):
                return status, ips
            threading.Event().wait(random.uniform(0.05, 0.3))
        raise AssertionError(f"no final reply; the last was {status} {ips}")


@pytest.fixture(scope="module")
def field(
    environment: dict[str, str], alice: Member, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LimitedField]:
    """Three instances, on one server or each on another node of a cluster."""
    urls = os.environ.get("RACE_COUCHDB_URLS", environment["COUCHDB_URL"]).split(",")
    folder = tmp_path_factory.mktemp("gunicorn")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Gunicorn(
                    {**environment, "COUCHDB_URL": urls[n % len(urls)]}, folder / str(n), workers=1
                )
            )
            for n in range(INSTANCES)
        ]
        yield LimitedField(servers, [alice])


@pytest.fixture
def limited(
    settings: Settings, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> Iterator[None]:
    """An account with a limit that every instance knows, and a pool with more addresses."""
    for number in range(CLIENTS):
        add(f"192.0.2.{number}")
    before = composition.build(settings, clock=lambda: time.time() - 3600)
    before.limits.set(alice.id, Limits(max=LIMIT), uuid4().hex)
    services.limits.set(alice.id, Limits(max=LIMIT), uuid4().hex)
    time.sleep(REFRESH + 1.5)
    yield
    services.limits.set(alice.id, Limits(), uuid4().hex)
    time.sleep(REFRESH + 1.5)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("kills", [0, 4])
def test_exactly_the_limit_is_assigned(
    field: LimitedField, pool: Database, services: Instance, alice: Member, kills: int
) -> None:
    done = threading.Event()

    def kill() -> None:
        for _ in range(kills):
            if not done.wait(random.uniform(0.1, 0.6)):
                random.choice(field.servers).kill_a_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        replies = race(CLIENTS, field.allocate_with_retries)
    finally:
        done.set()
        killer.join()
    assert sum(n for (status, _), n in replies.items() if status == 200) == LIMIT
    assert replies[409, "limit_reached"] == CLIENTS - LIMIT
    owners = [d.get("pvt_assigned_to") for d in pool.range("", "\uffff") if "pvt_type" in d]
    assert owners.count(alice.id) == LIMIT
    assert services.limits.status(alice.id).used == LIMIT
