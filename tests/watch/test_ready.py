"""`/healthz` and `/readyz` in every state of CouchDB."""

import threading
import time

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.repositories import databases
from kazoo_ips.repositories.accounts import ACCOUNTS
from tests.api.own_application import OwnApplication
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy
from tests.openapi_check import CheckedApp
from tests.timing import LONG


def reasons(api: TestApp) -> list[str]:
    """Return the reasons why the service is not ready."""
    reply = api.get("/readyz", status=503)
    assert reply.headers["Retry-After"] == "1"
    assert reply.json["error"] == "503"
    assert reply.json["message"] == "not_ready"
    found: list[str] = reply.json["data"]["reasons"]
    return found


def test_a_working_service_is_ready(watched: TestApp) -> None:
    assert watched.get("/readyz", status=200).json["data"] == {"ready": True}
    assert watched.get("/healthz", status=200).json["data"] == {"healthy": True}


def test_frequent_checks_query_couchdb_once(watched: TestApp, proxy: FaultProxy) -> None:
    for _ in range(20):
        watched.get("/readyz", status=200)
    requests = len(proxy.records)
    assert 0 < requests < 16, "one check, unless that took a second"


def test_without_couchdb_the_process_is_healthy_and_not_ready(
    watched: TestApp, proxy: FaultProxy
) -> None:
    proxy.stop_listening()
    assert reasons(watched) == ["CouchDB does not answer"]
    watched.get("/healthz", status=200)
    proxy.start_listening()
    time.sleep(1)
    watched.get("/readyz", status=200)


@pytest.mark.usefixtures("_production_timeout")
def test_a_check_does_not_wait_for_a_hanging_couchdb(watched: TestApp, proxy: FaultProxy) -> None:
    gate = threading.Event()
    proxy.rule(faults.hold(gate), times=None)
    start = time.monotonic()
    assert reasons(watched) == ["CouchDB does not answer"]
    assert time.monotonic() - start < LONG
    gate.set()


def test_a_check_does_not_wait_for_a_slow_couchdb(
    proxied_settings: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "_TIME_LIMIT", 1.5)
    rule = proxy.rule(faults.delay(before=0.6), times=None)
    assert reasons(CheckedApp(composition.create_app(proxied_settings))) == ["CouchDB is slow"]
    assert len(rule.met) <= 3


@pytest.mark.usefixtures("_production_timeout")
def test_an_unbuilt_index_is_a_reason(watched: TestApp, proxy: FaultProxy) -> None:
    gate = threading.Event()
    proxy.rule(faults.hold(gate), "GET", "-dedicated_ips/_design/ips/_view")
    assert reasons(watched) == ["the index ips of dedicated_ips is not built yet"]
    gate.set()


def test_an_outdated_design_document_and_missing_databases_are_reasons(
    own_app: OwnApplication,
) -> None:
    couch = composition.connect(own_app.settings)
    pool = couch.database("dedicated_ips")
    design = pool.get("_design/ips")
    design["views"].pop("by_host")
    pool.put(design)
    couch.database("kazoo_ips").delete()
    couch.database(ACCOUNTS).delete()
    assert sorted(reasons(own_app.api)) == [
        "the database accounts is missing",
        "the database kazoo_ips is missing",
        "the design document ips of dedicated_ips is not current",
    ]
