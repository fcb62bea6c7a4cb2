"""Random sequences of all changes that affect how many addresses count against a limit.

After every step, the service counts as many addresses as the test expects. It refuses a request if
and only if the request exceeds the limit.
"""

import random
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import LimitReached, ReservationExpired
from kazoo_ips.model import GREGORIAN_EPOCH as EPOCH
from kazoo_ips.model import AllocateIPs, ReleaseIP
from kazoo_ips.model.commands import AssignReserved, ReserveIPs
from kazoo_ips.model.limits import Limits
from tests.clocks import ManualClock
from tests.conftest import Member
from tests.services.test_limits import fill, settled
from tests.services.test_reservations import timed

__all__ = ["timed"]

LIMIT = 4
STEPS = 80


class Walk:
    """The expected addresses and reservations of the account."""

    def __init__(
        self, services: Instance, pool: Database, member: Member, clock: ManualClock
    ) -> None:
        self.services, self.pool, self.member, self.clock = services, pool, member, clock
        self.owned: set[str] = set()
        self.reserved: dict[str, tuple[set[str], int]] = {}

    @property
    def now(self) -> int:
        return int(self.clock.now)

    @property
    def used(self) -> int:
        """How many addresses count."""
        open_ = [ips for ips, until in self.reserved.values() if until > self.now]
        return len(self.owned | set().union(*open_))

    def allocate(self, quantity: int) -> None:
        command = AllocateIPs(self.member.id, quantity)
        with self._fits(quantity):
            self.owned |= {
                ip.address for ip in self.services.allocation.allocate(command, uuid4().hex)
            }

    def reserve(self, quantity: int) -> None:
        command = ReserveIPs(AllocateIPs(self.member.id, quantity), 100)
        with self._fits(quantity):
            made = self.services.reservations.reserve(command, uuid4().hex)
            self.reserved[made.id] = {*made.addresses}, self.now + 100

    def confirm(self, chance: random.Random) -> None:
        if not self.reserved:
            return
        reservation_id = chance.choice(sorted(self.reserved))
        ips, until = self.reserved.pop(reservation_id)
        command = AssignReserved(self.member.id, reservation_id)
        if until <= self.now:
            with pytest.raises(ReservationExpired):
                self.services.reservations.assign(command, uuid4().hex)
        else:
            self.services.reservations.assign(command, uuid4().hex)
            self.owned |= ips

    def cancel(self, chance: random.Random) -> None:
        live = sorted(i for i, (_, until) in self.reserved.items() if until > self.now)
        if live:
            reservation_id = chance.choice(live)
            self.services.reservations.cancel(self.member.id, reservation_id, uuid4().hex)
            del self.reserved[reservation_id]

    def release(self, chance: random.Random) -> None:
        if self.owned:
            address = chance.choice(sorted(self.owned))
            self.services.ips.release(ReleaseIP(self.member.id, address), uuid4().hex)
            self.owned.remove(address)

    def kazoo(self, chance: random.Random) -> None:
        """Assign or release an address as a Kazoo node does; the follower notices it."""
        document = self.pool.get(chance.choice([f"192.0.2.{n}" for n in range(1, 13)]))
        if document["pvt_status"] == "available":
            document |= {"pvt_status": "assigned", "pvt_assigned_to": self.member.id}
            self.owned.add(document["_id"])
        elif document["_id"] in self.owned:
            document |= {"pvt_status": "available"}
            del document["pvt_assigned_to"]
            self.owned.remove(document["_id"])
        self.pool.put(document)
        self.services.limits.count_others([self.services.ips.fetch(document["_id"])])

    def wait(self, seconds: int) -> None:
        """Let time pass, and make the addresses of expired reservations available."""
        self.clock.now += seconds
        for document in list(self.pool.range("", "\uffff")):
            if document.get("pvt_reserved_until", self.now + EPOCH + 1) <= self.now + EPOCH:
                marks = ("pvt_reserved_for", "pvt_reserved_until", "pvt_reservation")
                kept = {k: v for k, v in document.items() if k not in marks}
                self.pool.put({**kept, "pvt_status": "available"})

    def _fits(self, quantity: int) -> Any:
        return pytest.raises(LimitReached) if self.used + quantity > LIMIT else _nothing()


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def walk(
    timed: Instance, pool: Database, add: Any, alice: Member, clock: ManualClock
) -> Iterator[Walk]:
    """The services with twelve addresses, and a limit that every process knows."""
    fill(add, 7, start=6)
    settled(timed, clock, alice, Limits(max=LIMIT))
    yield Walk(timed, pool, alice, clock)
    timed.limits.set(alice.id, Limits(), uuid4().hex)


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_agrees_with_the_pool_after_every_step(walk: Walk, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(STEPS):
        match chance.randrange(7):
            case 0 | 1:
                walk.allocate(chance.choice([1, 1, 2]))
            case 2:
                walk.reserve(chance.choice([1, 2]))
            case 3:
                walk.confirm(chance)
            case 4:
                chance.choice([walk.cancel, walk.kazoo])(chance)
            case 5:
                walk.release(chance)
            case 6:
                walk.wait(chance.choice([1, 60]))
        assert walk.services.limits.status(walk.member.id).used == walk.used
