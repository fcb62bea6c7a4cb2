"""Conflicts on a cluster: several leaf revisions of one address, or none.

The tests write the leaf revisions as replication does, so one node is enough.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, permutations
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.errors import (
    Conflict,
    DatastoreUnreachable,
    InsufficientIPs,
    IPNotFound,
    ValidationFailed,
)
from kazoo_ips.model import (
    GREGORIAN_EPOCH,
    AllocateIPs,
    AssignIP,
    AssignIPs,
    CreateIP,
    DedicatedIP,
    Event,
    ReleaseIP,
    ReleaseIPs,
    Status,
    generation,
)
from kazoo_ips.model.changes import Changes
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import to_document
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, Transaction, TransactionLog
from kazoo_ips.services.assigning.conflicts import GRACE, _is_one_release
from kazoo_ips.services.assigning.recovery import LEASE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import Clock
from tests.faults.proxy import Fault, FaultProxy, Forward, Reply
from tests.timing import eventually

LOW, HIGH = "0" * 32, "f" * 32
"""Digests of revisions. Of two leaf revisions, CouchDB shows the one with the higher digest."""


def gregorian(ago: float = 0) -> int:
    return int(time.time() - ago) + GREGORIAN_EPOCH


_numbers = count(100)
"""Numbers of addresses that no other test uses. The tombstone of a used one is also a leaf."""


class Leaves:
    """The leaf revisions of one address, which a test writes and reads one by one."""

    def __init__(self, pool: Database, couch: Couch) -> None:
        self.pool = pool
        self.couch = couch
        self.ips = IPRepository(couch, ListRepository(couch))
        # Each test has an address of its own: old revisions would be leaves in the next test.
        self.address = f"203.0.113.{next(_numbers)}"

    def base(self) -> Document:
        document = {
            "_id": self.address,
            "pvt_type": "dedicated_ip",
            "pvt_status": "available",
            "pvt_zone": "us-east",
            "pvt_host": "proxy1.example.com",
            "pvt_created": gregorian(3600),
            "pvt_modified": gregorian(3600),
        }
        self.pool.put(document)
        return self.pool.get(self.address)

    def claim(self, base: Document, digest: str, owner: Member, ago: float = 3600) -> Document:
        """Add a leaf revision that assigns the address to an account."""
        generation = int(base["_rev"].split("-")[0]) + 1
        claim = {
            **base,
            "_rev": f"{generation}-{digest}",
            "pvt_status": "assigned",
            "pvt_assigned_to": owner.id,
            "pvt_modified": gregorian(ago),
            "pvt_request_id": uuid4().hex,
        }
        self.pool.graft(claim, parent=base["_rev"])
        return claim

    def release(
        self, base: Document, digest: str, owner: Member, request_id: str, *since: str,
        committed: bool = False,
    ) -> None:  # fmt: skip
        """Add a leaf revision that a release of the address by an account has written.

        :param since: the kinds of later events
        :param committed: whether a transaction of several addresses has released it
        """
        at = gregorian()
        event = {"event": "released", "account_id": owner.id, "request_id": request_id, "at": at}
        trail = [
            event | ({"committed": True} if committed else {}),
            *({"event": kind, "request_id": request_id, "at": at} for kind in since),
        ]
        fresh = {
            **base,
            "_rev": f"{generation(base['_rev']) + 1}-{digest}",
            "pvt_status": "available",
            "pvt_assigned_to": None,
            "pvt_modified": at,
            "pvt_request_id": request_id,
            "pvt_trail": [*base.get("pvt_trail", []), *trail],
        }
        self.pool.graft(fresh, parent=base["_rev"])

    def copy(self, claim: Document, owner: Member) -> None:
        database = self.couch.database(account_database(owner.id))
        database.put({name: value for name, value in claim.items() if name != "_rev"})

    def withdraw(self, base: Document, claim: Document) -> None:
        live = {leaf.revision: leaf for leaf in self.ips.leaves(self.address).live}
        before = replace(self.ips.get(self.address), revision=base["_rev"], source=base)
        before = replace(before, status=Status.AVAILABLE, assigned_to=None, request_id=None)
        self.ips.withdraw(live[claim["_rev"]], before)

    @property
    def live(self) -> list[Document]:
        leaves = self.pool.leaves(self.address, r=self.pool.replicas)
        return [leaf for leaf in leaves if not leaf.get("_deleted")]

    @property
    def copies(self) -> Callable[[Member], int]:
        return lambda owner: len(
            self.couch.database(account_database(owner.id)).get_all([self.address])
        )


@pytest.fixture
def leaves(couch: Couch, pool: Database) -> Iterator[Leaves]:
    made = Leaves(pool, couch)
    yield made
    if not made.live:  # so that the service does not restore the address after the test
        pool.put({"_id": made.address})
    for leaf in made.live:
        pool.remove(made.address, leaf["_rev"])


@pytest.fixture
def later(settings: Settings, operator: Member) -> Instance:
    """The services, with a clock so far ahead that no write is recent."""
    clock = Clock()
    clock.ahead = GRACE + 5
    return composition.build(settings, clock=clock)


def url(owner: Member, *address: str) -> str:
    return "/".join([f"/v2/accounts/{owner.id}/ips", *address])


@pytest.fixture(params=[(LOW, HIGH), (HIGH, LOW)], ids=["hidden", "shown"])
def race(request: Any, leaves: Leaves, alice: Member, bob: Member) -> Leaves:
    """Alice's assignment was acknowledged; Bob's had no quorum, and its revision still exists."""
    base = leaves.base()
    mine, other = request.param
    alices = leaves.claim(base, mine, alice)
    leaves.claim(base, other, bob)
    leaves.copy(alices, alice)
    assert len(leaves.live) == 2
    return leaves


def assert_alices(leaves: Leaves, alice: Member) -> None:
    [leaf] = leaves.live
    assert leaf["pvt_assigned_to"] == alice.id


def test_a_read_resolves_a_conflict_to_the_acknowledged_leaf(
    race: Leaves, api: TestApp, alice: Member
) -> None:
    reply = api.get(url(alice, race.address), headers=alice.headers, status=200)
    assert reply.json["data"]["assigned_to"] == alice.id
    assert_alices(race, alice)


def test_an_account_without_a_quorum_does_not_see_the_address(
    race: Leaves, api: TestApp, bob: Member
) -> None:
    api.get(url(bob, race.address), headers=bob.headers, status=404)


@pytest.mark.parametrize("many", [False, True])
def test_assigning_resolves_the_conflict_first_and_is_refused(
    race: Leaves, api: TestApp, alice: Member, bob: Member, many: bool
) -> None:
    path, data = ([], {"ips": [race.address]}) if many else ([race.address], {})
    for who, rule in ((bob, "forbidden"), (alice, "superfluous")):
        reply = api.post_json(url(who, *path), {"data": data}, headers=who.headers, status=400)
        assert list(reply.json["data"]["ips.0"]) == [rule]
    assert_alices(race, alice)


@pytest.mark.parametrize("many", [False, True])
def test_releasing_resolves_the_conflict_first(
    race: Leaves, api: TestApp, alice: Member, bob: Member, many: bool
) -> None:
    path, data = ([], {"ips": [race.address]}) if many else ([race.address], {})
    api.delete_json(url(bob, *path), {"data": data}, headers=bob.headers, status=400)
    assert_alices(race, alice)
    api.delete_json(url(alice, *path), {"data": data}, headers=alice.headers, status=200)
    [leaf] = race.live
    assert leaf["pvt_status"] == "available"
    assert race.copies(alice) == 0


def test_the_conflict_of_one_of_several_addresses_is_resolved_first(
    race: Leaves, services: Instance, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    both = (race.address, add("192.0.2.1").address)
    services.ips.assign(AssignIP(alice.id, both[1]), uuid4().hex)
    released = services.ips.release_all(ReleaseIPs(alice.id, both), uuid4().hex)
    assert [(ip.address, ip.assigned_to) for ip in released] == [(a, None) for a in both]
    [leaf] = race.live
    assert leaf["pvt_status"] == "available"


def test_two_concurrent_resolutions_have_the_same_result(
    race: Leaves, settings: Settings, alice: Member, each: Callable[..., list[Any]]
) -> None:
    settlers = [composition.build(settings) for _ in range(4)]
    found = each([lambda s=s: s.ips.fetch(race.address).assigned_to for s in settlers])
    assert found == [alice.id] * 4
    assert_alices(race, alice)


def test_a_recent_unacknowledged_conflict_is_resolved_later(
    leaves: Leaves, api: TestApp, later: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice, ago=0)
    leaves.claim(base, HIGH, bob, ago=0)
    for who in (alice, bob):
        api.post_json(url(who, leaves.address), {"data": {}}, headers=who.headers, status=409)
        api.delete(url(who, leaves.address), headers=who.headers, status=409)
    assert len(leaves.live) == 2
    assert later.ips.fetch(leaves.address).status == "available"
    [leaf] = leaves.live
    assert leaf["pvt_status"] == "available"
    assert "pvt_assigned_to" not in leaf


def test_a_recent_conflict_is_resolved_later_by_the_background_worker(
    leaves: Leaves, later: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice, ago=0)
    leaves.claim(base, HIGH, bob, ago=0)
    later.background.recover()
    later.background._retries.schedule_check(leaves.address)
    later.background.check_due(now=1e12)
    assert [leaf["pvt_status"] for leaf in leaves.live] == ["available"]


@pytest.fixture
def withdrawn(leaves: Leaves, alice: Member, bob: Member) -> Leaves:
    """Two assignments without a quorum were withdrawn, so the address has no live revision."""
    base = leaves.base()
    claims = [leaves.claim(base, LOW, alice), leaves.claim(base, HIGH, bob)]
    for claim in claims:
        leaves.withdraw(base, claim)
    assert leaves.live == []
    return leaves


def test_a_read_restores_an_address_that_all_writers_withdrew(
    withdrawn: Leaves, api: TestApp, alice: Member
) -> None:
    reply = api.get(url(alice, withdrawn.address), headers=alice.headers, status=200)
    assert (reply.json["data"]["status"], reply.json["data"]["zone"]) == ("available", "us-east")
    assert len(withdrawn.live) == 1


@pytest.mark.parametrize("many", [False, True])
def test_a_withdrawn_address_can_be_assigned_at_once(
    withdrawn: Leaves, api: TestApp, alice: Member, many: bool
) -> None:
    path, data = ([], {"ips": [withdrawn.address]}) if many else ([withdrawn.address], {})
    api.post_json(url(alice, *path), {"data": data}, headers=alice.headers, status=200)
    assert_alices(withdrawn, alice)


def test_a_withdrawn_address_is_restored_if_it_is_added_again(
    withdrawn: Leaves, api: TestApp, operator: Member
) -> None:
    data = {"ip": withdrawn.address, "zone": "eu-west", "host": "proxy1.example.com"}
    api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=409)
    assert [leaf["pvt_zone"] for leaf in withdrawn.live] == ["us-east"]


def test_restoring_an_address_twice_writes_one_revision(
    withdrawn: Leaves, each: Callable[..., list[Any]]
) -> None:
    lost = withdrawn.ips.leaves(withdrawn.address).restorable
    assert lost
    each([lambda: withdrawn.ips.restore(lost)] * 4)
    assert len(withdrawn.live) == 1
    withdrawn.ips.restore(lost)
    assert len(withdrawn.live) == 1


def test_an_address_that_a_client_deleted_is_not_restored(
    withdrawn: Leaves, services: Instance, api: TestApp, operator: Member
) -> None:
    api.delete(f"/v2/ips/{withdrawn.address}", headers=operator.headers, status=200)
    services.background._retries.schedule_check(withdrawn.address)
    services.background.check_due(now=1e12)
    api.get(f"/v2/ips/{withdrawn.address}", headers=operator.headers, status=404)
    assert withdrawn.live == []


def is_gone(services: Instance, address: str) -> bool:
    try:
        services.ips.fetch(address)
    except IPNotFound:
        return True
    return False


@pytest.mark.parametrize("order", list(permutations("dab")), ids="".join)
def test_a_deletion_among_withdrawn_writes_counts_in_any_order(
    leaves: Leaves, services: Instance, alice: Member, bob: Member, order: tuple[str, ...]
) -> None:
    base = leaves.base()
    steps: dict[str, Callable[[], Any]] = {
        "a": lambda: leaves.withdraw(base, leaves.claim(base, LOW, alice)),
        "b": lambda: leaves.withdraw(base, leaves.claim(base, HIGH, bob)),
        "d": lambda: leaves.pool.graft(
            {"_id": leaves.address, "_rev": f"2-{'8' * 32}", "_deleted": True}, parent=base["_rev"]
        ),
    }
    for step in order:
        steps[step]()
    assert leaves.live == []
    # A lagging node may show a withdrawn assignment for a moment. A restored one would stay.
    assert eventually(lambda: is_gone(services, leaves.address))
    assert leaves.live == []


def test_a_dropped_revision_is_no_deletion(
    race: Leaves, services: Instance, alice: Member, bob: Member
) -> None:
    """The dropped revision has the same generation as the base of the next write."""
    services.ips.fetch(race.address)
    [base] = race.live
    database = race.couch.database(account_database(alice.id))
    database.remove(race.address, database.get(race.address)["_rev"])
    race.withdraw(base, race.claim(base, LOW, bob))
    assert race.live == []
    assert services.ips.fetch(race.address).address == race.address


@pytest.mark.parametrize(
    "differs",
    [
        {"pvt_request_id": "another"},
        {"pvt_assigned_to": "another"},
        {"pvt_modified": 1},
        {"pvt_status": "available"},
    ],
    ids=lambda differs: next(iter(differs)),
)
def test_a_copy_of_another_assignment_acknowledges_nothing(
    leaves: Leaves, later: Instance, alice: Member, bob: Member, differs: dict[str, Any]
) -> None:
    base = leaves.base()
    claim = leaves.claim(base, LOW, alice)
    leaves.claim(base, HIGH, bob)
    leaves.copy({**claim, **differs}, alice)
    assert later.ips.fetch(leaves.address).assigned_to is None


def test_an_assignment_to_a_deleted_account_is_not_acknowledged(
    leaves: Leaves, later: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    claim = leaves.claim(base, LOW, alice)
    leaves.pool.graft(
        {**claim, "_rev": f"2-{HIGH}", "pvt_assigned_to": uuid4().hex}, parent=base["_rev"]
    )
    leaves.copy(claim, alice)
    assert later.ips.fetch(leaves.address).assigned_to == alice.id


def test_a_recent_conflict_with_one_copy_is_resolved_at_once(
    leaves: Leaves, services: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    leaves.copy(leaves.claim(base, LOW, alice, ago=0), alice)
    leaves.claim(base, HIGH, bob, ago=0)
    assert services.ips.fetch(leaves.address).assigned_to == alice.id
    assert len(leaves.live) == 1


@pytest.mark.parametrize("committed", [False, True])
def test_the_transaction_of_an_assignment_does_not_decide_a_conflict(
    leaves: Leaves,
    services: Instance,
    couch: Couch,
    alice: Member,
    bob: Member,
    committed: bool,
) -> None:
    """Only the mark of a release had a majority before the commit. The copy decides here."""
    log = TransactionLog(Records(couch))
    begun = log.begin(Action.ASSIGN, bob.id, uuid4().hex, gregorian(), [leaves.address])
    if committed:
        begun = log.commit(begun, begun.addresses)
    base = leaves.base()
    leaves.copy(leaves.claim(base, LOW, alice, ago=0), alice)
    leaves.claim({**base, "pvt_transaction": begun.id}, HIGH, bob, ago=0)
    assert services.pool._conflicts.resolve(leaves.address).assigned_to == alice.id
    assert_alices(leaves, alice)
    log.sweep([begun])


def test_an_available_revision_wins_over_old_unacknowledged_assignments(
    leaves: Leaves, later: Instance, alice: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, HIGH, alice)
    leaves.pool.graft({**base, "_rev": f"2-{LOW}", "pvt_zone": "moved"}, parent=base["_rev"])
    assert later.ips.fetch(leaves.address).assigned_to is None
    assert [(leaf["_rev"], leaf["pvt_zone"]) for leaf in leaves.live] == [(f"2-{LOW}", "moved")]


def test_a_release_counts_although_the_copy_is_still_there(
    leaves: Leaves, api: TestApp, later: Instance, alice: Member
) -> None:
    base = leaves.base()
    alices = leaves.claim(base, LOW, alice)
    leaves.copy(alices, alice)
    [assigned] = [leaf for leaf in leaves.ips.leaves(leaves.address).live if leaf.assigned_to]
    released = assigned.release(alice.id, at=gregorian(), request_id=uuid4().hex)
    document = {**to_document(released), "_rev": f"3-{LOW}"}
    leaves.pool.graft({**alices, "_rev": f"3-{HIGH}"}, parent=alices["_rev"])
    leaves.pool.graft(document, parent=alices["_rev"])
    api.post_json(url(alice, leaves.address), {"data": {}}, headers=alice.headers, status=409)
    assert len(leaves.live) == 2
    assert later.ips.fetch(leaves.address).assigned_to is None
    assert [leaf["_rev"] for leaf in leaves.live] == [f"3-{LOW}"]


def test_a_release_counts_although_an_unacknowledged_assignment_followed(
    leaves: Leaves, api: TestApp, later: Instance, alice: Member, bob: Member
) -> None:
    """Alice's copy is still there, and so is a write to her assignment without a quorum."""
    base = leaves.base()
    alices = leaves.claim(base, LOW, alice)
    leaves.copy(alices, alice)
    [assigned] = [leaf for leaf in leaves.ips.leaves(leaves.address).live if leaf.assigned_to]
    released = assigned.release(alice.id, at=gregorian(), request_id=uuid4().hex)
    bobs = released.assign(bob.id, at=gregorian(), request_id=uuid4().hex)
    leaves.pool.graft({**alices, "_rev": f"3-{HIGH}"}, parent=alices["_rev"])
    leaves.pool.graft({**to_document(released), "_rev": f"3-{LOW}"}, parent=alices["_rev"])
    leaves.pool.graft({**to_document(bobs), "_rev": f"4-{LOW}"}, parent=f"3-{LOW}")
    api.post_json(url(bob, leaves.address), {"data": {}}, headers=bob.headers, status=409)
    assert len(leaves.live) == 2
    assert later.ips.fetch(leaves.address).assigned_to is None
    [leaf] = leaves.live
    assert (leaf["pvt_status"], leaf["_rev"][:2]) == ("available", "5-")


def test_an_address_with_a_write_on_the_base_revision_is_not_restored(
    withdrawn: Leaves, services: Instance, bob: Member
) -> None:
    """A writer that has read that revision may write on it until a majority has the tombstone."""
    found = withdrawn.ips.leaves(withdrawn.address)
    assert found.restorable
    withdrawn.claim(to_document(found.restorable.before), "a" * 32, bob)
    with pytest.raises(Conflict):
        services.pool._conflicts.restore(found.restorable)


def test_an_address_deleted_meanwhile_is_not_restored(
    withdrawn: Leaves, services: Instance
) -> None:
    found = withdrawn.ips.leaves(withdrawn.address)
    assert found.restorable
    deleted = {"_id": withdrawn.address, "_rev": f"2-{'b' * 32}", "_deleted": True}
    withdrawn.pool.graft(deleted, parent=found.restorable.base)
    with pytest.raises(Conflict):
        services.pool._conflicts.restore(found.restorable)


@pytest.mark.parametrize("fault", [None, faults.answer_202, faults.cut])
def test_one_of_several_old_assignments_without_a_copy_is_kept(
    leaves: Leaves,
    proxy: FaultProxy,
    proxied_settings: Settings,
    alice: Member,
    bob: Member,
    fault: Fault | None,
) -> None:
    """Neither was acknowledged. The first one is made available, and the other one is dropped."""
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    leaves.claim(base, HIGH, bob)
    if fault:
        proxy.rule(fault, "PUT", f"-dedicated_ips/{leaves.address}")
    resolver = composition.build(
        proxied_settings, clock=lambda: time.time() + GRACE
    ).pool._conflicts
    resolved = resolver.resolve(leaves.address)
    assert [leaf["_rev"] for leaf in leaves.live] == [resolved.revision]


def test_a_recent_assignment_in_conflict_with_an_old_one_is_not_resolved(
    leaves: Leaves, services: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    leaves.claim(base, HIGH, bob, ago=0)
    with pytest.raises(Conflict):
        services.pool._conflicts.resolve(leaves.address)
    assert len(leaves.live) == 2


@pytest.mark.parametrize("number", [1, 2, 3], ids=["spreading", "majority", "restoring"])
def test_an_address_is_restored_only_if_a_majority_has_it(
    withdrawn: Leaves, proxy: FaultProxy, proxied_settings: Settings, number: int
) -> None:
    found = withdrawn.ips.leaves(withdrawn.address)
    assert found.restorable
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    local = withdrawn.pool.find("_local/kazoo_ips")  # the embedded server compares its revision
    if local:
        withdrawn.pool.remove("_local/kazoo_ips", local["_rev"])
    answer = proxy.rule(faults.answer_202, "PUT|POST", "-dedicated_ips/", first=number)
    with pytest.raises(DatastoreUnreachable):
        composition.build(proxied_settings).pool._conflicts.restore(found.restorable)
    assert answer.met


def test_an_assignment_is_acknowledged_although_the_copy_lacks_a_later_change(
    leaves: Leaves, later: Instance, alice: Member
) -> None:
    """The writer of the change has died before it wrote the copy."""
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    leaves.copy(leaves.pool.get(leaves.address), alice)
    [assigned] = leaves.ips.leaves(leaves.address).live
    moved = assigned.change(Changes(zone="moved"), at=gregorian(600), request_id=uuid4().hex)
    leaves.pool.graft({**to_document(moved), "_rev": f"3-{LOW}"}, parent=f"2-{LOW}")
    leaves.pool.graft({**base, "_rev": f"2-{HIGH}"}, parent=base["_rev"])
    assert len(leaves.live) == 2
    assert later.ips.fetch(leaves.address).assigned_to == alice.id
    assert [leaf["_rev"] for leaf in leaves.live] == [f"3-{LOW}"]


def test_an_old_assignment_without_a_copy_is_kept_if_it_was_changed_later(
    leaves: Leaves, later: Instance, alice: Member, bob: Member
) -> None:
    """Its request had ended when it was changed, so it was acknowledged."""
    base = leaves.base()
    [free] = leaves.ips.leaves(leaves.address).live
    leaves.claim(base, LOW, alice)
    [assigned] = leaves.ips.leaves(leaves.address).live
    moved = assigned.change(Changes(zone="moved"), at=gregorian(600), request_id=uuid4().hex)
    leaves.pool.graft({**to_document(moved), "_rev": f"3-{LOW}"}, parent=f"2-{LOW}")
    bobs = to_document(free.assign(bob.id, at=gregorian(600), request_id=uuid4().hex))
    for generation_, parent in ((2, base["_rev"]), (3, f"2-{HIGH}")):
        leaves.pool.graft({**bobs, "_rev": f"{generation_}-{HIGH}"}, parent=parent)
    assert later.ips.fetch(leaves.address).assigned_to == alice.id
    assert [leaf["_rev"] for leaf in leaves.live] == [f"3-{LOW}"]


@pytest.mark.parametrize(("old", "new"), [(LOW, HIGH), (HIGH, LOW)])
def test_a_transfer_counts_although_the_copy_of_the_previous_account_is_still_there(
    leaves: Leaves, services: Instance, alice: Member, bob: Member, old: str, new: str
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    [assigned] = leaves.ips.leaves(leaves.address).live
    leaves.copy(leaves.pool.get(leaves.address), alice)
    given = assigned.transfer(alice.id, bob.id, at=gregorian(), request_id=uuid4().hex)
    leaves.copy(to_document(given), bob)
    for ip, digest in ((assigned, old), (given, new)):
        leaves.pool.graft({**to_document(ip), "_rev": f"3-{digest}"}, parent=f"2-{LOW}")
    assert services.ips.fetch(leaves.address).assigned_to == bob.id
    assert [leaf["_rev"] for leaf in leaves.live] == [f"3-{new}"]


@pytest.mark.parametrize("unknown", [LOW, HIGH], ids=["hidden", "shown"])
def test_a_conflict_with_a_status_that_only_a_newer_release_knows_stays(
    leaves: Leaves, later: Instance, alice: Member, unknown: str
) -> None:
    base = leaves.base()
    parked = {**base, "_rev": f"2-{unknown}", "pvt_status": "parked"}
    leaves.pool.graft(parked, parent=base["_rev"])
    leaves.copy(leaves.claim(base, HIGH if unknown == LOW else LOW, alice), alice)
    with pytest.raises(Conflict):
        later.pool._conflicts.resolve(leaves.address)
    assert len(leaves.live) == 2


def test_an_assignment_without_an_account_is_not_acknowledged(
    leaves: Leaves, later: Instance, alice: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    nobodys = {**base, "_rev": f"2-{HIGH}", "pvt_status": "assigned"}
    leaves.pool.graft(nobodys, parent=base["_rev"])
    assert later.ips.fetch(leaves.address).assigned_to is None


@pytest.mark.parametrize("trail", [[], ["created"]], ids=str)
def test_a_recent_conflict_of_available_revisions_is_resolved_at_once(
    leaves: Leaves, services: Instance, trail: list[str]
) -> None:
    base = leaves.base()
    event = {"account_id": None, "request_id": "r", "at": gregorian()}
    events = [{"event": kind, **event} for kind in trail]
    for digest in (LOW, HIGH):
        fresh = {**base, "_rev": f"2-{digest}", "pvt_modified": gregorian()}
        leaves.pool.graft({**fresh, "pvt_trail": events}, parent=base["_rev"])
    services.ips.fetch(leaves.address)
    assert len(leaves.live) == 1


def test_a_recent_conflict_of_releases_is_not_resolved(
    leaves: Leaves, services: Instance, alice: Member
) -> None:
    base = leaves.base()
    for digest in (LOW, HIGH):
        leaves.release(base, digest, alice, digest)
    with pytest.raises(Conflict):
        services.pool._conflicts.resolve(leaves.address)
    assert len(leaves.live) == 2


def test_one_release_that_two_workers_have_written_is_resolved_at_once(
    leaves: Leaves, services: Instance, alice: Member
) -> None:
    base = leaves.base()
    for digest in (LOW, HIGH):
        leaves.release(base, digest, alice, "r")
    assert services.pool._conflicts.resolve(leaves.address).revision == f"2-{HIGH}"
    assert len(leaves.live) == 1


def test_of_two_releases_that_one_is_kept_that_has_removed_the_copy(
    leaves: Leaves,
    services: Instance,
    later: Instance,
    alice: Member,
    add: Callable[..., DedicatedIP],
) -> None:
    """A node that was cut off has accepted the other release, without a majority."""
    add(leaves.address)
    services.ips.assign(AssignIP(alice.id, leaves.address), "a")
    base = leaves.pool.get(leaves.address)
    services.ips.release(ReleaseIP(alice.id, leaves.address), "r")
    leaves.release(base, HIGH, alice, "other")
    assert len(leaves.live) == 2
    assert later.pool._conflicts.resolve(leaves.address).request_id == "r"


@pytest.mark.parametrize("since", [[], ["aged"]], ids=str)
def test_of_two_releases_the_committed_one_is_kept(
    leaves: Leaves, later: Instance, alice: Member, since: list[str]
) -> None:
    """Its transaction had a majority for its base, so the other release had none."""
    base = leaves.base()
    leaves.release(base, LOW, alice, "r", *since, committed=True)
    leaves.release(base, HIGH, alice, "other")
    assert later.pool._conflicts.resolve(leaves.address).revision == f"2-{LOW}"


def test_the_copy_of_a_deleted_address_is_removed(
    leaves: Leaves, services: Instance, alice: Member
) -> None:
    base = leaves.base()
    leaves.copy(leaves.claim(base, LOW, alice), alice)
    leaves.pool.remove(leaves.address, f"2-{LOW}")
    services.background._retries.schedule_check(leaves.address, alice.id)
    services.background.check_due(now=1e12)
    assert leaves.copies(alice) == 0


@pytest.mark.parametrize("ago", [0, 3600])
def test_a_copy_of_an_earlier_assignment_is_replaced_once(
    leaves: Leaves, services: Instance, alice: Member, couch: Couch, ago: int
) -> None:
    if not ago and leaves.pool.replicas > 1:
        pytest.skip("on a cluster a recent assignment is left to its request")
    claim = leaves.claim(leaves.base(), LOW, alice, ago)
    leaves.copy({**claim, "pvt_request_id": "earlier"}, alice)
    copies = []
    for _ in range(2):
        services.copies.repair(alice.id, [leaves.address])
        copies.append(couch.database(account_database(alice.id)).get(leaves.address))
    assert copies[0]["pvt_request_id"] == claim["pvt_request_id"]
    assert copies[0] == copies[1]


def test_the_conflict_of_a_copy_is_resolved(
    leaves: Leaves, services: Instance, alice: Member, couch: Couch
) -> None:
    claim = leaves.claim(leaves.base(), LOW, alice)
    leaves.copy(claim, alice)
    database = couch.database(account_database(alice.id))
    copy = database.get(leaves.address)
    database.put(copy)
    database.graft({**copy, "_rev": f"2-{HIGH}"}, parent=copy["_rev"])
    services.copies.repair(alice.id, [leaves.address])
    live = [leaf for leaf in database.leaves(leaves.address) if not leaf.get("_deleted")]
    assert len(live) == 1


@pytest.mark.parametrize("copied", [False, True])
def test_copies_of_an_unknown_status_are_not_changed(
    leaves: Leaves, services: Instance, alice: Member, copied: bool
) -> None:
    claim = leaves.claim(leaves.base(), LOW, alice)
    if copied:
        leaves.copy(claim, alice)
    owner = alice.id if not copied else None
    found = leaves.pool.get(leaves.address)
    leaves.pool.put({**found, "pvt_status": "parked", "pvt_assigned_to": owner})
    services.copies.repair(alice.id, [leaves.address])
    assert leaves.copies(alice) == copied


@pytest.mark.parametrize("quorum", [False, True])
def test_on_a_cluster_a_missing_copy_is_written_if_a_majority_has_the_assignment(
    leaves: Leaves, proxy: FaultProxy, proxied_settings: Settings, alice: Member, quorum: bool
) -> None:
    leaves.claim(leaves.base(), LOW, alice)
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    if not quorum:
        proxy.rule(faults.answer_202, "PUT", f"-dedicated_ips/{leaves.address}", times=None)
    composition.build(proxied_settings).copies.repair(alice.id, [leaves.address])
    assert leaves.copies(alice) == quorum


def test_on_a_cluster_no_copy_is_written_of_an_assignment_in_conflict(
    leaves: Leaves, proxy: FaultProxy, proxied_settings: Settings, alice: Member, bob: Member
) -> None:
    """A read from a majority may miss the other revision, which may be the acknowledged one."""
    base = leaves.base()
    leaves.claim(base, LOW, alice)
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)

    def write_conflict(forward: Forward) -> Reply:
        reply = forward()
        leaves.claim(base, HIGH, bob)
        return reply

    proxy.rule(write_conflict, "PUT", f"-dedicated_ips/{leaves.address}")
    composition.build(proxied_settings).copies.repair(alice.id, [leaves.address])
    assert len(leaves.live) == 2
    assert leaves.copies(alice) == 0


@pytest.mark.parametrize("copied", [False, True])
def test_copies_are_not_repaired_while_the_pool_document_is_in_conflict(
    leaves: Leaves, services: Instance, alice: Member, bob: Member, copied: bool
) -> None:
    """The copy decides the conflict. A repair that writes or removes a copy would change that."""
    base = leaves.base()
    alices = leaves.claim(base, LOW if copied else HIGH, alice)
    leaves.claim(base, HIGH if copied else LOW, bob)
    if copied:
        leaves.copy(alices, alice)
    services.copies.repair(alice.id, [leaves.address])
    assert leaves.copies(alice) == copied


def test_on_a_cluster_the_copy_of_a_recent_assignment_is_left_to_its_request(
    leaves: Leaves, proxy: FaultProxy, proxied_settings: Settings, alice: Member
) -> None:
    claim = leaves.claim(leaves.base(), LOW, alice, ago=0)
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    composition.build(proxied_settings).copies.repair(alice.id, [leaves.address])
    assert [leaf["_rev"] for leaf in leaves.live] == [claim["_rev"]], (
        "CouchDB would refuse a release"
    )
    assert leaves.copies(alice) == 0
    later = composition.build(proxied_settings, clock=lambda: time.time() + GRACE)
    later.copies.repair(alice.id, [leaves.address])
    assert leaves.copies(alice) == 1


@pytest.mark.parametrize(
    ("after", "stays"),
    [
        ([], False),
        ([{"event": "undone", "account_id": "a", "request_id": "r", "at": 2}], False),
        ([{"event": "undone", "account_id": "a", "request_id": "s", "at": 2}], True),
        ([{"event": "released", "account_id": "a", "request_id": "s", "at": 3}], True),
    ],
)
def test_a_deletion_stays_when_an_earlier_state_was_written_beside_it(
    leaves: Leaves,
    services: Instance,
    caplog: pytest.LogCaptureFixture,
    after: list[Document],
    stays: bool,
) -> None:
    caplog.set_level("INFO", "kazoo_ips.audit")
    created = {"event": "created", "request_id": "c", "at": 1}
    assigned = {"event": "assigned", "account_id": "a", "request_id": "r", "at": 2}
    deleted = {"event": "deleted", "request_id": "d", "at": 4}
    leaves.pool.put({**leaves.base(), "pvt_trail": [created]})
    base = leaves.pool.get(leaves.address)
    deletion = {**base, "_rev": f"3-{HIGH}", "pvt_trail": [created, assigned, deleted]}
    leaves.pool.graft({**deletion, "_deleted": True}, parent=base["_rev"])
    again = {**base, "_rev": f"3-{LOW}", "pvt_trail": [created, *after]}
    leaves.pool.graft(again, parent=base["_rev"])
    if stays:
        assert services.pool._conflicts.resolve(leaves.address).revision == again["_rev"]
    else:
        with pytest.raises(IPNotFound):
            services.pool._conflicts.resolve(leaves.address)
    assert bool(leaves.live) == stays
    assert ("conflict_resolved" in caplog.text) != stays


@pytest.mark.parametrize("kept", [False, True], ids=["empty tombstone", "trail kept"])
def test_an_address_stays_beside_a_deletion_without_an_event_of_its_own(
    leaves: Leaves, services: Instance, kept: bool
) -> None:
    """Another program has deleted the address at an unknown time."""
    created = {"event": "created", "request_id": "c", "at": 1}
    leaves.pool.put({**leaves.base(), "pvt_trail": [created]})
    base = leaves.pool.get(leaves.address)
    tombstone = base if kept else {"_id": leaves.address}
    deletion = {**tombstone, "_rev": f"3-{HIGH}", "_deleted": True}
    leaves.pool.graft(deletion, parent=base["_rev"])
    leaves.pool.graft({**base, "_rev": f"3-{LOW}"}, parent=base["_rev"])
    assert services.pool._conflicts.resolve(leaves.address).revision == f"3-{LOW}"


def test_a_recent_conflict_is_shown_and_not_written_to(
    leaves: Leaves, services: Instance, alice: Member, bob: Member
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice, ago=0)
    leaves.claim(base, HIGH, bob, ago=0)
    assert services.ips.fetch(leaves.address).assigned_to == bob.id
    for release in (
        lambda: services.ips.release(ReleaseIP(bob.id, leaves.address), uuid4().hex),
        lambda: services.ips.release_all(
            ReleaseIPs(bob.id, (leaves.address, "192.0.2.250")), uuid4().hex
        ),
    ):
        with pytest.raises(Conflict):
            release()
    assert len(leaves.live) == 2


@pytest.mark.parametrize("quantity", [1, 2])
def test_an_address_in_a_recent_conflict_is_not_allocated(
    leaves: Leaves, services: Instance, alice: Member, bob: Member, quantity: int
) -> None:
    base = leaves.base()
    leaves.claim(base, LOW, alice, ago=0)
    leaves.pool.graft({**base, "_rev": f"2-{HIGH}"}, parent=base["_rev"])
    services.pool.create(CreateIP("192.0.2.250", "us-east", "proxy1.example.com"), uuid4().hex)
    command = AllocateIPs(bob.id, quantity)
    if quantity == 1:
        [allocated] = services.allocation.allocate(command, uuid4().hex)
        assert allocated.address == "192.0.2.250"
    else:
        with pytest.raises(InsufficientIPs):
            services.allocation.allocate(command, uuid4().hex)
    assert len(leaves.live) == 2


@pytest.mark.parametrize("written", ["2001:DB8::FFFF", "2001:db8:0::ffff", "no address"])
def test_an_address_that_the_pool_lacks_is_named_as_the_client_wrote_it(
    services: Instance, written: str
) -> None:
    with pytest.raises(IPNotFound) as error:
        services.ips.fetch(written)
    assert error.value.cause == written


def test_a_deleted_address_is_not_found_among_several(
    leaves: Leaves, services: Instance, alice: Member
) -> None:
    base = leaves.base()
    leaves.pool.remove(leaves.address, base["_rev"])
    with pytest.raises(ValidationFailed) as failed:
        services.ips.assign_all(AssignIPs(alice.id, (leaves.address, "192.0.2.250")), uuid4().hex)
    assert set(failed.value.errors) == {"ips.0", "ips.1"}


@pytest.fixture(params=[(LOW, HIGH), (HIGH, LOW)], ids=["hidden", "shown"])
def two_marks(
    request: Any, leaves: Leaves, couch: Couch, alice: Member
) -> Iterator[tuple[TransactionLog, list[Transaction]]]:
    """Two releases of several addresses have marked one address, on separated nodes."""
    log = TransactionLog(Records(couch))
    base = leaves.claim(leaves.base(), "a" * 32, alice)
    leaves.copy(base, alice)
    releases = []
    for digest in request.param:
        begun = log.begin(
            Action.RELEASE, alice.id, uuid4().hex, gregorian(), [leaves.address, "192.0.2.250"]
        )
        marked = {**base, "_rev": f"3-{digest}", "pvt_transaction": begun.id}
        leaves.pool.graft(marked, parent=base["_rev"])
        releases.append(begun)
    yield log, releases
    log.sweep([found for each in releases if (found := log.find(each.id))])


def test_the_marks_of_pending_releases_stay(
    two_marks: tuple[TransactionLog, list[Transaction]], leaves: Leaves, later: Instance
) -> None:
    with pytest.raises(Conflict):
        later.pool._conflicts.resolve(leaves.address)
    assert len(leaves.live) == 2


def test_the_mark_of_a_committed_release_is_kept(
    two_marks: tuple[TransactionLog, list[Transaction]], leaves: Leaves, later: Instance
) -> None:
    log, [committed, _pending] = two_marks
    log.commit(committed, committed.addresses)
    assert later.pool._conflicts.resolve(leaves.address).transaction == committed.id
    assert [leaf["pvt_transaction"] for leaf in leaves.live] == [committed.id]


def test_a_mark_without_a_commit_is_dropped_when_its_release_is_aborted(
    two_marks: tuple[TransactionLog, list[Transaction]], leaves: Leaves, later: Instance
) -> None:
    log, releases = two_marks
    for release in releases:
        log.abort(release)
    later.pool._conflicts.resolve(leaves.address)
    assert [leaf["pvt_status"] for leaf in leaves.live] == ["assigned"]


def test_a_committed_release_is_finished_although_another_mark_is_shown(
    two_marks: tuple[TransactionLog, list[Transaction]], leaves: Leaves, settings: Settings
) -> None:
    log, [committed, _pending] = two_marks
    log.commit(committed, committed.addresses)
    clock = Clock()
    clock.ahead = LEASE + 5
    composition.build(settings, clock=clock).background.recover()
    released = [leaf for leaf in leaves.live if leaf["pvt_status"] == "available"]
    assert [leaf["pvt_request_id"] for leaf in released] == [committed.request_id]


@pytest.mark.parametrize(
    ("kind", "status", "one"),
    [
        ("released", Status.AVAILABLE, True),
        ("released", Status.ASSIGNED, False),
        ("changed", Status.AVAILABLE, False),
    ],
    ids=["a release", "another program has assigned it since", "a change"],
)
def test_revisions_with_the_same_last_event_are_one_release_only_if_it_is_one(
    kind: str, status: Status, one: bool
) -> None:
    trail = (Event(kind, "alice", 1, "r", 2),)
    live = [
        DedicatedIP("192.0.2.1", "z", "h", 1, 1, status, revision=revision, trail=trail)
        for revision in ("2-a", "2-b")
    ]
    assert _is_one_release(live) is one


def test_a_release_of_no_account_s_address_is_not_acknowledged(services: Instance) -> None:
    """Another program had assigned the address to nobody."""
    conflicts = services.ips._reader._conflicts
    assert not conflicts._is_acknowledged_release("192.0.2.1", Event("released", None, 1, "r", 2))
