"""Which addresses to take when the caller leaves that to us.

If everybody took the first free one, they would fight for it: a model of 32 callers at once needs
16 attempts for each address that way, and 1.1 when each takes a random one of 128. So the choice
is random within a window of the list, which begins at a random place near its start. A view may
lag: what is chosen here is a proposal, and the pool's documents decide.
"""

import random
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, DedicatedIP, Listing, Status
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.journal import Claim
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.claims import ClaimService
from kazoo_ips.services.ips import is_done
from kazoo_ips.services.lists import ListService
from kazoo_ips.services.transfers import TransferService

WINDOW = 256
"""Addresses to choose from: four times as many as callers are expected at once."""

_ATTEMPTS = 6
"""Attempts at an allocation while there seem to be enough addresses for it."""


class AllocationService:
    """Picks available addresses and assigns them: so many or none.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913 - one for each thing it brings together
        self,
        ips: IPRepository,
        views: ListRepository,
        lists: ListService,
        claims: ClaimService,
        transfers: TransferService,
        *,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._views = views
        self._lists = lists
        self._claims = claims
        self._transfers = transfers
        self._now = now

    def allocate(
        self,
        command: AllocateIPs,
        request_id: str,
        *,
        resumed: bool = False,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Pick available addresses and assign them to an account.

        :param resumed: whether an earlier attempt at this very request may have done it already
        :param dry_run: say which it could be, and write nothing
        :raises InsufficientIPs: there are not as many
        """
        done = self._resume(command.account_id, request_id) if resumed else []
        if done:
            return done
        for attempt in range(_ATTEMPTS):
            allocated = self._attempt(command, request_id, dry_run)
            if allocated:
                return allocated
            # Two who want most of the same few take each other's; whoever waits longer yields.
            available = self._count(command)
            if available < command.quantity:
                break
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise InsufficientIPs(command.quantity, min(available, command.quantity - 1))

    def _attempt(self, command: AllocateIPs, request_id: str, dry_run: bool) -> list[DedicatedIP]:
        """One attempt; empty when there were too few to be had, and then nothing is kept."""
        before: list[DedicatedIP] = []
        taken: list[DedicatedIP] = []
        tried: set[str] = set()
        notes: list[Claim] = []
        at = self._now()
        while len(taken) < command.quantity:
            proposed = propose(self._views, command, taken, tried)
            if not proposed or (not tried and len(proposed) < command.quantity):
                if not dry_run:
                    self._claims.give_back(before, taken)
                    self._claims.conclude(notes)
                return []
            tried.update(proposed)
            found = self._ips.find(proposed).values()
            ips = [ip for ip in found if ip.status is Status.AVAILABLE and not ip.conflicted]
            after = [ip.assign(command.account_id, at=at, request_id=request_id) for ip in ips]
            if dry_run:
                taken += after
                continue
            if command.quantity > 1:
                wanted = [ip.address for ip in ips]
                account_id = command.account_id
                notes.append(self._claims.note("assign", account_id, request_id, at, wanted))
            saved, _ = self._claims.make(ips, after)
            before += ips
            taken += saved
        if not dry_run:
            self._transfers.acknowledge(before, taken, notes)
        return taken

    def _resume(self, account_id: str, request_id: str) -> list[DedicatedIP]:
        """What an earlier attempt has allocated, when it came to its end."""
        self._claims.recover_request(request_id)
        listed = [row.address for row in self._lists.all_assigned(account_id)]
        found = self._ips.find(listed).values()
        done = [ip for ip in found if is_done(ip, request_id, account_id)]
        return self._transfers.repeat(done) if done else []

    def _count(self, command: AllocateIPs) -> int:
        """How many there are to choose from, or how many places with some."""
        if command.distinct_hosts:
            hosts = self._views.hosts_available(command.zone)
            return sum(command.host in (None, host) for host in hosts)
        if command.distinct_zones:
            return sum(command.zone in (None, zone) for zone in self._views.zones_available())
        return self._views.count_available(command.zone, command.host)


def propose(
    views: ListRepository,
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
        return _one_each(views, command, taken, tried)[:wanted]
    return _any(views, command, wanted, tried)[:wanted]


def _any(
    views: ListRepository, command: AllocateIPs, wanted: int, tried: AbstractSet[str]
) -> list[str]:
    size = max(WINDOW, 4 * wanted) + len(tried)
    skip = random.randrange(WINDOW)
    rows = views.available_window(command.zone, command.host, skip, size)
    if len(rows) < size:  # the end is near: then everything is worth a look
        rows = views.available_window(command.zone, command.host, 0, size + skip)
    return _shuffled(rows, tried)


def _one_each(
    views: ListRepository, command: AllocateIPs, taken: list[DedicatedIP], tried: AbstractSet[str]
) -> list[str]:
    """One address of each host, or zone, that has none of the allocation yet."""
    places: list[tuple[str | None, str | None]]
    if command.distinct_hosts:
        hosts = set(views.hosts_available(command.zone)) - {ip.host for ip in taken}
        places = [(command.zone, host) for host in hosts if command.host in (None, host)]
    else:
        zones = set(views.zones_available()) - {ip.zone for ip in taken}
        places = [(zone, command.host) for zone in zones if command.zone in (None, zone)]
    random.shuffle(places)
    proposed: list[str] = []
    for zone, host in places:
        if len(proposed) + len(taken) == command.quantity:
            break
        rows = views.available_window(zone, host, 0, WINDOW)
        proposed += _shuffled(rows, tried)[:1]
    return proposed


def _shuffled(rows: list[Listing], tried: AbstractSet[str]) -> list[str]:
    fresh = [row.address for row in rows if row.address not in tried]
    random.shuffle(fresh)
    return fresh
