"""The metrics, their labels, and `/metrics` in every state of CouchDB."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, DedicatedIP
from kazoo_ips.observability.metrics import Metrics, kind
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.assigning.recovery import LEASE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import Clock
from tests.faults.proxy import FaultProxy
from tests.openapi_check import CheckedApp
from tests.timing import LONG
from tests.watch.exposition import Samples, labels, samples, value

ROOT = Path(__file__).parents[2]


def scrape(api: TestApp) -> Samples:
    reply = api.get("/metrics", status=200)
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(reply.text)


def test_requests_are_counted_by_rule_method_and_status(
    watched: TestApp, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.1")
    for n in range(5):
        watched.get(
            f"/v2/accounts/{alice.id}/ips/192.0.2.{n + 2}", headers=alice.headers, status=404
        )
    watched.get(f"/v2/accounts/{alice.id}/ips/192.0.2.1", headers=alice.headers, status=200)
    watched.get(f"/v2/accounts/{alice.id}/ips/192.0.2.1", status=401)
    rule = "/v2/accounts/{account_id}/ips/{address}"
    counts = scrape(watched)
    name = "kazoo_ips_requests_total"
    assert value(counts, name, route=rule, method="GET", status="404") == 5
    assert value(counts, name, route=rule, method="GET", status="200") == 1
    assert value(counts, name, route=rule, method="GET", status="401") == 1
    duration = "kazoo_ips_request_duration_seconds"
    assert value(counts, f"{duration}_count", route=rule, method="GET") == 7
    assert value(counts, f"{duration}_bucket", route=rule, method="GET", le="+Inf") == 7


def test_no_caller_can_create_labels(watched: TestApp, alice: Member) -> None:
    for path in ("/v2/a", "/v2/b", "/%00", "/v2/accounts/x/y/z"):
        watched.get(path, status=404)
    for method in ("BREW", "PROPFIND", "X" * 50):
        TestApp(watched.app, lint=False).request("/v2/ips", method=method, status=405)
    watched.get(f"/v2/accounts/{uuid4().hex}/ips", headers=alice.headers, status=403)
    counts = scrape(watched)
    name = "kazoo_ips_requests_total"
    assert labels(counts, name, "route") == {"unmatched", "/v2/accounts/{account_id}/ips"}
    assert labels(counts, name, "method") == {"GET", "other"}
    assert value(counts, name, route="unmatched", method="other", status="405") == 3
    assert value(counts, name, route="unmatched", method="GET", status="404") == 4


def test_a_tunnelled_verb_counts_as_its_method(watched: TestApp, alice: Member) -> None:
    body = {"verb": "GET", "data": {}}
    watched.post_json(f"/v2/accounts/{alice.id}/ips/assigned", body, headers=alice.headers)
    rule = "/v2/accounts/{account_id}/ips/assigned"
    assert value(scrape(watched), "kazoo_ips_requests_total", route=rule, method="GET") == 1


def test_requests_to_couchdb_are_counted_by_kind_and_outcome(
    watched: TestApp, proxy: FaultProxy, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    watched.get(path, headers=alice.headers)
    name = "kazoo_ips_couchdb_requests_total"
    scrape(watched)  # its own requests to CouchDB count too, and their results are cached briefly
    before = scrape(watched)

    def more(**wanted: str) -> float:
        return value(scrape(watched), name, **wanted) - value(before, name, **wanted)

    proxy.rule(faults.cut, "GET", "-dedicated_ips/192")
    watched.get(path, headers=alice.headers)
    assert more(kind="read", outcome="sent_again") == 1
    assert more(kind="read", outcome="ok") == 1
    proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192")
    watched.get(path, headers=alice.headers, status=503)
    assert more(kind="read", outcome="failed") == 1
    proxy.rule(faults.answer_202, "PUT", "-dedicated_ips/192")
    watched.post(path, headers=alice.headers, status=503)
    assert more(kind="write", outcome="no_quorum") >= 1
    proxy.stop_listening()
    watched.get(path, headers=alice.headers, status=503)
    assert more(kind="read", outcome="no_answer") >= 1
    latencies = value(scrape(watched), "kazoo_ips_couchdb_request_duration_seconds_count")
    assert latencies == value(scrape(watched), name)


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [
        ("GET", "/dedicated_ips/192.0.2.1?conflicts=true", "read"),
        ("PUT", "/dedicated_ips/2001%3Adb8%3A%3A1", "write"),
        ("PUT", "/dedicated_ips/_design/ips", "write"),
        ("DELETE", "/dedicated_ips/192.0.2.1?rev=1-0", "delete"),
        ("GET", "/dedicated_ips/_design/ips/_view/by_zone?key=%22/_find%22", "view"),
        ("POST", "/accounts/_design/logins/_view/by_login", "view"),
        ("POST", "/dedicated_ips/_all_docs?include_docs=true", "bulk_read"),
        ("POST", "/dedicated_ips/_bulk_get", "bulk_read"),
        ("POST", "/dedicated_ips/_bulk_docs", "bulk_write"),
        ("POST", "/account%2Fab%2Fcd%2Fef/_find", "find"),
        ("GET", "/_all_dbs", "maintenance"),
        ("GET", "/", "read"),
    ],
)
def test_the_kind_of_a_request_to_couchdb(method: str, path: str, word: str) -> None:
    assert kind(method, f"http://127.0.0.1:5984{path}") == word


def test_the_pool_by_zone_and_status(
    proxied_settings: Settings, services: Any, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    for n, zone in enumerate(["us-east", "us-east", 'odd "zone"\n'], 1):
        add(f"192.0.2.{n}", zone=zone)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    counts = scrape(CheckedApp(composition.create_app(proxied_settings)))
    name = "kazoo_ips_pool_addresses"
    assert value(counts, name, zone="us-east", status="assigned") == 1
    assert value(counts, name, zone="us-east", status="available") == 1
    assert value(counts, name, zone='odd "zone"\n', status="available") == 1
    assert value(counts, name) == 3
    assert value(counts, "kazoo_ips_couchdb_up") == 1


@pytest.mark.usefixtures("_production_timeout")
def test_without_couchdb_the_other_metrics_are_exported(
    watched: TestApp, proxy: FaultProxy
) -> None:
    watched.get("/healthz")
    gate = threading.Event()
    proxy.rule(faults.hold(gate), times=None)
    start = time.monotonic()
    counts = scrape(watched)
    assert time.monotonic() - start < LONG
    gate.set()
    assert value(counts, "kazoo_ips_couchdb_up") == 0
    assert "kazoo_ips_pool_addresses" not in {name for name, _ in counts}
    assert value(counts, "kazoo_ips_requests_total", route="/healthz") == 1


def test_a_renamed_counter_keeps_its_old_name_too(
    watched: TestApp, add: Callable[..., DedicatedIP], alice: Member, pool: Any
) -> None:
    add("192.0.2.78")
    document = pool.get("192.0.2.78")
    for digest in ("0" * 32, "f" * 32):
        pool.graft(
            {**document, "_rev": f"2-{digest}", "pvt_host": digest}, parent=document["_rev"]
        )
    watched.get(f"/v2/accounts/{alice.id}/ips/192.0.2.78", headers=alice.headers)
    text = watched.get("/metrics").text
    counts = samples(text)
    assert value(counts, "kazoo_ips_conflicts_settled_total") == 1
    for old in ("addresses_brought_back", "claims_recovered", "copies_mended"):
        assert value(counts, f"kazoo_ips_{old}_total") == 0
    assert value(counts, "kazoo_ips_housekeeping_failures_total") == 0
    assert text.count("# TYPE kazoo_ips_conflicts_settled_total counter\n") == 1


def test_conflicts_resolved_and_addresses_restored(
    watched: TestApp, add: Callable[..., DedicatedIP], alice: Member, pool: Any
) -> None:
    add("192.0.2.77")
    document = pool.get("192.0.2.77")
    for digest in ("0" * 32, "f" * 32):
        pool.graft(
            {**document, "_rev": f"2-{digest}", "pvt_host": digest}, parent=document["_rev"]
        )
    watched.get(f"/v2/accounts/{alice.id}/ips/192.0.2.77", headers=alice.headers)
    assert value(scrape(watched), "kazoo_ips_conflicts_resolved_total") == 1


def test_transactions_recovered(settings: Settings, add: Any, couch: Any, alice: Member) -> None:
    add("192.0.2.1")
    clock, metrics = Clock(), Metrics()
    services = composition.build(settings, clock=clock, metrics=metrics)
    TransactionLog(Records(couch)).begin(
        Action.ASSIGN, alice.id, uuid4().hex, 63_900_000_000, ["192.0.2.1"]
    )
    clock.ahead = LEASE + 80
    services.background.recover()
    assert value(
        samples(metrics.text(services.health).decode()), "kazoo_ips_transactions_recovered_total"
    )


def test_metrics_can_require_a_token(settings: Settings) -> None:
    api = CheckedApp(composition.create_app(replace(settings, metrics_token="s3cret")))
    api.get("/metrics", status=401)
    api.get("/metrics", headers={"Authorization": "Bearer wrong"}, status=401)
    api.get("/metrics", headers={"Authorization": "Bearer s3cret"}, status=200)
    api.get("/healthz", status=200)


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text", "*/*"])
def test_every_accept_header_gets_the_text_format(watched: TestApp, accept: str) -> None:
    watched.get("/metrics", headers={"Accept": accept}, status=200)


def test_every_metric_is_in_the_documentation(watched: TestApp) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    watched.get("/healthz")
    lines = watched.get("/metrics").text.splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {"kazoo_ips_couchdb_up", "kazoo_ips_requests_total"} <= names
    assert sorted(name for name in names if f"`{name}`" not in page) == []
