"""Fixtures: the application behind a proxy with faults, and a clock that can be set."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.batching import Batcher
from tests.faults.proxy import IDLE_TIMEOUT, FaultProxy, hold
from tests.openapi_check import CheckedApp
from tests.timing import eventually


def wait_until_pending(batcher: Batcher[Any, Any], count: int) -> None:
    """Wait until this number of requests is pending."""
    assert eventually(lambda: len(batcher._pending) == count)


Begin = Callable[[Callable[[], Any]], Future[Any]]


@contextmanager
def hold_request(
    proxy: FaultProxy, method: str, path: str, first: Callable[[], Any], batcher: Batcher[Any, Any]
) -> Iterator[tuple[Future[Any], Begin]]:
    """Hold the request of a call until the end of the `with`. Later requests wait for it.

    :param first: the call, whose request has this method and path
    :param batcher: the batcher in which the later requests are pending
    """
    gate = threading.Event()
    rule = proxy.rule(hold(gate), method, path)
    with ThreadPoolExecutor(8) as threads:
        held = threads.submit(first)
        assert eventually(lambda: bool(rule.met))
        begun: list[Future[Any]] = []

        def begin(call: Callable[[], Any]) -> Future[Any]:
            begun.append(threads.submit(call))
            wait_until_pending(batcher, len(begun))
            return begun[-1]

        yield held, begin
        gate.set()


class Clock:
    """The time, plus an offset that a test sets."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture(scope="session")
def running_proxy(couchdb_url: str) -> Iterator[FaultProxy]:
    """One proxy for all tests, in front of the database that they share."""
    with FaultProxy(couchdb_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy without any rules, before and after."""
    running_proxy.clear()
    yield running_proxy
    running_proxy.start_listening()
    running_proxy.clear()


@pytest.fixture(scope="session")
def proxied_settings(settings: Settings, running_proxy: FaultProxy) -> Settings:
    """Settings with the proxy's URL and a long read timeout."""
    return replace(
        settings,
        couchdb_url=running_proxy.url,
        read_timeout=IDLE_TIMEOUT,
        identity_cache=3.0,  # otherwise faults could hit the reads of the caller
    )


@pytest.fixture(scope="session")
def short_timeout_settings(proxied_settings: Settings) -> Settings:
    """The same settings with a short read timeout, for tests in which CouchDB is silent."""
    return replace(proxied_settings, read_timeout=0.5)


@pytest.fixture(scope="session")
def clock() -> Clock:
    """The clock of the application behind the proxy."""
    return Clock()


@pytest.fixture(scope="session")
def proxied_wsgi(proxied_settings: Settings, clock: Clock, operator: Any) -> Any:
    """The WSGI application behind the proxy; the operator exists."""
    return composition.create_app(proxied_settings, clock=clock)


@pytest.fixture
def proxied_app(proxied_wsgi: Any, proxy: FaultProxy) -> TestApp:
    """The application behind the proxy, for WebTest."""
    return CheckedApp(proxied_wsgi)


@pytest.fixture
def proxied_services(proxied_wsgi: Any) -> Instance:
    """The services of that application."""
    services: Instance = proxied_wsgi.extensions["kazoo_ips"]
    return services


@pytest.fixture
def each() -> Callable[[Sequence[Callable[[], Any]]], list[Any]]:
    """A function that calls several functions concurrently, and raises the errors of each."""

    def run(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as threads:
            return [future.result() for future in [threads.submit(call) for call in calls]]

    return run
