"""Clients that wait for events, on a live gunicorn: they miss no event, and occupy no thread."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.accounts import account_database
from tests.api.events import Stream, event
from tests.conftest import Member
from tests.faults.proxy import FaultProxy
from tests.servers import Gunicorn

READERS = 1000


@pytest.fixture
def server(environment: dict[str, str], operator: Member, tmp_path: Path) -> Iterator[Gunicorn]:
    """A gunicorn with one worker of two threads, so that two clients could occupy all of them."""
    # The pool has few addresses. With this limit, their zones would become low, which is an event.
    quiet = {**environment, "KAZOO_IPS_LOW_PERCENT": "0"}
    with Gunicorn(quiet, tmp_path / "log", workers=1, threads=2) as server:
        yield server


def stream(
    server: Gunicorn, member: Member, path: str = "/v2/ips/changes", **query: str
) -> Stream:
    """Return a client that reads a stream of events."""
    query = {"feed": "eventsource", "since": "now", **query}
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    return Stream(f"{server.url}{path}?{parameters}", member.headers)


def story(alice: Member, count: int) -> list[HistoryEvent]:
    """Assignments of a few addresses in turn."""
    return [event(None, alice.id, address=f"198.19.255.{n % 5}") for n in range(count)]


def store(services: Instance, events: list[HistoryEvent]) -> None:
    """Store events so that the feed has all of them in this order."""
    for start in range(0, len(events), 100):
        services.archive.append(events[start : start + 100])


def ids(events: list[dict[str, Any]]) -> list[str]:
    """Return the ids of events."""
    return [each["id"] for each in events]


def get(server: Gunicorn, path: str, member: Member) -> tuple[int, float]:
    """Send another request: its status, and its time in seconds."""
    started = time.monotonic()
    reply = urllib3.request(
        "GET", server.url + path, headers=member.headers, timeout=20, retries=False
    )
    return reply.status, time.monotonic() - started


def test_streams_get_each_event_once_and_in_order(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    made = story(alice, 60)
    path = f"/v2/accounts/{alice.id}/ips/changes"
    with stream(server, operator) as first, stream(server, alice, path) as own:
        assert first.status == own.status == 200
        assert first.headers["content-type"] == "text/event-stream"
        assert first.headers["x-request-id"]
        assert first.headers["cache-control"] == "no-store"
        for start in range(0, 60, 7):
            services.archive.append(made[start : start + 7])
        assert ids(first.take(60)) == ids(own.take(60)) == [each.id for each in made]


def test_a_client_that_is_killed_misses_nothing(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    with stream(server, operator) as client:
        client.take(0)
        made = story(alice, 100)
        services.archive.append(made[:50])
        seen = ids(client.take(20))
        since = client.since
    services.archive.append(made[50:])
    headers = {"Last-Event-ID": since, **operator.headers}
    url = f"{server.url}/v2/ips/changes?feed=eventsource&since=now"
    with Stream(url, headers) as client:
        seen += ids(client.take(80))
    assert seen == [each.id for each in made]


def test_a_stream_reads_what_is_old_and_then_what_is_new(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    since, _, _ = services.events.changed("now", 1)
    made = story(alice, 450)
    store(services, made[:400])
    with stream(server, operator, since=since) as client:
        seen = ids(client.take(400))
        services.archive.append(made[400:])
        seen += ids(client.take(50))
    assert seen == [each.id for each in made]


def test_clients_that_wait_hold_no_thread(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(stream(server, operator)) for _ in range(10)]
        polls = stack.enter_context(ThreadPoolExecutor(10))
        path = "/v2/ips/changes?feed=longpoll&since=now&timeout=20"
        waiting = [polls.submit(get, server, path, operator) for _ in range(10)]
        time.sleep(1)
        for _ in range(5):
            status, seconds = get(server, "/v2/ips/assigned", operator)
            assert status == 200
            assert seconds < 5
        assert not any(poll.done() for poll in waiting)
        services.archive.append(story(alice, 1))
        assert [poll.result() for poll in waiting if poll.result()[0] != 200] == []
        assert [len(client.take(1)) for client in streams] == [1] * 10


def test_a_long_poll_has_the_same_reply_as_any_other_request(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    url = f"{server.url}/v2/ips/changes?feed=longpoll&since=now"
    made = story(alice, 1)
    with ThreadPoolExecutor(1) as executor:
        headers = {"X-Request-ID": "mine", "Accept-Encoding": "gzip", **operator.headers}
        poll = executor.submit(urllib3.request, "GET", url, headers=headers, timeout=30)
        time.sleep(1)
        services.archive.append(made)
        reply = poll.result()
    envelope = reply.json()
    assert ids(envelope["data"]) == [made[0].id]
    assert envelope["request_id"] == reply.headers["X-Request-ID"] == "mine"
    assert envelope["auth_token"] == operator.token
    assert {"status", "revision", "node", "timestamp", "version", "more"} <= set(envelope)
    assert reply.headers["Content-Type"] == "application/json"
    again = urllib3.request(
        "GET", f"{server.url}/v2/ips/changes?since={envelope['since']}", headers=operator.headers
    )
    assert again.json()["data"] == []


def test_a_client_of_http_1_0_gets_a_stream_too(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    made = story(alice, 1)
    with socket.create_connection((host, int(port)), 20) as client:
        request = "GET /v2/ips/changes?feed=eventsource&since=now&timeout=3 HTTP/1.0\r\n"
        client.sendall(f"{request}X-Auth-Token: {operator.token}\r\n\r\n".encode())
        time.sleep(1)
        services.archive.append(made)
        received = b""
        while part := client.recv(65_536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"retry: ")
    assert made[0].id.encode() in body


def restrict(couch: Couch, member: Member, readable: str) -> None:
    """Let the tokens of an account only read one resource of its addresses."""
    rules = {"ips": [{"rules": {readable: ["GET"]}}]}
    content = {"pvt_type": "token_restrictions", "restrictions": {"_": {"_": rules}}}
    database = couch.database(account_database(member.id))
    found = database.find("token_restrictions") or {"_id": "token_restrictions"}
    database.put({**found, **content})


def test_a_stream_ends_when_its_token_may_not_read_it_any_more(
    server: Gunicorn,
    services: Instance,
    couch: Couch,
    member: Callable[..., Member],
    operator: Member,
) -> None:
    """The account of one client is disabled, the tokens of another one are restricted."""
    carol, dave = accounts = member("Carol", operator), member("Dave", operator)
    restrict(couch, dave, "changes")
    paths = [f"/v2/accounts/{each.id}/ips/changes" for each in accounts]
    with ExitStack() as stack:
        own = [
            stack.enter_context(stream(server, each, path))
            for each, path in zip(accounts, paths, strict=True)
        ]
        others = [stack.enter_context(stream(server, operator, path)) for path in paths]
        made = [event(None, each.id) for each in accounts]
        services.archive.append(made)
        for client, each in zip(own + others, made + made, strict=True):
            assert ids(client.take(1)) == [each.id]
        services.accounts.set_enabled(carol.id, False)
        restrict(couch, dave, "zones")
        for client in own:
            assert client.take(1) == []
            assert client.is_over
        made = [event(each.id, None) for each in accounts]
        services.archive.append(made)
        for client, each in zip(others, made, strict=True):
            assert ids(client.take(1)) == [each.id]
    with stream(server, dave, paths[1]) as client:
        assert client.status == 403
    assert get(server, f"{paths[1]}?feed=longpoll&timeout=1", dave)[0] == 403


def test_a_stream_goes_on_after_an_outage_of_couchdb(
    environment: dict[str, str],
    services: Instance,
    operator: Member,
    alice: Member,
    tmp_path: Path,
) -> None:
    made = story(alice, 5)
    with FaultProxy(environment["COUCHDB_URL"]) as proxy:
        proxied_environment = {**environment, "COUCHDB_URL": proxy.url}
        with (
            Gunicorn(proxied_environment, tmp_path / "log", workers=1, threads=2) as server,
            stream(server, operator) as client,
        ):
            services.archive.append(made[:1])
            assert ids(client.take(1)) == [made[0].id]
            proxy.stop_listening()
            services.archive.append(made[1:4])
            assert get(server, "/v2/ips/assigned", operator)[0] == 503
            proxy.start_listening()
            assert ids(client.take(3)) == [each.id for each in made[1:4]]
            services.archive.append(made[4:])
            assert ids(client.take(1)) == [made[4].id]


def test_the_end_of_a_worker_ends_its_streams(
    server: Gunicorn, services: Instance, operator: Member, alice: Member
) -> None:
    made = story(alice, 2)
    with stream(server, operator) as client:
        services.archive.append(made[:1])
        assert ids(client.take(1)) == [made[0].id]
        (old,) = server.workers()
        started = time.monotonic()
        os.kill(old, signal.SIGTERM)
        assert client.take(1) == []
        assert client.is_over
        assert time.monotonic() - started < 10
        since = client.since
    services.archive.append(made[1:])
    with stream(server, operator, since=since) as client:
        assert ids(client.take(1)) == [made[1].id]


def test_a_client_that_never_reads_is_dropped_and_delays_no_other(
    environment: dict[str, str],
    services: Instance,
    operator: Member,
    alice: Member,
    tmp_path: Path,
) -> None:
    since, _, _ = services.events.changed("now", 1)
    big = "x" * 5000
    made = [event(None, alice.id, address=f"198.19.255.{n % 5}") for n in range(600)]
    made = [_with_zone(each, big) for each in made]
    store(services, made)
    fast = {**environment, "KAZOO_IPS_CLIENT_TIMEOUT": "2"}
    with Gunicorn(fast, tmp_path / "log", workers=1, threads=2) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            request = f"GET /v2/ips/changes?feed=eventsource&since={since} HTTP/1.1\r\nHost: x\r\n"
            client.sendall(f"{request}X-Auth-Token: {operator.token}\r\n\r\n".encode())
            with stream(server, operator, since=since) as other:
                assert ids(other.take(600)) == [each.id for each in made]
            before = _open_sockets(server)
            end = time.monotonic() + 30
            while _open_sockets(server) >= before and time.monotonic() < end:
                time.sleep(0.5)
            assert _open_sockets(server) < before


def _with_zone(made: HistoryEvent, zone: str) -> HistoryEvent:
    from dataclasses import replace  # noqa: PLC0415 - only here

    assert made.after
    return replace(made, after=made.after._replace(zone=zone, host=zone))


def _open_sockets(server: Gunicorn) -> int:
    (worker,) = server.workers()
    links = [Path(f"/proc/{worker}/fd/{name}") for name in os.listdir(f"/proc/{worker}/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if link.exists())


def test_a_thousand_clients_wait_and_all_get_the_event(
    environment: dict[str, str],
    services: Instance,
    operator: Member,
    alice: Member,
    tmp_path: Path,
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        Gunicorn(environment, tmp_path / "log", workers=2, threads=4) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(stream(server, operator)) for _ in range(READERS)]
        assert {client.status for client in clients} == {200}
        made = story(alice, 3)
        services.archive.append(made)
        assert get(server, "/v2/ips/assigned", operator)[0] == 200
        wanted = [each.id for each in made]
        assert [client for client in clients if ids(client.take(3)) != wanted] == []


def test_an_account_cannot_occupy_all_places(
    server: Gunicorn, operator: Member, alice: Member
) -> None:
    path = f"/v2/accounts/{alice.id}/ips/changes"
    with ExitStack() as stack:
        clients = [stack.enter_context(stream(server, alice, path)) for _ in range(101)]
        assert [client.status for client in clients] == [200] * 100 + [503]
        assert stack.enter_context(stream(server, operator)).status == 200
    end = time.monotonic() + 10
    status = 503
    while status != 200:
        assert time.monotonic() < end
        time.sleep(0.5)
        with stream(server, alice, path) as client:
            status = client.status
