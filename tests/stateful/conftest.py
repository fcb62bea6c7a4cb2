"""Fixtures: an application with a cache of identities, and its clients."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kazoo_ips import app as composition
from kazoo_ips.background import webhook_sender
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.repositories.accounts import account_database
from tests.clocks import ManualClock
from tests.openapi_check import CheckedApp
from tests.stateful.commands import Client
from tests.stateful.subscribers import Subscribers, subscribed
from tests.stateful.timeline import Archive


@dataclass(frozen=True)
class World:
    """The service and its databases.

    :param client: creates a client; each thread needs a client of its own
    :param copies: the database of each account
    :param background: runs the deferred checks of the background worker
    :param subscribed: creates readers of the feed, and webhooks
    """

    client: Callable[[], Client]
    ids: dict[str, str]
    pool: Database
    copies: dict[str, Database]
    background: Callable[[], object]
    archive: Archive
    subscribed: Callable[[], AbstractContextManager[Subscribers]]

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
def world(
    settings: Settings,
    couch: Couch,
    pool: Database,
    members: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """The service with an empty pool."""
    monkeypatch.setattr(webhook_sender, "LOOK", 0.02)
    own = replace(settings, identity_cache=4.0, webhook_networks="127.0.0.0/8")
    wsgi = composition.create_app(own)
    tokens = {name: member.token for name, member in members.items()}
    ids = {name: member.id for name, member in members.items()}
    clock = ManualClock(time.time() + 3600)
    return World(
        client=lambda: Client(CheckedApp(wsgi), tokens, ids),
        ids=ids,
        pool=pool,
        copies={name: couch.database(account_database(ids[name])) for name in ("alice", "bob")},
        archive=Archive(settings.as_administrator(), couch, clock),
        subscribed=lambda: subscribed(own, CheckedApp(wsgi), tokens, ids, clock),
        background=lambda: wsgi.extensions["kazoo_ips"].background.check_due(math.inf),
    )
