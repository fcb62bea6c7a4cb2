"""Fixtures: an application that remembers identities, and clients of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.repositories.accounts import account_database
from tests.openapi_check import CheckedApp
from tests.stateful.commands import Client


@dataclass(frozen=True)
class World:
    """The service and what lies behind it.

    :param client: makes a client; each thread needs its own
    :param copies: the database of each account that addresses are assigned to
    :param background: runs the checks that background workers do a little later
    """

    client: Callable[[], Client]
    ids: dict[str, str]
    pool: Database
    copies: dict[str, Database]
    background: Callable[[], object]

    def documents(self, database: Database) -> dict[str, dict[str, Any]]:
        """The dedicated IPs that a database holds."""
        answer = database._resource.get_json("_all_docs", include_docs="true")[2]
        docs = [row["doc"] for row in answer["rows"]]
        return {d["_id"]: d for d in docs if d.get("pvt_type") == "dedicated_ip"}


@pytest.fixture
def members(operator: Any, alice: Any, bob: Any) -> dict[str, Any]:
    """The operator and two accounts, by name."""
    return {"operator": operator, "alice": alice, "bob": bob}


@pytest.fixture
def world(settings: Settings, couch: Couch, pool: Database, members: dict[str, Any]) -> World:
    """An empty pool and the service before it."""
    wsgi = composition.create_app(replace(settings, identity_cache=4.0))
    tokens = {name: member.token for name, member in members.items()}
    ids = {name: member.id for name, member in members.items()}
    return World(
        client=lambda: Client(CheckedApp(wsgi), tokens, ids),
        ids=ids,
        pool=pool,
        copies={name: couch.database(account_database(ids[name])) for name in ("alice", "bob")},
        background=lambda: wsgi.extensions["kazoo_ips"].background.check_due(math.inf),
    )
