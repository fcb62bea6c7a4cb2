"""CouchDB sends the response to another request: twice, too late, or swapped.

A caller gets the response to its own request, or an error.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.couch.responses import OutcomeUnknown
from kazoo_ips.errors import DatastoreError, DatastoreUnreachable
from kazoo_ips.model import AssignIP, DedicatedIP, Outcome
from tests.api.replies import failure
from tests.conftest import Member
from tests.faults.proxy import Fault, FaultProxy, Forward, Reply

FIRST = b'{"error":"nodedown","reason":"progress not possible"}\n'
SECOND = b'{"error":"badrecord","reason":"{nodedown,<<\\"progress not possible\\">>}","ref":59}\n'
"""The error of CouchDB 3.5.0 for a view while a node goes down."""
IDS = ("a", "b", "c")


@pytest.fixture
def database(proxied_settings: Settings, pool: Database, proxy: FaultProxy) -> Database:
    """The pool behind the proxy, with its own connections and three documents."""
    pool.put_all([{"_id": name, "name": name} for name in IDS], w=pool.replicas)
    return composition.connect(proxied_settings).database("dedicated_ips")


def message(status: int, body: bytes, *headers: str) -> Reply:
    """Return the bytes of a response of CouchDB."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return Reply(status, "\r\n".join([*lines, "", ""]).encode(), body)


def later(forward: Forward, seconds: float, what: bytes) -> None:
    """Send these bytes to the client after a pause."""

    def send() -> None:
        with suppress(OSError):  # the client has closed the connection, which is right
            forward.client.sendall(what)  # type: ignore[attr-defined]

    threading.Timer(seconds, send).start()


def failing_twice(pause: float, *headers: str) -> Fault:
    """Send two complete error responses to one request."""

    def fault(forward: Forward) -> Reply:
        first, second = message(500, FIRST, *headers), message(500, SECOND, *headers)
        if not pause:
            return replace(first, body=first.body + second.raw)
        later(forward, pause, second.raw)
        return first

    return fault


def answering_twice(pause: float) -> Fault:
    """Send the correct response twice."""

    def fault(forward: Forward) -> Reply:
        reply = forward()
        later(forward, pause, reply.raw)
        return reply

    return fault


def changed(change: Callable[[Any], Any]) -> Fault:
    """Change the content of a response, and remove its request id."""

    def fault(forward: Forward) -> Reply:
        reply = forward()
        return message(reply.status, json.dumps(change(json.loads(reply.body))).encode())

    return fault


def with_id(request_id: Callable[[str], str]) -> Fault:
    """Replace the request id of the response."""

    def fault(forward: Forward) -> Reply:
        reply = forward()
        head = reply.head.decode()
        head = re.sub(r"(?i)(x-couch-request-id: )(\S+)", lambda m: m[1] + request_id(m[2]), head)
        return replace(reply, head=head.encode())

    return fault


def read(database: Database, name: str) -> Any:
    """Return the content of a document, or None if the read fails."""
    with suppress(DatastoreError):
        return database.get(name)["name"]


def every_response_matches(database: Database) -> bool:
    """Return whether every request gets the response to itself."""
    return [read(database, name) for name in IDS * 2] == list(IDS * 2)


@pytest.mark.parametrize("pause", [0, 0.02, 0.2])
@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
def test_a_failure_that_is_sent_twice_reaches_no_other_request(
    database: Database, proxy: FaultProxy, pause: float, headers: tuple[str, ...]
) -> None:
    proxy.rule(failing_twice(pause, *headers), path="_view", times=2)
    with pytest.raises(DatastoreUnreachable):
        database.rows("ips/by_zone", reduce=False)
    assert [read(database, name) for name in IDS] == list(IDS), (
        "a read before the second response has arrived"
    )
    time.sleep(pause + 0.05)
    assert every_response_matches(database)


def test_a_response_repeated_before_the_next_request_reaches_no_other_request(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(answering_twice(0.02))
    assert read(database, "a") == "a"
    time.sleep(0.1)
    assert every_response_matches(database)


def test_a_response_repeated_after_the_next_request_reaches_no_other_request(
    database: Database, proxy: FaultProxy
) -> None:
    replies: list[Reply] = []

    def swapped(forward: Forward) -> Reply:
        replies.append(forward())
        return replies[0]

    rows = proxy.rule(swapped, path="_view", times=2)
    database.rows("ips/by_zone", reduce=False)
    with pytest.raises(DatastoreUnreachable):
        database.rows("ips/by_host", reduce=False)
    assert len(rows.met) == 2
    assert every_response_matches(database)


@pytest.mark.parametrize(
    "request_id",
    [lambda sent: "another-1", lambda sent: f"{sent[:-1]}{9 - int(sent[-1])}", lambda sent: "-"],
)
def test_a_response_with_another_request_id_is_rejected(
    database: Database, proxy: FaultProxy, request_id: Callable[[str], str]
) -> None:
    rule = proxy.rule(with_id(request_id), times=2)
    with pytest.raises(DatastoreUnreachable):
        database.get("a")
    written = database.put({"_id": "d"})
    assert written.outcome is Outcome.UNKNOWN
    assert len(rule.met) == 2, "no request was sent again"
    assert every_response_matches(database)


def test_a_response_with_a_request_id_of_couchdbs_own_is_accepted(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(with_id(lambda sent: "0a1b2c3d4e"), times=None)
    assert every_response_matches(database)


def test_a_response_without_a_request_id_is_accepted(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(changed(lambda content: content), times=None)
    assert every_response_matches(database)
    assert database.put({"_id": "d"}).outcome is Outcome.DONE
    assert set(database.get_all(IDS)) == set(IDS)
    assert len(database.leaves("a")) == 1
    assert database.replicas >= 1


READS: dict[str, tuple[Callable[[Database], Any], Callable[[Any], Any]]] = {
    "another document": (lambda d: d.get("a"), lambda doc: {**doc, "_id": "b"}),
    "another revision": (
        lambda d: d.get("a", rev=d.get("a")["_rev"]),
        lambda doc: {**doc, "_rev": f"2-{doc['_rev'][2:]}"},
    ),
    "no document": (lambda d: d.find("a"), lambda doc: {"rows": []}),
    "leaves of another": (
        lambda d: d.leaves("a"),
        lambda leaves: [{"ok": {**leaves[0]["ok"], "_id": "b"}}],
    ),
    "many in another order": (
        lambda d: d.look_up(IDS),
        lambda content: {"results": content["results"][::-1]},
    ),
    "fewer than asked for": (
        lambda d: d.look_up(IDS),
        lambda content: {"results": content["results"][1:]},
    ),
    "many with another's leaf": (
        lambda d: d.look_up(IDS),
        lambda content: {
            "results": [
                {**result, "docs": [{"ok": {"_id": "z", "_rev": "1-z"}}]}
                for result in content["results"]
            ]
        },
    ),
    "ranges in another order": (
        lambda d: d.last([("a", "a"), ("b", "b")]),
        lambda content: {"results": content["results"][::-1]},
    ),
    "fewer ranges than asked for": (
        lambda d: d.last([("a", "a"), ("b", "b")]),
        lambda content: {"results": content["results"][1:]},
    ),
    "a document for a list": (
        lambda d: d.rows("ips/by_zone", reduce=False),
        lambda content: {"_id": "a", "_rev": "1-a"},
    ),
    "another database": (lambda d: d.info(), lambda content: {**content, "db_name": "x"}),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_rejects_a_response_to_another_request(
    database: Database, proxy: FaultProxy, name: str
) -> None:
    call, change = READS[name]
    call(database)
    rule = proxy.rule(changed(change), first=2 if name == "another revision" else 1)
    with pytest.raises(DatastoreUnreachable):
        call(database)
    assert len(rule.met) == 1
    assert every_response_matches(database)


def test_an_html_page_is_rejected_as_a_response(database: Database, proxy: FaultProxy) -> None:
    page = message(200, b"<html>please log in</html>")
    proxy.rule(lambda forward: page, times=3)
    for call in (lambda: database.get("a"), lambda: database.rows("ips/by_zone", limit=1)):
        with pytest.raises(DatastoreUnreachable):
            call()
    assert database.put({"_id": "d"}).outcome is Outcome.UNKNOWN
    proxy.rule(lambda forward: message(302, b"", "Location: http://192.0.2.1/"))
    with pytest.raises(DatastoreUnreachable):
        database.get("a")


def rename_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the response with the id of another document in the first row."""
    return [{**rows[0], "id": "z"}, *rows[1:]]


@pytest.mark.parametrize("change", [rename_first, lambda rows: rows[::-1], lambda rows: rows[1:]])
def test_a_bulk_write_with_other_ids_in_its_response_is_unknown(
    database: Database, proxy: FaultProxy, change: Callable[[Any], Any]
) -> None:
    proxy.rule(changed(change))
    written = database.put_all([{"_id": name} for name in "xy"])
    assert [each.outcome for each in written] == [Outcome.UNKNOWN] * 2
    assert {"x", "y"} <= set(database.get_all("xy")), "CouchDB has written it"


def test_a_write_with_another_id_in_its_response_is_unknown(
    database: Database, proxy: FaultProxy
) -> None:
    proxy.rule(changed(lambda content: {**content, "id": "z"}), "PUT|DELETE", times=2)
    assert database.put({"_id": "d"}).outcome is Outcome.UNKNOWN
    revision = database.get("a")["_rev"]
    assert database.remove("a", revision).outcome is Outcome.UNKNOWN


def test_a_graft_with_another_id_in_its_response_is_unknown(
    database: Database, proxy: FaultProxy
) -> None:
    document = database.get("a")
    proxy.rule(changed(lambda rows: [{"id": "z", "error": "conflict", "reason": "-"}]))
    with pytest.raises(OutcomeUnknown):
        database.graft({**document, "_rev": f"2-{'0' * 32}"}, document["_rev"])


def test_no_two_requests_have_the_same_id(database: Database, proxy: FaultProxy) -> None:
    assert every_response_matches(database)
    ids = [re.search(rb"X-Couch-Request-ID: (\S+)", r.request.head) for r in proxy.records]
    found = [each[1] for each in ids if each]
    assert len(set(found)) == len(proxy.records) == 6
    assert all(re.fullmatch(rb"[0-9A-Za-z_-]{1,36}", each) for each in found)


def test_a_read_that_is_sent_again_has_another_id(database: Database, proxy: FaultProxy) -> None:
    def cut_off(forward: Forward) -> Reply:
        forward.hang_up()
        return forward()

    proxy.rule(cut_off)
    assert read(database, "a") == "a"
    first, second = (re.search(rb"Request-ID: (\S+)", r.request.head) for r in proxy.records)
    assert first
    assert second
    assert first[1] != second[1]


# Over HTTP.


@pytest.mark.parametrize("pause", [0, 0.02, 0.2])
def test_over_http_every_request_gets_its_own_reply(
    proxied_app: TestApp,
    proxy: FaultProxy,
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    pause: float,
) -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 7)]
    for address in addresses:
        add(address)
    services.ips.assign(AssignIP(bob.id, addresses[4]), uuid4().hex)
    path = f"/v2/accounts/{alice.id}/ips"
    # Its connection is kept open.
    proxied_app.get(f"{path}/{addresses[0]}", headers=alice.headers, status=200)
    rule = proxy.rule(failing_twice(pause), path="_view", times=2)
    proxied_app.get(path, headers=alice.headers, status=503)
    assert rule.met
    time.sleep(pause + 0.05)
    for address in (*addresses[:4], addresses[5]):
        reply = proxied_app.get(f"{path}/{address}", headers=alice.headers, status=200)
        assert reply.json["data"]["ip"] == address
    proxied_app.get(f"{path}/{addresses[4]}", headers=alice.headers, status=404)
    reply = proxied_app.post(f"{path}/{addresses[3]}", headers=alice.headers, status=200)
    assert reply.json["data"]["ip"] == addresses[3]
    holders = {address: services.ips.fetch(address).assigned_to for address in addresses}
    assert {address: who for address, who in holders.items() if who} == {
        addresses[3]: alice.id,
        addresses[4]: bob.id,
    }


def test_over_http_a_response_to_another_request_is_503(
    proxied_app: TestApp, proxy: FaultProxy, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    add("192.0.2.2")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    proxied_app.get(path, headers=alice.headers, status=200)
    proxy.rule(changed(lambda doc: {**doc, "_id": "192.0.2.2"}), path="/192.0.2.1")
    reply = proxied_app.get(path, headers=alice.headers, status=503)
    assert failure(reply, alice.token, "datastore_unreachable")
    proxied_app.get(path, headers=alice.headers, status=200)
