"""CouchDB is slow or unreachable: a reply in time, and recovery without a restart."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import IDLE_TIMEOUT, Fault, FaultProxy
from tests.openapi_check import CheckedApp

ADDRESS = "192.0.2.1"
POOL = "-dedicated_ips/"


@pytest.fixture
def url(add: Callable[..., Any], alice: Member) -> str:
    add(ADDRESS)
    return f"/v2/accounts/{alice.id}/ips"


def assert_unreachable(reply: Any) -> None:
    assert (reply.status_int, reply.json["message"]) == (503, "datastore_unreachable")
    assert reply.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["", f"/{ADDRESS}"])
def test_a_slow_couchdb_gives_503_in_time_and_is_served_again(
    short_timeout_settings: Settings, proxy: FaultProxy, url: str, alice: Member, path: str
) -> None:
    api = CheckedApp(composition.create_app(replace(short_timeout_settings, read_timeout=2)))
    gate = threading.Event()
    proxy.rule(faults.hold(gate), "GET", POOL)
    start = time.monotonic()
    assert_unreachable(api.get(url + path, headers=alice.headers, status=503))
    assert time.monotonic() - start < IDLE_TIMEOUT / 2
    gate.set()
    api.get(url + path, headers=alice.headers, status=200)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unreachable_couchdb_gives_503_in_time_and_is_used_again(
    proxied_app: TestApp, proxy: FaultProxy, url: str, alice: Member, method: str
) -> None:
    def send(status: int) -> Any:
        path = f"{url}/{ADDRESS}"
        return proxied_app.request(path, method=method, headers=alice.headers, status=status)

    proxied_app.get(f"{url}/{ADDRESS}", headers=alice.headers, status=200)
    proxy.stop_listening()
    start = time.monotonic()
    assert_unreachable(send(503))
    assert time.monotonic() - start < IDLE_TIMEOUT / 2
    proxy.start_listening()
    send(400 if method == "DELETE" else 200)


def test_a_token_cannot_be_issued_without_couchdb(
    proxied_app: TestApp, proxy: FaultProxy, alice: Member
) -> None:
    proxy.stop_listening()
    data = {"credentials": "0" * 32, "account_name": alice.account.name}
    assert_unreachable(proxied_app.put_json("/v2/user_auth", {"data": data}, status=503))


@pytest.mark.parametrize("status", [500, 502])
@pytest.mark.parametrize("path", ["", f"/{ADDRESS}"])
def test_a_read_that_fails_gives_503(
    proxied_app: TestApp, proxy: FaultProxy, url: str, alice: Member, status: int, path: str
) -> None:
    fault = {500: faults.error_without_type, 502: faults.bad_gateway}[status]
    proxy.rule(fault, "GET", POOL)
    assert_unreachable(proxied_app.get(url + path, headers=alice.headers, status=503))


# Which requests the HTTP client sends, and how often


@pytest.fixture
def database(proxied_settings: Settings, proxy: FaultProxy, pool: Database) -> Database:
    """The pool behind the proxy."""
    return composition.connect(proxied_settings).database("dedicated_ips")


def sent(proxy: FaultProxy, method: str) -> int:
    return sum(record.request.method == method for record in proxy.records)


def test_a_read_on_a_closed_connection_is_sent_again_once(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(faults.cut, "GET")
    assert database.find("missing") is None
    assert sent(proxy, "GET") == 2


def test_a_read_is_not_sent_a_third_time(database: Database, proxy: FaultProxy) -> None:
    proxy.rule(faults.cut, "GET", times=None)
    with pytest.raises(DatastoreUnreachable):
        database.find("missing")
    assert sent(proxy, "GET") == 2


def test_a_post_query_is_a_read_as_well(database: Database, proxy: FaultProxy) -> None:
    proxy.rule(faults.cut, "POST", "/_bulk_get$")
    assert database.get_all(["missing", "gone"]) == {}
    assert sent(proxy, "POST") == 2


WRITES: dict[str, tuple[str, Callable[[Database], Any]]] = {
    "put": ("PUT", lambda database: database.put({"_id": "x"}).outcome),
    "remove": ("DELETE", lambda database: database.remove("x", f"1-{'0' * 32}").outcome),
    "put_all": ("POST", lambda database: database.put_all([{"_id": "x"}])[0].outcome),
}


@pytest.mark.parametrize(
    "fault",
    [faults.cut, faults.lose_reply, faults.delay(before=1), faults.bad_gateway],
    ids=["cut", "lost", "slow", "502"],
)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_never_sent_twice(
    short_timeout_settings: Settings, proxy: FaultProxy, pool: Database, write: str, fault: Fault
) -> None:
    database = composition.connect(short_timeout_settings).database("dedicated_ips")
    method, call = WRITES[write]
    proxy.rule(fault, method)
    assert call(database) is Outcome.UNKNOWN
    assert proxy.wait_until_idle()
    assert sent(proxy, method) == 1


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_could_not_be_sent_is_reported(
    database: Database, proxy: FaultProxy, write: str
) -> None:
    _, call = WRITES[write]
    proxy.stop_listening()
    with pytest.raises(DatastoreUnreachable):
        call(database)
    assert proxy.records == []


def test_a_write_uses_a_new_connection_if_the_idle_one_was_closed(
    database: Database, proxy: FaultProxy, couch: Couch
) -> None:
    database.info()
    proxy.stop_listening()
    proxy.start_listening()
    assert database.put({"_id": "x"}).outcome is Outcome.DONE
    assert sent(proxy, "PUT") == 1


def test_a_batch_that_is_answered_with_409_is_refused(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(faults.conflict_chunked, "POST", "/_bulk_docs$")
    written = database.put_all([{"_id": "x"}, {"_id": "y"}])
    assert [w.outcome for w in written] == [Outcome.REFUSED] * 2


def test_a_check_that_fails_is_repeated_later(
    proxied_settings: Settings,
    proxy: FaultProxy,
    add: Callable[..., Any],
    alice: Member,
    couch: Couch,
) -> None:
    add(ADDRESS)
    copies = couch.database(account_database(alice.id))
    copies.put({"_id": ADDRESS, "pvt_type": "dedicated_ip"})
    background = composition.build(proxied_settings).background
    background._retries.schedule_check(ADDRESS, alice.id)
    proxy.stop_listening()
    background.check_due(now=1e12)
    proxy.start_listening()
    background.check_due(now=1e12)
    assert copies.get_all([ADDRESS]) == {}
    assert background.check_due(now=1e12) == 0


def test_a_design_document_is_deployed_despite_timeouts_of_couchdb(
    proxied_settings: Settings, proxy: FaultProxy
) -> None:
    own = replace(proxied_settings, prefix=f"{proxied_settings.prefix}{uuid4().hex[:6]}-")
    databases = composition.databases(own)
    rule = proxy.rule(faults.error_afterwards, "GET", "/_design/ips/_view/", times=2)
    try:
        assert "dedicated_ips/_design/ips" in databases.create()
        assert len(rule.met) == 2
        assert databases.create() == []
    finally:
        databases.delete()


def test_a_list_is_read_again_if_its_design_document_was_replaced(
    proxied_app: TestApp, proxy: FaultProxy, url: str, alice: Member
) -> None:
    rule = proxy.rule(faults.exchanged, "GET", "/_design/ips/_view/")
    listed = proxied_app.get(url, headers=alice.headers, status=200).json["data"]
    assert [line["ip"] for line in listed] == [ADDRESS]
    assert len(rule.met) == 1
