"""The addresses that an allocation can choose from.

If all clients took the first available address, they would compete for it. In a model of 32
concurrent clients, that takes 16 attempts for each address. If each client takes a random one of
128 addresses, it takes 1.1 attempts. So the choice is random within a window of the list, and the
window starts at a random position near the start of the list. A view may lag: it only proposes
addresses, and the pool documents decide.

This module proposes available addresses first. If they are too few, it adds those that have
rested, and those whose reservation is over. If these are too few as well, it adds the addresses
that have rested longest, in the zones whose settings permit that (`takes_oldest`). It proposes no
other address that has to rest.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import islice
from types import MappingProxyType

from kazoo_ips.model import AllocateIPs, DedicatedIP, Listing, Scope, Status
from kazoo_ips.repositories.expiries import Expiry, ExpiryRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.states.places import PlaceService

WINDOW = 256
"""Number of addresses to choose from: four times the number of concurrent clients expected."""
_ZONES_TTL = 10.0
"""Seconds for which the names of the zones that have available addresses are kept."""
_OF_A_HOST = 128
"""Number of addresses of a host to choose from, if each address has to be on another host."""
NO_ROOMS: Mapping[str, int] = MappingProxyType({})
_MOST_EXPIRED = 2000
"""Maximum number of ended rests and reservations that are read to find different hosts."""


class SupplyService:
    """Proposes addresses for allocations.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        views: ListRepository,
        expiries: ExpiryRepository,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._views = views
        self._expiries = expiries
        self._places = places
        self._now = now
        self._known_zones: tuple[float, list[str]] | None = None

    def propose(
        self,
        command: AllocateIPs,
        taken: Sequence[DedicatedIP],
        tried: AbstractSet[str],
        rooms: Mapping[str, int] = NO_ROOMS,
    ) -> list[str]:
        """Return addresses that would complete the allocation, or fewer if there are not enough.

        :param taken: the dedicated IPs that the allocation has taken already
        :param tried: the addresses that were tried before and are left out
        :param rooms: the number of addresses that the allocation may have in some zones
        """
        wanted = command.quantity - len(taken)
        if command.distinct_hosts or command.distinct_zones:
            return self._one_each(command, taken, tried)[:wanted]
        if rooms:
            return self._in_rooms(command, taken, tried, rooms)[:wanted]
        return self._of_any(command, wanted, tried)

    def _of_any(self, command: AllocateIPs, wanted: int, tried: AbstractSet[str]) -> list[str]:
        """Return addresses of any host and zone that the command permits."""
        found = self._any(command, wanted, tried)
        if len(found) < wanted:
            found += self._ended(command, wanted - len(found), {*tried, *found})
        if len(found) < wanted:
            found += self._oldest(command, wanted - len(found), {*tried, *found})
        return found[:wanted]

    def count(self, command: AllocateIPs) -> int:
        """Return how many addresses the allocation can take, or from how many hosts or zones.

        Hosts or zones are counted if each address has to be from another host or zone.
        """
        if command.distinct_hosts or command.distinct_zones:
            return len(self._places_with_supply(command))
        zone, host = command.zone, command.host
        ended = self._expiries.count((Status.AGING, Status.RESERVED), zone, host, self._now())
        oldest = len(self._oldest(command, command.quantity, frozenset()))
        return self._views.count_available(zone, host) + ended + oldest

    def resting(self, command: AllocateIPs) -> tuple[int, int | None]:
        """Return how many addresses rest that match, and when the first of them has rested.

        The time is in Gregorian seconds.
        """
        zone, host, now = command.zone, command.host, self._now()
        count = self._expiries.count((Status.AGING,), zone, host, None)
        count -= self._expiries.count((Status.AGING,), zone, host, now)
        found = self._expiries.next(Status.AGING, zone, host, 1, since=now)
        return count, found[0].at if found else None

    def _any(self, command: AllocateIPs, wanted: int, tried: AbstractSet[str]) -> list[str]:
        size = max(WINDOW, 4 * wanted) + len(tried)
        skip = random.randrange(WINDOW)
        rows = self._views.available_window(command.zone, command.host, skip, size)
        if len(rows) < size:  # the window passes the end of the list, so start at its beginning
            rows = self._views.available_window(command.zone, command.host, 0, size + skip)
        return _shuffled(rows, tried)

    def _in_rooms(
        self,
        command: AllocateIPs,
        taken: Sequence[DedicatedIP],
        tried: AbstractSet[str],
        rooms: Mapping[str, int],
    ) -> list[str]:
        """Return addresses of all zones, and of those in `rooms` at most so many."""
        zones, proposed = self._views.zones_available(), list[str]()
        ended = self._ended_rows(None, command.host, _MOST_EXPIRED)
        zones += sorted({each.zone for each in ended} - {*zones})
        random.shuffle(zones)
        for zone in zones:
            wanted = command.quantity - len(taken) - len(proposed)
            if zone in rooms:
                wanted = min(wanted, rooms[zone] - sum(ip.zone == zone for ip in taken))
            if wanted > 0:
                proposed += self._of_any(replace(command, zone=zone), wanted, tried)
        return proposed

    def _ended(self, command: AllocateIPs, wanted: int, tried: AbstractSet[str]) -> list[str]:
        """Return addresses that have rested, or whose reservation is over."""
        rows = self._ended_rows(command.zone, command.host, max(WINDOW, 2 * wanted) + len(tried))
        return _shuffled(rows, tried)

    def _ended_rows(self, zone: str | None, host: str | None, limit: int) -> list[Expiry]:
        now = self._now()
        return [
            each
            for status in (Status.AGING, Status.RESERVED)
            for each in self._expiries.next(status, zone, host, limit, until=now)
        ]

    def _oldest(self, command: AllocateIPs, wanted: int, tried: AbstractSet[str]) -> list[str]:
        """Return addresses that still have to rest, of the zones whose settings permit that.

        The address whose rest ends first comes first.
        """
        zones = self._places.places().of(Scope.ZONE)
        permitted = {name for name, each in zones.items() if each.takes_oldest}
        if command.zone:
            permitted &= {command.zone}
        rows: list[Expiry] = []
        for zone in permitted:
            limit = wanted + len(tried)
            rows += self._expiries.next(Status.AGING, zone, command.host, limit, since=self._now())
        rows.sort(key=lambda each: each.at)
        return [each.address for each in rows if each.address not in tried][:wanted]

    # One address of each host, or of each zone.

    def _one_each(
        self, command: AllocateIPs, taken: Sequence[DedicatedIP], tried: AbstractSet[str]
    ) -> list[str]:
        """Return one address of each host, or zone, of which the allocation has none yet."""
        used = {ip.host if command.distinct_hosts else ip.zone for ip in taken}
        wanted = command.quantity - len(used)
        proposed: dict[str, str] = {}
        for name, addresses in self._places_in_turn(command, len(tried)):
            untried = [address for address in addresses if address not in tried]
            if untried and name not in used:
                proposed[name] = random.choice(untried)
            if len(proposed) >= wanted:
                return list(proposed.values())
        ended = self._ended_rows(command.zone, command.host, _MOST_EXPIRED + len(tried))
        random.shuffle(ended)
        for each in ended:
            name = each.host if command.distinct_hosts else each.zone
            if name not in used and each.address not in tried:
                proposed.setdefault(name, each.address)
        return list(proposed.values())

    def _places_in_turn(
        self, command: AllocateIPs, tried: int
    ) -> Iterator[tuple[str, Iterable[str]]]:
        """Yield hosts, or zones, that have available addresses, each with some of these.

        They are read one after the other, so that the cost does not depend on their number. The
        same name can occur again.

        :param tried: the number of addresses that were tried before
        """
        zone, host = command.zone, command.host
        limit = WINDOW + tried
        if command.distinct_hosts and host is None:
            for zones in [[zone]] if zone else self._zones_in_turn(None):
                hosts = [self._views.by_hosts_in_turn(each, _OF_A_HOST + tried) for each in zones]
                yield from _in_turn(hosts)
            # Only another program can have written an address without a zone.
            yield from self._views.by_hosts_in_turn(None, limit) if not zone else ()
        elif command.distinct_hosts and host:
            yield host, _ids(self._views.available_window(zone, host, 0, limit))
        else:
            for zones in [[zone]] if zone else self._zones_in_turn(host):
                for name in zones:
                    yield name, _ids(self._views.available_window(name, host, 0, limit))

    def _zones_in_turn(self, host: str | None) -> Iterator[list[str]]:
        """Yield the zones that have available addresses: those that are known, then the others.

        The view is read only if the known ones are not enough, so that no allocation fails because
        they are old.
        """
        known: list[str] = []
        if host is None and self._known_zones and self._known_zones[0] > time.monotonic():
            known = self._known_zones[1]
            yield random.sample(known, len(known))
        zones = self._views.zones_available(host)
        if host is None:
            self._known_zones = time.monotonic() + _ZONES_TTL, zones
        others = [each for each in zones if each not in known]
        yield random.sample(others, len(others))

    def _places_with_supply(self, command: AllocateIPs) -> set[str]:
        """Return the hosts, or the zones, that have an address for the allocation.

        Some may be missing if more have one than are needed. A host or zone whose addresses have
        all rested may be missing if more than `_MOST_EXPIRED` addresses have rested.
        """
        zone, host, distinct_hosts = command.zone, command.host, command.distinct_hosts
        if distinct_hosts and host is None:
            names = self._views.hosts_available(zone, command.quantity)
        elif distinct_hosts and host:
            names = {host} if self._views.count_available(zone, host) else set()
        else:
            names = {each for each in self._views.zones_available(host) if zone in (None, each)}
        if len(names) < command.quantity:
            ended = self._ended_rows(zone, host, _MOST_EXPIRED)
            names |= {each.host if distinct_hosts else each.zone for each in ended}
        return names


def _in_turn(
    places: Sequence[Iterator[tuple[str, list[str]]]],
) -> Iterator[tuple[str, list[str]]]:
    """Yield the first item of each iterator, then the second of each, and so on."""
    waiting = deque(places)
    while waiting:
        place = waiting.popleft()
        for item in islice(place, 1):
            yield item
            waiting.append(place)


def _ids(rows: Iterable[Listing]) -> list[str]:
    return [row.address for row in rows]


def _shuffled(rows: Iterable[Listing | Expiry], tried: AbstractSet[str]) -> list[str]:
    untried = [row.address for row in rows if row.address not in tried]
    random.shuffle(untried)
    return untried
