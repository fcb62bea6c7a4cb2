"""Dedicated IPs by their addresses, put in order on sight where a cluster left a disorder."""

from collections.abc import Sequence
from contextlib import suppress

from kazoo_ips import addresses
from kazoo_ips.errors import Conflict, IPNotFound, PreconditionFailed
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.lists import CHUNK
from kazoo_ips.services.settlement import Settlement


class Lookup:
    """Finds what there is, to be read or to be written to."""

    def __init__(self, ips: IPRepository, settlement: Settlement) -> None:
        self._ips = ips
        self._settlement = settlement

    def read(self, address: str) -> DedicatedIP:
        """One dedicated IP to look at.

        :raises IPNotFound: it is not in the pool
        """
        try:
            ip = self._ips.get(address)
        except IPNotFound:
            return self._brought_back(address)
        if ip.conflicted:
            with suppress(Conflict):  # too fresh to tell; it stays marked
                return self._settlement.settle(ip.address)
        return ip

    def get(self, address: str, if_match: tuple[str, ...] = ()) -> DedicatedIP:
        """One dedicated IP that will be written to, at one of these revisions if there are any.

        :raises IPNotFound: it is not in the pool
        :raises PreconditionFailed: it is at another revision
        :raises Conflict: it is in disorder, and too early to tell
        """
        self._ips.expect_save()
        ip = self.read(address)
        if if_match and "*" not in if_match and ip.revision not in if_match:
            raise PreconditionFailed
        if ip.conflicted:
            raise Conflict(ip.address)
        return ip

    def find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Those of these addresses that the pool has, to write to, by the spelling asked for.

        :raises Conflict: one is in disorder, and too early to tell
        """
        found: dict[str, DedicatedIP] = {}
        for start in range(0, len(wanted), CHUNK):
            there, gone = self._ips.look_up(wanted[start : start + CHUNK])
            found |= there
            for address in gone:
                with suppress(IPNotFound):
                    found[address] = self._brought_back(address)
        for address, ip in found.items():
            if ip.conflicted:
                found[address] = self._settlement.settle(ip.address)
        return found

    def _brought_back(self, address: str) -> DedicatedIP:
        """An address that only its tombstone knows.

        :raises IPNotFound: it was never there, or somebody deleted it
        """
        canonical = addresses.canonical(address)
        if canonical is None:
            raise IPNotFound(address)
        try:
            return self._settlement.settle(canonical)
        except IPNotFound:
            raise IPNotFound(address) from None
