"""The check that nodes, copies and lists agree with the pool."""

from collections.abc import Callable

import pytest
import urllib3

from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.accounts import account_database
from tests.chaos.agreement import disagreements, pool
from tests.conftest import Member
from tests.emptying import clear

ADDRESS = "192.0.2.1"


@pytest.fixture
def current_disagreements(
    settings: Settings,
    add: Callable[..., DedicatedIP],
    live: str,
    operator: Member,
    alice: Member,
) -> Callable[[], list[str]]:
    """Return a function that lists the differences; one of two addresses is Alice's."""
    add(ADDRESS)
    add("192.0.2.2")
    url = f"{live}/v2/accounts/{alice.id}/ips/{ADDRESS}"
    assert urllib3.request("POST", url, headers=alice.headers).status == 200
    node = settings.as_administrator().couchdb_url

    def current() -> list[str]:
        return list(disagreements([node], settings.prefix, [live], [alice.id], operator.token))

    return current


def test_a_consistent_pool_agrees(
    current_disagreements: Callable[[], list[str]], settings: Settings, alice: Member
) -> None:
    assert current_disagreements() == []
    states = pool(settings.as_administrator().couchdb_url, settings.prefix)
    assert states == {ADDRESS: alice.id, "192.0.2.2": "available"}


def test_a_missing_copy_is_reported(
    current_disagreements: Callable[[], list[str]], couch: Couch, alice: Member
) -> None:
    clear(
        couch.database(account_database(alice.id)), lambda document: "pvt_assigned_to" in document
    )
    assert current_disagreements() == [f"{ADDRESS}: copy at node 1 has None, not {alice.id}"]


def test_an_extra_copy_is_reported(
    current_disagreements: Callable[[], list[str]], pool: Database, alice: Member
) -> None:
    document = pool.get(ADDRESS)
    del document["pvt_assigned_to"]
    pool.put({**document, "pvt_status": "available"})
    assert current_disagreements() == [f"{ADDRESS}: copy at node 1 has {alice.id}, not None"]


def test_an_unreachable_node_is_reported(settings: Settings) -> None:
    [found] = disagreements(["http://127.0.0.1:1"], settings.prefix, [], [], "")
    assert found.startswith("no reply")
