"""The history of the sample data: six weeks of assignments and releases.

The service itself writes them, with a clock that is set back. So the history, the plots and the
forecast of the sample data are like those of a real pool.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from kazoo_ips.api import examples
from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIPs, CreateIP, ReleaseIPs

DAYS = 42
"""Length of the history."""
_DAY = 86_400
_SEED = 7
"""With this seed, every installation gets the same history."""


@dataclass(frozen=True)
class Zone:
    """A zone of the sample pool, and how its use grows.

    :param network: the addresses without their last part
    :param taken: mean number of addresses that are assigned on a working day
    :param returned: the share of working days on which an account releases some
    """

    name: str
    network: str
    first: int
    last: int
    taken: float
    returned: float

    def addresses(self) -> list[CreateIP]:
        """Return the commands that add its addresses, on four hosts."""
        numbers = range(self.first, self.last + 1)
        text = "{:x}" if ":" in self.network else "{}"
        return [
            CreateIP(
                f"{self.network}{text.format(n)}",
                self.name,
                f"proxy{n % 4 + 1}.{self.name}.example.com",
            )
            for n in numbers
        ]


ZONES = [
    Zone("us-east", "192.0.2.", 100, 254, 5.2, 0.15),
    Zone("us-west", "198.51.100.", 100, 227, 2.8, 0.2),
    Zone("eu-central", "203.0.113.", 100, 179, 1.7, 0.35),
    Zone("eu-central", "2001:db8:5::", 1, 24, 0.3, 0.1),
]
CUSTOMERS = [
    "Acme Telecom", "Borealis Voice", "Cobalt Contact Center", "Delta Dental Group",
    "Evergreen Hotels", "Foxtrot Logistics",
]  # fmt: skip
"""Names of accounts below the operator. They have no users. The first one has a fixed id, which
the API's description names; the others have random ids."""


class Clock:
    """A clock that is set by hand.

    :param at: the time in Unix seconds
    """

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        """Return the time in Unix seconds."""
        return self.at


def make(build: Callable[[Clock], Instance]) -> None:
    """Create the customers and their history.

    :param build: returns services that read a clock
    """
    clock = Clock(time.time() - DAYS * _DAY)
    services, chance = build(clock), random.Random(_SEED)
    ids = [examples.OTHER_ACCOUNT_ID, *[None] * (len(CUSTOMERS) - 1)]
    customers = [
        services.accounts.create(name, f"{name.split()[0].lower()}.example.com", account_id=id_).id
        for name, id_ in zip(CUSTOMERS, ids, strict=True)
    ]
    services.bulk_additions.create_all(
        [command for zone in ZONES for command in zone.addresses()], uuid4().hex
    )
    pasts = [_ZoneHistory(services, zone, customers, chance) for zone in ZONES]
    for at in _working_hours(clock.at, chance):
        clock.at = at
        for past in pasts:
            past.simulate_day()
    services.background.work()  # as the background worker of a running service does


def _working_hours(start: float, chance: random.Random) -> Iterator[float]:
    """Yield a time on each working day of the history."""
    for day in count(1):
        at = start + day * _DAY + chance.randrange(-4 * 3600, 4 * 3600)
        if day >= DAYS:
            return
        if time.gmtime(at).tm_wday < 5:
            yield at


class _ZoneHistory:
    """Makes the history of one zone.

    :param customers: the ids of the accounts
    """

    def __init__(
        self, services: Instance, zone: Zone, customers: list[str], chance: random.Random
    ) -> None:
        self._services = services
        self._zone = zone
        self._customers = customers
        self._chance = chance
        self._free = [command.address for command in zone.addresses()]
        self._held: list[tuple[str, list[str]]] = []

    def simulate_day(self) -> None:
        """Assign addresses to an account, and release some of an account at random."""
        wanted = int(self._zone.taken + self._chance.random())
        if wanted and len(self._free) > wanted:
            account_id = self._chance.choice(self._customers)
            addresses, self._free = self._free[:wanted], self._free[wanted:]
            command = AssignIPs(account_id, tuple(addresses))
            self._services.ips.assign_all(command, uuid4().hex)
            self._held.append((account_id, addresses))
        if len(self._held) > 3 and self._chance.random() < self._zone.returned:
            account_id, addresses = self._held.pop(self._chance.randrange(len(self._held)))
            self._services.ips.release_all(ReleaseIPs(account_id, tuple(addresses)), uuid4().hex)
            self._free += addresses
