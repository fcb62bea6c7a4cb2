"""The proxy of the faults' tests, and an application of the test's own behind it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.repositories import databases
from tests.api.fresh import Fresh, made_fresh
from tests.faults.proxy import FaultProxy
from tests.openapi_check import CheckedApp
from tests.timing import LONG


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches waits for CouchDB: a busy machine is not what is tested."""
    monkeypatch.setattr(composition, "_HEALTH_TIMEOUT", LONG)
    monkeypatch.setattr(databases, "_TIME_LIMIT", LONG)


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches waits for an answer of CouchDB as long as in production."""
    monkeypatch.setattr(composition, "_HEALTH_TIMEOUT", 1.0)


@pytest.fixture
def proxy(couchdb_url: str) -> Iterator[FaultProxy]:
    """A proxy in front of the database."""
    with FaultProxy(couchdb_url) as made:
        yield made


@pytest.fixture
def behind(settings: Settings, proxy: FaultProxy) -> Settings:
    """The settings of an application that reaches the database by way of the proxy."""
    return replace(settings, couchdb_url=proxy.url, identity_cache=4.0)


@pytest.fixture
def watched(behind: Settings) -> TestApp:
    """An application that nobody else counts with, behind the proxy."""
    return CheckedApp(composition.create_app(behind))


@pytest.fixture
def fresh(settings: Settings) -> Iterator[Fresh]:
    """Databases of the test's own."""
    with made_fresh(settings) as made:
        yield made
