"""Fixtures: a proxy that causes faults, and an application that uses it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.repositories import databases
from tests.faults.proxy import FaultProxy
from tests.openapi_check import CheckedApp
from tests.timing import LONG


@pytest.fixture(autouse=True)
def _long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeouts of health checks, so that they succeed on a busy machine."""
    monkeypatch.setattr(composition, "_HEALTH_TIMEOUT", LONG)
    monkeypatch.setattr(databases, "_TIME_LIMIT", LONG)


@pytest.fixture
def _production_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the timeout of health checks that production has."""
    monkeypatch.setattr(composition, "_HEALTH_TIMEOUT", 1.0)


@pytest.fixture
def proxy(couchdb_url: str) -> Iterator[FaultProxy]:
    """A proxy in front of the database."""
    with FaultProxy(couchdb_url) as made:
        yield made


@pytest.fixture
def proxied_settings(settings: Settings, proxy: FaultProxy) -> Settings:
    """The settings of an application that uses the proxy as CouchDB."""
    return replace(settings, couchdb_url=proxy.url, identity_cache=4.0)


@pytest.fixture
def watched(proxied_settings: Settings) -> TestApp:
    """An application with its own metrics, which uses the proxy as CouchDB."""
    return CheckedApp(composition.create_app(proxied_settings))
