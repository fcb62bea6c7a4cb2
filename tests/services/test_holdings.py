"""The addresses of an account are found on a cluster whose views lag."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIPs, Attempt, DedicatedIP, Listing, ListIPs, ReleaseIPs
from kazoo_ips.processes import recent_writes
from kazoo_ips.processes.recent_writes import RecentWrites
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.pool.lists import walk
from tests.conftest import Member

ADDRESSES = [f"192.0.2.{n}" for n in range(12)]
ZONES = ["us-east", "us-west"]
ORDER = [*ADDRESSES[::2], *ADDRESSES[1::2]]
"""The order of a list: by zone, then by number."""


class Cluster:
    """A server that behaves as a cluster whose views and copies lack some addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unseen: set[str] = set()
        """Addresses that the view lacks."""
        self.ghosts: list[Listing] = []
        """Outdated lines that the view still has."""
        self.copies_seen = True
        self.pauses: list[float] = []
        self.memory = RecentWrites()
        read_view, read_copies = ListRepository.assigned_to, AccountCopyRepository.addresses

        def assigned_to(views: ListRepository, account_id: str, page: ListIPs) -> list[Listing]:
            rows = read_view(views, account_id, replace(page, limit=None))
            kept = [row for row in rows if row.address not in self.unseen]
            return [*kept, *self.ghosts][: page.limit]

        def addresses(
            copies: AccountCopyRepository, account_id: str, limit: int = 99
        ) -> list[str]:
            return read_copies(copies, account_id, limit) if self.copies_seen else []

        monkeypatch.setattr(ListRepository, "assigned_to", assigned_to)
        monkeypatch.setattr(AccountCopyRepository, "addresses", addresses)
        monkeypatch.setattr(IPRepository, "replicas", 3)
        monkeypatch.setattr(ListRepository, "may_lag", True)
        monkeypatch.setattr(recent_writes, "shared", lambda: self.memory)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A server that behaves as a cluster. At the start it lacks no address."""
    return Cluster(monkeypatch)


@pytest.fixture
def instance(settings: Settings, cluster: Cluster) -> Instance:
    """An instance that uses this server."""
    return composition.build(settings, pause=cluster.pauses.append)


@pytest.fixture
def assigned(
    instance: Instance, pool: Database, add: Callable[..., DedicatedIP], alice: Member
) -> list[str]:
    """Addresses of Alice in two zones, assigned by this instance."""
    for n, address in enumerate(ADDRESSES):
        add(address, zone=ZONES[n % 2], host=f"proxy{n % 3}.example.com")
    instance.ips.assign_all(AssignIPs(alice.id, tuple(ADDRESSES)), uuid4().hex)
    return ADDRESSES


def release_all(services: Instance, member: Member) -> set[str]:
    released = services.ips.release_all(ReleaseIPs(member.id, None), uuid4().hex)
    return {ip.address for ip in released}


def listed(services: Instance, member: Member, **query: str) -> list[str]:
    lines = walk(lambda q: services.lists.assigned(q, member.id), ListIPs(limit=None, **query))
    return [line.address for line in lines]


@pytest.fixture(params=["the copies", "the memory of the instance"])
def services_(
    request: pytest.FixtureRequest, settings: Settings, cluster: Cluster, assigned: list[str]
) -> Instance:
    """An instance that finds the addresses that the view lacks only in the copies, or only in
    memory.
    """
    if request.param == "the copies":
        cluster.memory = RecentWrites()
    else:
        cluster.copies_seen = False
    return composition.build(settings, pause=cluster.pauses.append)


def test_a_release_of_all_finds_addresses_that_the_view_lacks(
    cluster: Cluster, services_: Instance, assigned: list[str], alice: Member
) -> None:
    cluster.unseen = set(assigned[3:7])
    assert release_all(services_, alice) == set(assigned)
    assert release_all(services_, alice) == set()


def test_a_release_of_all_finds_addresses_that_the_view_gets_a_moment_later(
    cluster: Cluster,
    instance: Instance,
    assigned: list[str],
    alice: Member,
) -> None:
    cluster.memory._entries[:] = bytes(len(cluster.memory._entries))
    cluster.copies_seen = False
    cluster.unseen = set(assigned[3:7])

    def pause(seconds: float) -> None:
        cluster.unseen = set()

    instance.ips._holdings._pause = pause
    assert release_all(instance, alice) == set(assigned)


def test_a_list_has_addresses_that_the_view_lacks_at_their_sort_position(
    cluster: Cluster, services_: Instance, assigned: list[str], alice: Member
) -> None:
    cluster.unseen = {assigned[0], assigned[4], assigned[5], assigned[11]}
    assert listed(services_, alice) == ORDER
    assert listed(services_, alice, zone="us-west") == ADDRESSES[1::2]
    assert listed(services_, alice, host="proxy1.example.com") == [
        a for a in ORDER if assigned.index(a) % 3 == 1
    ]
    cluster.unseen = set(assigned)
    assert listed(services_, alice) == ORDER


@pytest.mark.parametrize("limit", [1, 2, 5, 12, 13])
def test_pages_are_consecutive_although_the_view_lags(
    cluster: Cluster, services_: Instance, assigned: list[str], alice: Member, limit: int
) -> None:
    cluster.unseen = {assigned[0], assigned[4], assigned[5], assigned[11]}
    pages, after = [], None
    while not pages or after:
        page = services_.lists.assigned(ListIPs(limit=limit, after=after), alice.id)
        pages.append([line.address for line in page.items])
        after = page.after
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert [address for page in pages for address in page] == ORDER


def test_a_released_address_is_not_shown(
    cluster: Cluster, instance: Instance, assigned: list[str], alice: Member, bob: Member
) -> None:
    instance.ips.release_all(ReleaseIPs(alice.id, tuple(assigned[:4])), uuid4().hex)
    instance.ips.assign_all(AssignIPs(bob.id, tuple(assigned[:2])), uuid4().hex)
    cluster.ghosts = [Listing(address, "us-west", "h", alice.id) for address in assigned[:4]]
    assert set(listed(instance, alice)) == set(assigned[4:])
    page = instance.lists.assigned(ListIPs(limit=7), alice.id)
    assert (len(page.items), page.after is None) == (7, False)
    page = instance.lists.assigned(ListIPs(limit=8), alice.id)
    assert (len(page.items), page.after) == (8, None)


def test_only_addresses_that_were_changed_since_a_time_are_shown(
    cluster: Cluster,
    services_: Instance,
    settings: Settings,
    assigned: list[str],
    alice: Member,
) -> None:
    later = composition.build(settings, clock=lambda: time.time() + 60)
    later.ips.release_all(ReleaseIPs(alice.id, tuple(assigned[:4])), uuid4().hex)
    changed = later.ips.assign_all(AssignIPs(alice.id, tuple(assigned[:3])), uuid4().hex)
    query = ListIPs(limit=None, modified_from=changed[0].modified)
    for cluster.unseen in (set(), set(assigned)):
        lines = services_.lists.assigned(query, alice.id).items
        assert {line.address for line in lines} == set(assigned[:3])


def test_an_address_of_a_committed_release_is_not_shown(
    cluster: Cluster,
    instance: Instance,
    assigned: list[str],
    couch: Couch,
    pool: Database,
    alice: Member,
) -> None:
    log, at = TransactionLog(Records(couch)), instance.ips.fetch(assigned[0]).modified
    release = log.begin(Action.RELEASE, alice.id, uuid4().hex, at, assigned[:2])
    for document in pool.get_all(assigned[:2]).values():
        pool.put({**document, "pvt_transaction": release.id})
    assert set(listed(instance, alice)) == set(assigned)
    log.commit(release, assigned[:2])
    assert set(listed(instance, alice)) == set(assigned[2:])


def test_a_later_attempt_also_releases_what_the_aborted_one_has_found(
    cluster: Cluster, settings: Settings, assigned: list[str], couch: Couch, alice: Member
) -> None:
    hidden, attempt, request_id = assigned[3:5], Attempt(uuid4().hex, 1), uuid4().hex
    cluster.unseen, cluster.copies_seen, cluster.memory = set(hidden), False, RecentWrites()
    instance = composition.build(settings, pause=cluster.pauses.append)
    log = TransactionLog(Records(couch))
    log.abort(log.begin(Action.RELEASE, alice.id, request_id, 1, hidden, attempt))
    later = replace(attempt, number=2)
    released = instance.ips.release_all(ReleaseIPs(alice.id, None), request_id, attempt=later)
    assert {ip.address for ip in released} == set(assigned)


def test_addresses_of_an_account_without_a_database_are_found(
    cluster: Cluster,
    instance: Instance,
    add: Callable[..., DedicatedIP],
    member: Callable[..., Member],
    operator: Member,
    couch: Couch,
) -> None:
    deleted_account = member("Gone", operator)
    for address in ADDRESSES[:2]:
        add(address)
    instance.ips.assign_all(AssignIPs(deleted_account.id, tuple(ADDRESSES[:2])), uuid4().hex)
    couch.database(account_database(deleted_account.id)).delete()
    try:
        assert set(listed(instance, deleted_account)) == set(ADDRESSES[:2])
        assert release_all(instance, deleted_account) == set(ADDRESSES[:2])
    finally:
        accounts = couch.database("accounts")
        accounts.remove(deleted_account.id, accounts.get(deleted_account.id)["_rev"])


def test_on_a_single_node_only_the_view_is_read(
    settings: Settings, services: Instance, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    sent: list[str] = []
    pauses: list[float] = []
    instance = composition.build(
        settings, trace=lambda method, url: sent.append(url), pause=pauses.append
    )
    if services.lists._lists.may_lag:
        pytest.skip("a cluster")
    add(ADDRESSES[0])
    listed(instance, alice)
    sent.clear()
    listed(instance, alice)
    release_all(instance, alice)
    assert [url.split("?")[0].split("/")[-1] for url in sent] == ["by_assignee"] * 2
    assert pauses == []


@pytest.mark.parametrize("how", ["release", "list"])
def test_copies_that_arrive_a_moment_later_are_found(
    settings: Settings, cluster: Cluster, assigned: list[str], alice: Member, how: str
) -> None:
    cluster.memory, cluster.copies_seen = RecentWrites(), False
    cluster.unseen = {*assigned[3:7]}

    def pause(seconds: float) -> None:
        cluster.copies_seen = True

    later = composition.build(settings, pause=pause)
    if how == "release":
        assert release_all(later, alice) == set(assigned)
    else:
        assert set(listed(later, alice)) == set(assigned)


@pytest.mark.parametrize("may_lag", [True, False])
def test_the_addresses_of_many_accounts_include_recent_assignments_if_views_may_lag(
    cluster: Cluster,
    instance: Instance,
    assigned: list[str],
    alice: Member,
    bob: Member,
    monkeypatch: pytest.MonkeyPatch,
    may_lag: bool,
) -> None:
    holdings = instance.ips._holdings
    assert holdings.candidates_of({alice.id, bob.id}) == set(assigned)
    monkeypatch.setattr(ListRepository, "assigned", lambda views: iter(()))
    monkeypatch.setattr(ListRepository, "may_lag", may_lag)
    cluster.pauses.clear()
    found = holdings.candidates_of({alice.id, bob.id})
    assert (found, len(cluster.pauses)) == ((set(assigned), 1) if may_lag else (set(), 0))


def test_recent_writes_have_a_fixed_size_and_are_kept_by_account() -> None:
    memory = RecentWrites(entries=4)
    memory.add("a", ["192.0.2.1", "2001:db8::1"])
    memory.add("b", ["192.0.2.2"])
    assert memory.recent("a") == {"192.0.2.1", "2001:db8::1"}
    memory.add("b", ["192.0.2.3", "192.0.2.4"])
    assert memory.recent("a") == {"2001:db8::1"}
    assert memory.recent("b") == {"192.0.2.2", "192.0.2.3", "192.0.2.4"}


def test_recent_writes_expire_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = RecentWrites()
    memory.add("a", ["192.0.2.1"])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + recent_writes.LIFETIME + 1)
    assert memory.recent("a") == set()


def test_forked_workers_share_the_recent_writes() -> None:
    memory = RecentWrites()
    child = os.fork()
    if not child:
        memory.add("a", ["192.0.2.1"])
        os._exit(0)
    os.waitpid(child, 0)
    assert memory.recent("a") == {"192.0.2.1"}
