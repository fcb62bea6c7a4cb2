"""Which addresses to take when the caller leaves that to us.

If everybody took the first free one, they would fight for it: a model of 32 callers at once needs
16 attempts for each address that way, and 1.1 when each takes a random one of 128. So the choice
is random within a window of the list, which begins at a random place near its start. A view may
lag: what is chosen here is a proposal, and the pool's documents decide.
"""

import random
from collections.abc import Set as AbstractSet

from kazoo_ips.model import AllocateIPs, DedicatedIP, Listing
from kazoo_ips.repositories.ips import IPRepository

WINDOW = 256
"""Addresses to choose from: four times as many as callers are expected at once."""


def propose(
    ips: IPRepository,
    command: AllocateIPs,
    taken: list[DedicatedIP],
    tried: AbstractSet[str],
) -> list[str]:
    """Addresses that would complete the allocation, fewer when there are not enough.

    :param taken: what it has already
    :param tried: what it need not try again
    """
    wanted = command.quantity - len(taken)
    if command.distinct_hosts or command.distinct_zones:
        return _one_each(ips, command, taken, tried)[:wanted]
    return _any(ips, command, wanted, tried)[:wanted]


def _any(
    ips: IPRepository, command: AllocateIPs, wanted: int, tried: AbstractSet[str]
) -> list[str]:
    size = max(WINDOW, 4 * wanted) + len(tried)
    skip = random.randrange(WINDOW)
    rows = ips.available_window(command.zone, command.host, skip, size)
    if len(rows) < size:  # the end is near: then everything is worth a look
        rows = ips.available_window(command.zone, command.host, 0, size + skip)
    return _shuffled(rows, tried)


def _one_each(
    ips: IPRepository, command: AllocateIPs, taken: list[DedicatedIP], tried: AbstractSet[str]
) -> list[str]:
    """One address of each host, or zone, that has none of the allocation yet."""
    places: list[tuple[str | None, str | None]]
    if command.distinct_hosts:
        hosts = set(ips.hosts_available(command.zone)) - {ip.host for ip in taken}
        places = [(command.zone, host) for host in hosts if command.host in (None, host)]
    else:
        zones = set(ips.zones_available()) - {ip.zone for ip in taken}
        places = [(zone, command.host) for zone in zones if command.zone in (None, zone)]
    random.shuffle(places)
    proposed: list[str] = []
    for zone, host in places:
        if len(proposed) + len(taken) == command.quantity:
            break
        rows = ips.available_window(zone, host, 0, WINDOW)
        proposed += _shuffled(rows, tried)[:1]
    return proposed


def _shuffled(rows: list[Listing], tried: AbstractSet[str]) -> list[str]:
    fresh = [row.address for row in rows if row.address not in tried]
    random.shuffle(fresh)
    return fresh
