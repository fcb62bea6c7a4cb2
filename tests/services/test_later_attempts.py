"""A later attempt of each kind of write returns the result of the first one, and writes nothing.

Between the two attempts, nothing happens, or other requests change the same addresses.
"""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.model import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    Attempt,
    ChangeIP,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    ReleaseIP,
    ReleaseIPs,
    TransferIPs,
)
from kazoo_ips.model.changes import Changes
from kazoo_ips.model.commands import (
    AssignReserved,
    DisableIP,
    EnableIP,
    ExtendReservation,
    ReserveIPs,
)
from kazoo_ips.model.limits import Limits
from kazoo_ips.repositories.accounts import account_database
from tests.clocks import ManualClock
from tests.conftest import Member

A, B = NAMED = ("192.0.2.1", "192.0.2.2")
Result = list[tuple[object, ...]]
Write = Callable[[str, Attempt], Result]


class Scene:
    """Two accounts, two addresses, and a service whose clock the test moves."""

    def __init__(self, services: Instance, clock: ManualClock, x: Member, y: Member) -> None:
        self.services = services
        self.clock = clock
        self.x, self.y = x.id, y.id

    def hold(self) -> None:
        self.services.ips.assign_all(AssignIPs(self.x, NAMED), uuid4().hex)

    def reserve(self) -> str:
        wanted = AssignIPs(self.x, NAMED)
        return self.services.reservations.reserve(ReserveIPs(wanted, 600), uuid4().hex).id

    # Each of these methods prepares a write, and returns a function that makes it.

    def assign_one(self) -> Write:
        one = AssignIP(self.x, A)
        return lambda name, attempt: facts(self.services.ips.assign(one, name, attempt=attempt))

    def assign_one_with_a_limit(self) -> Write:
        self.services.limits.set(self.x, Limits(max=5), uuid4().hex)
        return self.assign_one()

    def assign_several(self) -> Write:
        both = AssignIPs(self.x, NAMED)
        return lambda name, attempt: facts(
            *self.services.ips.assign_all(both, name, attempt=attempt)
        )

    def allocate(self) -> Write:
        both = AllocateIPs(self.x, 2)
        return lambda name, attempt: facts(
            *self.services.allocation.allocate(both, name, attempt=attempt)
        )

    def release_one(self) -> Write:
        self.hold()
        one = ReleaseIP(self.x, A)
        return lambda name, attempt: facts(self.services.ips.release(one, name, attempt=attempt))

    def release_several(self) -> Write:
        self.hold()
        both = ReleaseIPs(self.x, NAMED)
        return lambda name, attempt: facts(
            *self.services.ips.release_all(both, name, attempt=attempt)
        )

    def transfer_one(self) -> Write:
        return self._transfer((A,))

    def transfer_several(self) -> Write:
        return self._transfer(NAMED)

    def _transfer(self, addresses: tuple[str, ...]) -> Write:
        self.hold()
        command = TransferIPs(addresses, self.x, self.y)
        return lambda name, attempt: facts(
            *self.services.transfers.transfer(command, name, attempt=attempt)
        )

    def assign_reserved(self) -> Write:
        command = AssignReserved(self.x, self.reserve())
        return lambda name, attempt: facts(
            *self.services.reservations.assign(command, name, attempt=attempt)
        )

    def change(self) -> Write:
        self.hold()
        command = ChangeIP(A, Changes(description="new"), "maintenance")
        return lambda name, attempt: facts(
            self.services.address_changes.change(command, name, attempt=attempt)
        )

    def disable(self) -> Write:
        command = DisableIP(A, "abuse")
        return lambda name, attempt: facts(
            self.services.operator_changes.disable(command, name, attempt=attempt)
        )

    def create(self) -> Write:
        self.services.pool.delete(DeleteIP(A), uuid4().hex)
        command = CreateIP(A, "us-east", "proxy1.example.com")
        return lambda name, attempt: facts(
            self.services.pool.create(command, name, attempt=attempt)
        )

    # Writes of other requests

    def others_change_it_all(self) -> None:
        """Let other requests change each address until another account has it."""
        self.clock.now += 5
        for address in NAMED:
            ip = self.services.ips.fetch(address)
            if ip.disabled:
                self.services.operator_changes.enable(EnableIP(address), uuid4().hex)
            if ip.assigned_to:
                self.services.ips.release(ReleaseIP(ip.assigned_to, address), uuid4().hex)
            self.services.ips.assign(AssignIP(self.y, address), uuid4().hex)


def facts(*ips: DedicatedIP) -> Result:
    return [(ip.address, ip.status, ip.assigned_to, ip.modified, ip.disabled) for ip in ips]


WRITES = [
    Scene.assign_one,
    Scene.assign_one_with_a_limit,
    Scene.assign_several,
    Scene.allocate,
    Scene.release_one,
    Scene.release_several,
    Scene.transfer_one,
    Scene.transfer_several,
    Scene.assign_reserved,
    Scene.change,
    Scene.disable,
    Scene.create,
]

CONFIRMED = [
    Scene.assign_one, Scene.release_one, Scene.change, Scene.disable, Scene.create,
]  # fmt: skip
"""Writes without a transaction record. If nothing was written since, a later attempt saves the
document again, because only this shows whether a majority has the document."""


@pytest.fixture
def scene(
    settings: Settings,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
) -> Iterator[Scene]:
    for address in NAMED:
        add(address)
    clock = ManualClock()
    services = composition.build(settings, clock=clock, pause=lambda seconds: None)
    yield Scene(services, clock, alice, bob)
    services.limits.set(alice.id, Limits(), uuid4().hex)


def contents(couch: Couch, pool: Database, *accounts: str) -> list[dict[str, Document]]:
    """Return the documents without revisions, which change because a later attempt confirms its
    write.
    """
    databases = [pool, *(couch.database(account_database(each)) for each in accounts)]
    revision = {"_rev": "", "pvt_written_generation": 0}
    return [
        {address: {**document, **revision} for address, document in each.get_all(NAMED).items()}
        for each in databases
    ]


@pytest.mark.parametrize("since", [False, True], ids=["at once", "after other changes"])
@pytest.mark.parametrize("prepare", WRITES, ids=lambda each: each.__name__)
def test_a_later_attempt_returns_the_first_result_and_changes_nothing(
    scene: Scene, couch: Couch, pool: Database, prepare: Callable[[Scene], Write], since: bool
) -> None:
    write, name, key = prepare(scene), uuid4().hex, uuid4().hex
    scene.clock.now += 5
    first = write(name, Attempt(key, 1))
    if since:
        scene.others_change_it_all()
    scene.clock.now += 5
    before, revision = contents(couch, pool, scene.x, scene.y), pool.get(A)["_rev"]
    assert write(name, Attempt(key, 2)) == first
    assert contents(couch, pool, scene.x, scene.y) == before
    assert (pool.get(A)["_rev"] != revision) == (prepare in CONFIRMED and not since)


@pytest.mark.parametrize("prepare", WRITES, ids=lambda each: each.__name__)
def test_a_later_attempt_executes_what_the_first_one_has_not(
    scene: Scene, couch: Couch, pool: Database, prepare: Callable[[Scene], Write]
) -> None:
    write, name = prepare(scene), uuid4().hex
    before = contents(couch, pool, scene.x, scene.y)
    done = write(name, Attempt(uuid4().hex, 2))
    after = contents(couch, pool, scene.x, scene.y)
    assert after != before
    by_request = [d for d in after[0].values() if d["pvt_trail"][-1]["request_id"] == name]
    assert len(by_request) == len(done)


def test_a_later_attempt_ends_a_reservation_when_the_first_one_said(scene: Scene) -> None:
    command = ExtendReservation(scene.x, scene.reserve(), 100)
    key, name, extend = uuid4().hex, uuid4().hex, scene.services.reservations.extend
    first = extend(command, name, attempt=Attempt(key, 1))
    scene.clock.now += 5
    assert extend(command, name, attempt=Attempt(key, 2)).until == first.until
    assert extend(command, uuid4().hex).until == first.until + 5


@pytest.mark.parametrize("request_id", ["the same", "another"])
def test_a_later_attempt_does_not_repeat_the_change_of_another_request(
    scene: Scene, request_id: str
) -> None:
    """Another request with the same content has changed the address; this one has not."""
    disable, enable = scene.services.operator_changes.disable, EnableIP(A)
    disable(DisableIP(A, "abuse"), "the same")
    scene.services.operator_changes.enable(enable, uuid4().hex)
    again = Attempt(uuid4().hex, 2)
    done = disable(DisableIP(A, "abuse"), request_id, attempt=again)
    assert done.disabled
    assert bool(scene.services.ips.fetch(A).disabled) == (request_id == "another")
