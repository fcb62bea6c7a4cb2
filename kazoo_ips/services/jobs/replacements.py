"""Choosing available addresses that replace those of a host: of the same zone, spread over hosts.

Views only propose addresses, as in an allocation. The documents decide. Addresses of a drained
host or zone are not proposed.
"""

import random
from collections.abc import Set as AbstractSet
from itertools import chain, zip_longest

from cachetools import TTLCache

from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.states.places import PlaceService

_COUNTS_TTL = 30
"""Seconds for which the numbers of available addresses by host are cached. CouchDB takes half a
millisecond for each host, and a job needs them for each of its parts."""
_SPARE = 16
"""Addresses that are read of each host beyond its share: other clients may take some."""


class ReplacementPicker:
    """Chooses available addresses."""

    def __init__(self, views: ListRepository, places: PlaceService) -> None:
        self._views = views
        self._places = places
        self._counts: TTLCache[str, dict[str, int]] = TTLCache(100, _COUNTS_TTL)

    def available(self, zone: str, host: str) -> int:
        """Return how many addresses of a zone the accounts of a host can get."""
        return sum(self._hosts(zone, host).values())

    def pick(self, zone: str, host: str, count: int, without: AbstractSet[str]) -> list[str]:
        """Return available addresses of a zone, or fewer if there are not enough.

        Addresses that follow each other are of different hosts, as long as there are several.

        :param host: the host that the addresses must not be on
        :param without: addresses that are left out
        """
        picked: list[str] = []
        for _ in range(2):
            picked += self._spread(zone, host, count - len(picked), without | {*picked})
            if len(picked) == count:
                break
            self._counts.pop(zone, None)  # there may be more by now
        return picked

    def _spread(self, zone: str, host: str, count: int, without: AbstractSet[str]) -> list[str]:
        hosts = self._hosts(zone, host)
        chosen = []
        for name, share in shares(hosts, count).items():
            window = share + _SPARE + len(without)
            skip = random.randrange(max(1, hosts[name] - share))
            free = self._free(zone, name, skip, window, without)
            if len(free) < share:  # the window passes the end of the list
                free = self._free(zone, name, 0, window, without)
            chosen.append(free[:share])
        random.shuffle(chosen)
        chosen.sort(key=len, reverse=True)  # so that two of the longest are not left at the end
        spread = chain.from_iterable(zip_longest(*chosen))
        return [address for address in spread if address is not None]

    def _free(
        self, zone: str, host: str, skip: int, limit: int, without: AbstractSet[str]
    ) -> list[str]:
        rows = self._views.available_window(zone, host, skip, limit)
        return [row.address for row in rows if row.address not in without]

    def _hosts(self, zone: str, host: str) -> dict[str, int]:
        counts = self._counts.get(zone)
        if counts is None:
            counts = self._counts[zone] = self._views.available_by_host(zone)
        rules = self._places.places().rules
        return {
            name: n for name, n in counts.items() if name != host and not rules(zone, name).drained
        }


def shares(available: dict[str, int], count: int) -> dict[str, int]:
    """Return how many addresses to take of each host, as evenly as what is available allows.

    >>> shares({"a": 1, "b": 5, "c": 9}, 8)
    {'a': 1, 'b': 4, 'c': 3}
    """
    shared: dict[str, int] = {}
    hosts = sorted(available, key=lambda host: available[host])
    if len(hosts) > count:  # one of each of some hosts
        hosts = random.sample(hosts, count)
    for number, host in enumerate(hosts):
        share = min(available[host], -(-count // (len(hosts) - number)))
        if share:
            shared[host] = share
        count -= share
    return shared
