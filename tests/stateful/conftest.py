"""Fixtures: an application with a cache of identities, and its clients."""

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
    """The service and its databases.

    :param client: creates a client; each thread needs its own
    :param copies: the database of each account
    :param background: runs the checks that are due later in the background
    """

    client: Callable[[], Client]
    ids: dict[str, str]
    pool: Database
    copies: dict[str, Database]
    background: Callable[[], object]

    def documents(self, database: Database) -> dict[str, dict[str, Any]]:
        """Return the dedicated IPs in a database."""
        response = database._resource.get_json("_all_docs", include_docs="true")[2]
        docs = [row["doc"] for row in response["rows"]]
        return {d["_id"]: d for d in docs if d.get("pvt_type") == "dedicated_ip"}


@pytest.fixture
def members(operator: Any, alice: Any, bob: Any) -> dict[str, Any]:
    """The operator and two accounts, by name."""
    return {"operator": operator, "alice": alice, "bob": bob}


@pytest.fixture
def world(settings: Settings, couch: Couch, pool: Database, members: dict[str, Any]) -> World:
    """The service with an empty pool."""
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
