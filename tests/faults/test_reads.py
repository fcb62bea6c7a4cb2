"""Concurrent reads share one request to CouchDB, and each thread gets its own document."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import DatastoreUnreachable, IPNotFound
from kazoo_ips.model import (
    AssignIPs,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    ListIPs,
    ReleaseIPs,
    Status,
    generation,
)
from kazoo_ips.observability import request_context
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import hold_request, wait_until_pending
from tests.faults.proxy import FaultProxy
from tests.timing import eventually

FIRST, SECOND, THIRD, MISSING, REMOVED = (f"192.0.2.{n}" for n in range(1, 6))
NEVER = "203.0.113.77"
"""An address that no test adds, because a deleted address has a tombstone."""
POOL = "-dedicated_ips/"


@pytest.fixture(autouse=True)
def _long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kazoo_ips.couch.client._MAX_WAIT_READ", 5)


@pytest.fixture
def ips(proxy: FaultProxy, proxied_settings: Settings) -> IPRepository:
    """The pool behind the proxy."""
    couch = composition.connect(proxied_settings)
    return IPRepository(couch, ListRepository(couch))


Read = Callable[[str], Future[DedicatedIP]]


@pytest.fixture
def together(ips: IPRepository, proxy: FaultProxy) -> Callable[[], Iterator[Read]]:
    """Reads that start while `FIRST` is read. They are sent in one request."""

    @contextmanager
    def reads() -> Iterator[Read]:
        get = partial(partial, ips.get)
        held = hold_request(proxy, "GET", f"{POOL}{FIRST}", get(FIRST), ips._pool._reads)
        with held as (first, begin):
            yield lambda address: begin(get(address))
        assert first.result(5).address == FIRST

    return reads  # type: ignore[return-value]


def sent(proxy: FaultProxy) -> list[str]:
    return [f"{r.request.method} {r.request.path.partition(POOL)[2]}" for r in proxy.records]


def test_each_thread_gets_its_document_from_one_request(
    together: Callable[[], Iterator[Read]],
    add: Callable[..., DedicatedIP],
    pool: Database,
    proxy: FaultProxy,
) -> None:
    add(FIRST)
    second, third = add(SECOND, zone="a"), add(THIRD, zone="b")
    pool.remove(REMOVED, add(REMOVED).revision or "")
    with together() as read:
        answers = [read(a) for a in (SECOND, THIRD, MISSING, REMOVED, SECOND)]
    assert [answers[n].result(5) for n in (0, 1, 4)] == [second, third, second]
    for n in (2, 3):
        with pytest.raises(IPNotFound):
            answers[n].result(5)
    assert sent(proxy)[:2] == [f"GET {FIRST}", "POST _bulk_get"]


def test_a_batched_read_shows_a_conflict(
    together: Callable[[], Iterator[Read]], add: Callable[..., DedicatedIP], pool: Database
) -> None:
    add(FIRST)
    add(SECOND)
    other = {**pool.get(add(THIRD).address), "pvt_zone": "other"}
    winner, loser = (f"{generation(other['_rev']) + 1}-{digit * 32}" for digit in "fe")
    for revision in (winner, loser):
        pool.graft({**other, "_rev": revision}, parent=other["_rev"])
    with together() as read:
        second, third = read(SECOND), read(THIRD)
    assert not second.result(5).conflicted
    assert (third.result(5).conflicted, third.result(5).revision) == (True, winner)


def test_a_document_that_cannot_be_read_does_not_fail_the_others(
    together: Callable[[], Iterator[Read]],
    add: Callable[..., DedicatedIP],
    proxy: FaultProxy,
    pool: Database,
) -> None:
    for address in (FIRST, SECOND, THIRD):
        add(address)
    proxy.rule(faults.unreadable(SECOND), "POST", "/_bulk_get")
    proxy.rule(faults.error_without_type, "GET", f"{POOL}{SECOND}", times=None)
    with together() as read:
        second, third = read(SECOND), read(THIRD)
    assert third.result(5).address == THIRD
    with pytest.raises(DatastoreUnreachable):
        second.result(5)


def test_all_threads_of_a_batch_get_the_error(
    together: Callable[[], Iterator[Read]],
    add: Callable[..., DedicatedIP],
    proxy: FaultProxy,
    ips: IPRepository,
) -> None:
    for address in (FIRST, SECOND, THIRD):
        add(address)
    proxy.rule(faults.cut, "POST", "/_bulk_get", times=2)
    with together() as read:
        answers = [read(SECOND), read(THIRD)]
    for answer in answers:
        with pytest.raises(DatastoreUnreachable):
            answer.result(5)
    assert ips.get(SECOND).address == SECOND


def test_a_document_that_cannot_be_read_is_not_reported_as_missing(
    proxy: FaultProxy,
    proxied_services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> None:
    add(FIRST)
    add(SECOND)
    proxy.rule(faults.unreadable(SECOND), "POST", "/_bulk_get")
    command = AssignIPs(alice.id, (FIRST, SECOND))
    with pytest.raises(DatastoreUnreachable):
        proxied_services.ips.assign_all(command, uuid4().hex)


def test_an_address_whose_leaf_revision_is_missing_is_not_reported_as_missing(
    proxy: FaultProxy, proxied_services: Instance, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add(FIRST)
    add(SECOND)
    proxy.rule(faults.leaf_missing, "POST", "/_bulk_get")
    with pytest.raises(DatastoreUnreachable):
        proxied_services.ips.assign_all(AssignIPs(alice.id, (FIRST, SECOND)), uuid4().hex)


def test_an_address_is_not_added_without_the_events_of_its_tombstone(
    proxy: FaultProxy,
    proxied_services: Instance,
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
) -> None:
    add(FIRST)
    services.pool.delete(DeleteIP(FIRST), uuid4().hex)
    proxy.rule(faults.leaf_missing, "GET", f"{POOL}{FIRST}")
    command = CreateIP(FIRST, "us-east", "proxy1.example.com")
    with pytest.raises(DatastoreUnreachable):
        proxied_services.pool.create(command, uuid4().hex)
    assert pool.find(FIRST) is None
    proxied_services.pool.create(command, uuid4().hex)
    events = [each["event"] for each in pool.get(FIRST)["pvt_trail"]]
    assert events[-3:] == ["created", "deleted", "created"]


AVAILABLE = ListIPs(status=Status.AVAILABLE)


def test_concurrent_reads_of_one_list_share_a_request_and_delay_no_other(
    proxy: FaultProxy, proxied_settings: Settings, add: Callable[..., DedicatedIP], pool: Database
) -> None:
    add(FIRST, zone="a")
    lists = ListRepository(composition.connect(proxied_settings))
    gate = threading.Event()
    rule = proxy.rule(faults.hold(gate), "GET", "/_view/by_zone")
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(lists.of_status, AVAILABLE)
        assert eventually(lambda: bool(rule.met))
        [batcher] = lists._pool._queries.values()
        others = [threads.submit(lists.of_status, AVAILABLE) for _ in range(3)]
        wait_until_pending(batcher, 3)
        assert lists.of_status(replace(AVAILABLE, zone="b")) == [], "another list does not wait"
        add(SECOND, zone="a")
        gate.set()
        seen = [len(each.result(5)) for each in others]
        assert len(set(seen)) == 1
        if pool.replicas == 1:  # one of several replicas may lag
            assert seen == [2, 2, 2], "the state after the threads have sent their requests"
        first.result(5)
    assert rule.matched == 3
    assert len(proxy.records) == 3


def test_rows_that_break_off_are_no_list(
    proxy: FaultProxy, proxied_settings: Settings, pool: Database
) -> None:
    proxy.rule(faults.broken_off, "GET", "/_view/by_zone")
    lists = ListRepository(composition.connect(proxied_settings))
    with pytest.raises(DatastoreUnreachable, match="progress not possible"):
        lists.of_status(AVAILABLE)
    proxy.clear()
    assert lists.of_status(AVAILABLE) == []


def test_rows_with_half_a_surrogate_are_read(pool: Database) -> None:
    # CouchDB accepts half of a surrogate pair; msgspec does not.
    half = {"_id": FIRST, "pvt_type": "dedicated_ip", "pvt_status": "available"}
    document = {**half, "pvt_zone": "zone", "pvt_host": "half \udc00"}
    pool._send("PUT", FIRST, json.dumps(document).encode())
    [row] = pool.rows("ips/by_zone", reduce=False)
    assert (row.id, row.key[:2]) == (FIRST, ["available", "zone"])


def test_readers_of_the_latest_changes_share_a_request_that_is_sent_after_they_asked(
    proxy: FaultProxy, proxied_settings: Settings, add: Callable[..., DedicatedIP], pool: Database
) -> None:
    add(FIRST)
    database = composition.connect(proxied_settings).database("dedicated_ips")
    read = partial(database.changes_until_now, since="0")
    with hold_request(
        proxy, "GET", "/_changes", read, database._query_batcher("_changes?since=0")
    ) as (
        held,
        begin,
    ):
        others = [begin(read) for _ in range(3)]
        add(SECOND)
    held.result(5)
    feeds = [{row["id"] for row in each.result(5)["results"]} for each in others]
    assert feeds[0] == feeds[1] == feeds[2]
    if pool.replicas == 1:  # one of several replicas may lag
        assert SECOND in feeds[0]
    assert len(proxy.records) == 2


@pytest.fixture
def many(services: Instance, pool: Database) -> list[str]:
    """300 addresses, one of which was deleted, and one that never existed."""
    wishes = [CreateIP(f"10.0.{n >> 8}.{n & 255}", "zone", "host") for n in range(300)]
    made = services.bulk_additions.create_all(wishes, uuid4().hex)
    pool.remove(made[7].address, made[7].revision or "")
    return [*(ip.address for ip in made), NEVER]


def test_many_documents_are_read_in_two_halves_with_one_request_id(
    many: list[str], ips: IPRepository, proxy: FaultProxy
) -> None:
    def look_up() -> tuple[dict[str, DedicatedIP], set[str]]:
        request_context.begin("two-halves")
        return ips.look_up(many)

    found, deleted = copy_context().run(look_up)
    assert set(found) == set(many) - {many[7], NEVER}
    assert deleted == {many[7]}
    # The two missing documents may have another spelling.
    other = "POST _design/ips/_view/other_spellings"
    assert sent(proxy) == [*["POST _bulk_get"] * 2, other]
    heads = [record.request.head.lower() for record in proxy.records]
    assert all(b"x-couch-request-id: two-halves-" in head for head in heads)


@pytest.mark.parametrize("half", [1, 2])
def test_a_failed_half_fails_the_whole_read(
    many: list[str], ips: IPRepository, proxy: FaultProxy, half: int
) -> None:
    proxy.rule(faults.error_without_type, "POST", "/_bulk_get", first=half)
    with pytest.raises(DatastoreUnreachable):
        ips.look_up(many)


@pytest.fixture
def releasing(
    many: list[str],
    proxy: FaultProxy,
    services: Instance,
    proxied_services: Instance,
    alice: Member,
) -> Iterator[tuple[list[str], Future[list[DedicatedIP]], Callable[[], None]]]:
    """A release of many addresses that waits at its write to the pool.

    By then the copies have been read.
    """
    given = [ip for ip in many if ip not in (many[7], NEVER)]
    services.ips.assign_all(AssignIPs(alice.id, tuple(given)), uuid4().hex)
    gate = threading.Event()
    proxy.rule(faults.hold(gate), "POST", f"{POOL}_bulk_docs")
    command = ReleaseIPs(alice.id, tuple(given))
    with ThreadPoolExecutor(1) as threads:
        release = threads.submit(proxied_services.ips.release_all, command, uuid4().hex)
        copies = account_database(alice.id)
        assert eventually(lambda: _answered(proxy, f"{copies}/_bulk_get") == 2)
        yield given, release, gate.set
        gate.set()


def _answered(proxy: FaultProxy, path: str) -> int:
    sent = sum(path in record.request.path for record in proxy.records)
    return sent if proxy.busy == 1 else 0  # the write that the proxy holds


def test_the_copies_of_many_are_read_while_the_pool_is_written_to(
    releasing: tuple[list[str], Future[list[DedicatedIP]], Callable[[], None]],
    couch: Couch,
    alice: Member,
) -> None:
    given, release, go_on = releasing
    go_on()
    assert [ip.address for ip in release.result(30)] == given
    assert couch.database(account_database(alice.id)).get_all(given) == {}


def test_a_copy_written_after_the_read_is_checked_later(
    releasing: tuple[list[str], Future[list[DedicatedIP]], Callable[[], None]],
    couch: Couch,
    proxied_services: Instance,
    alice: Member,
) -> None:
    given, release, go_on = releasing
    database = couch.database(account_database(alice.id))
    copy = database.get(given[3])
    database.put({**copy, "note": "by somebody else"})
    go_on()
    release.result(30)
    assert set(database.get_all(given)) == {given[3]}
    proxied_services.background.check_due(now=1e12)
    assert database.get_all(given) == {}
