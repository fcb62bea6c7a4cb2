"""The service checks every address half a minute after its change, and repairs its copies."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.background.change_follower import LEASE, POLL, RENEW
from kazoo_ips.background.repair import DELAY
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIP, AssignIPs, CreateIP, DedicatedIP, DeleteIP, ReleaseIP
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from tests.conftest import Member
from tests.emptying import clear
from tests.faults import proxy as faults
from tests.faults.conftest import Clock, proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy

ADDRESS = "192.0.2.1"

__all__ = ["proxied_settings", "proxy", "running_proxy"]


class Repairer:
    """An instance that follows the feed, its clock, and its requests to the database."""

    def __init__(self, settings: Settings) -> None:
        self.clock = Clock()
        self.sent: list[tuple[str, str]] = []
        self.services = composition.build(
            settings, clock=self.clock, trace=lambda method, url: self.sent.append((method, url))
        )
        self.wait(0)

    def wait(self, seconds: int) -> None:
        """Advance the clock, with the background work."""
        self.services.background.follow()
        for _ in range(seconds):
            self.clock.ahead += 1
            self.services.background.follow()

    @property
    def writes(self) -> list[str]:
        """The writes to the pool and to account databases."""
        ours = ("-dedicated_ips", "-account")
        return [
            u
            for m, u in self.sent
            if (m == "PUT" or "_bulk_docs" in u) and any(o in u for o in ours)
        ]


@pytest.fixture
def repairer(settings: Settings, couch: Couch, pool: Database, operator: Member) -> Repairer:
    """An instance that takes the lease and follows the feed from now on."""
    clear(couch.database("kazoo_ips"), lambda document: document.get("type") == "follower")
    return Repairer(settings)


@pytest.fixture
def assigned(
    repairer: Repairer, add: Callable[..., DedicatedIP], services: Instance, alice: Member
) -> DedicatedIP:
    """An address of Alice's."""
    add(ADDRESS)
    return services.ips.assign(AssignIP(alice.id, ADDRESS), uuid4().hex)


def _remove(database: Database, address: str = ADDRESS) -> None:
    database.remove(address, database.get(address)["_rev"])


def test_a_missing_copy_is_written_by_the_repair(
    repairer: Repairer, assigned: DedicatedIP, copies: Database
) -> None:
    repairer.services.background.recover()  # removes transactions of earlier tests
    _remove(copies)
    repairer.wait(DELAY - 1)
    assert copies.find(ADDRESS) is None
    repairer.wait(7)
    assert copies.get(ADDRESS)["pvt_request_id"] == assigned.request_id
    assert list(repairer.services.doctor.examine()) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_the_copy_of_the_former_account_is_removed(
    repairer: Repairer,
    assigned: DedicatedIP,
    services: Instance,
    copies: Database,
    alice: Member,
    bob: Member,
    deleted: bool,
) -> None:
    """Assign the address to another account, or delete it."""
    copy = copies.get(ADDRESS)
    services.ips.release(ReleaseIP(alice.id, ADDRESS), uuid4().hex)
    if deleted:
        services.pool.delete(DeleteIP(ADDRESS), uuid4().hex)
    else:
        services.ips.assign(AssignIP(bob.id, ADDRESS), uuid4().hex)
    copies.put({k: v for k, v in copy.items() if k != "_rev"})
    repairer.wait(DELAY + 6)
    assert copies.find(ADDRESS) is None
    assert list(repairer.services.doctor.examine()) == []


def test_the_copy_of_the_former_account_is_removed_after_the_address_was_added_again(
    repairer: Repairer, assigned: DedicatedIP, services: Instance, copies: Database
) -> None:
    copy = copies.get(ADDRESS)
    services.pool.delete(DeleteIP(ADDRESS, force=True), uuid4().hex)
    services.pool.create(CreateIP(ADDRESS, "us-east", "proxy1.example.com"), uuid4().hex)
    copies.put({k: v for k, v in copy.items() if k != "_rev"})
    repairer.wait(DELAY + 6)
    assert copies.find(ADDRESS) is None


class Damaged:
    """Two addresses of Alice's and one of Bob's, and ways to damage them."""

    def __init__(self, services: Instance, couch: Couch, alice: Member, bob: Member) -> None:
        # Each test has addresses of its own. Otherwise old revisions would be leaves in the next
        # test.
        self.first, self.second, self.bobs = [f"2001:db8::{uuid4().hex[:4]}:{n}" for n in "123"]
        self.couch, self.bob, self.alice = couch, bob, alice
        self.pool = couch.database("dedicated_ips")
        self.ips = IPRepository(couch, ListRepository(couch))
        for address, owner in ((self.first, alice), (self.second, alice), (self.bobs, bob)):
            services.pool.create(CreateIP(address, "us-east", "proxy1.example.com"), uuid4().hex)
            services.ips.assign(AssignIP(owner.id, address), uuid4().hex)

    def lose_copies(self) -> None:
        """Remove the copies of two accounts."""
        for address, owner in ((self.first, self.alice), (self.bobs, self.bob)):
            _remove(self.couch.database(account_database(owner.id)), address)

    def withdraw(self) -> None:
        """Leave only a withdrawn release of an address."""
        before = self.ips.get(self.first)
        after = before.release(None, at=before.modified, request_id="lost")
        after = replace(after, revision=self.ips.save(after).revision)
        self.ips.withdraw(after, before)

    def conflict(self) -> None:
        """Add an assignment that was not acknowledged, on another node."""
        rival = {**self.pool.get(self.first), "pvt_assigned_to": self.bob.id}
        parent = f"1-{'0' * 32}"
        self.pool.graft({**rival, "pvt_request_id": "rival", "_rev": f"2-{'f' * 32}"}, parent)

    def leave_transaction(self) -> None:
        """Leave an assignment whose worker died before it was committed."""
        ip = self.ips.get(self.first)
        log = TransactionLog(Records(self.couch))
        left = log.begin(
            Action.ASSIGN, self.alice.id, ip.request_id or "", ip.modified, [self.first]
        )
        self.pool.put({**self.pool.get(self.first), "pvt_transaction": left.id})


@pytest.mark.parametrize(
    "fault",
    [None, "-dedicated_ips/2001", "-account", "-kazoo_ips/transaction"],
    ids=["", "leaves unread", "copies unread", "record unread"],
)
@pytest.mark.parametrize(
    "damage",
    [Damaged.lose_copies, Damaged.withdraw, Damaged.conflict, Damaged.leave_transaction],
    ids=lambda damage: damage.__name__,
)
def test_damage_is_repaired_by_the_follower(
    proxied_settings: Settings,
    proxy: FaultProxy,
    services: Instance,
    couch: Couch,
    pool: Database,
    alice: Member,
    bob: Member,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Damaged], None],
    fault: str | None,
) -> None:
    """The database fails at the first read of a kind. Then a round of recovery may be needed."""
    clear(couch.database("kazoo_ips"), lambda document: document.get("type") == "follower")
    monkeypatch.setattr(liveness, "is_dead", lambda worker: True)
    damage(Damaged(services, couch, alice, bob))
    repairer = Repairer(proxied_settings)
    if fault:
        proxy.rule(faults.error_without_type, "GET|POST", f"{fault}.*", times=1)
    repairer.wait(4 * DELAY)
    proxy.clear()
    if fault:
        repairer.services.background.recover()
    assert list(repairer.services.doctor.examine()) == []


def test_a_copy_of_a_transaction_that_is_under_way_is_repaired_after_it(
    repairer: Repairer,
    assigned: DedicatedIP,
    copies: Database,
    couch: Couch,
    alice: Member,
) -> None:
    log = TransactionLog(Records(couch))
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, assigned.modified, [ADDRESS])
    _remove(copies)
    repairer.wait(DELAY + 6)
    assert copies.find(ADDRESS) is None
    log.sweep([begun])
    repairer.wait(DELAY)
    assert copies.find(ADDRESS)


def test_addresses_of_an_account_without_a_database_do_not_stop_the_repair(
    repairer: Repairer,
    services: Instance,
    add: Callable[..., DedicatedIP],
    member: Callable[..., Member],
    operator: Member,
    assigned: DedicatedIP,
    copies: Database,
    couch: Couch,
) -> None:
    deleted_account = member("Gone", operator)
    for number in range(2, 5):
        add(f"192.0.2.{number}")
        services.ips.assign(AssignIP(deleted_account.id, f"192.0.2.{number}"), uuid4().hex)
    couch.database(account_database(deleted_account.id)).delete()
    _remove(copies)
    try:
        repairer.wait(2 * DELAY)
        assert copies.find(ADDRESS)
    finally:
        couch.database("accounts").remove(
            deleted_account.id, couch.database("accounts").get(deleted_account.id)["_rev"]
        )


def test_consistent_addresses_cost_no_writes(
    repairer: Repairer, assigned: DedicatedIP, copies: Database
) -> None:
    _remove(copies)
    repairer.wait(3 * DELAY)
    assert len(repairer.writes) in (1, 2)  # on a cluster the document is confirmed first
    repairer.sent.clear()
    repairer.wait(600)
    assert repairer.writes == []
    assert len(repairer.sent) <= 1.1 * (600 / POLL + 2 * 600 / (LEASE - RENEW))


def test_the_repair_of_a_copy_is_limited(
    proxied_settings: Settings,
    proxy: FaultProxy,
    add: Callable[..., DedicatedIP],
    services: Instance,
    alice: Member,
    copies: Database,
) -> None:
    repairer = Repairer(proxied_settings)
    add(ADDRESS)
    services.ips.assign(AssignIP(alice.id, ADDRESS), uuid4().hex)
    _remove(copies)
    refused = proxy.rule(
        faults.error_without_type, "PUT|POST", r"-account.*/(_bulk_docs|192\.0\.)", times=None
    )
    repairer.wait(600)
    assert 1 <= len([r for r in refused.met if r.method == "PUT"]) <= 5 * 3
    assert [f.problem for f in repairer.services.doctor.examine()] == ["copy_missing"]


def test_many_changes_are_checked_together(
    repairer: Repairer, couch: Couch, services: Instance, alice: Member, copies: Database
) -> None:
    addresses = [f"198.51.{n // 250}.{n % 250}" for n in range(1000)]
    IPRepository(couch, ListRepository(couch)).save_all(
        [DedicatedIP(address, "us-east", "proxy1.example.com", 1, 1) for address in addresses]
    )
    services.ips.assign_all(AssignIPs(alice.id, tuple(addresses)), uuid4().hex)
    services.background.work()
    lost = copies.get_all(addresses[::2]).values()
    copies.put_all([{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in lost])
    repairer.wait(DELAY)
    repairer.sent.clear()
    repairer.wait(20)
    assert set(copies.get_all(addresses)) == set(addresses)
    assert len(repairer.sent) <= 40
