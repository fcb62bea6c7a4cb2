"""Dedicated IPs by their addresses, put in order on sight where a cluster left a disorder."""

from collections.abc import Sequence
from contextlib import suppress

from kazoo_ips.errors import Conflict, IPNotFound, PreconditionFailed
from kazoo_ips.model import DedicatedIP, addresses
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.pool.lists import CHUNK

_LOOKS = 3
"""Times that what a transaction has changed is read again."""


class IPReader:
    """Finds what there is, to be read or to be written to."""

    def __init__(
        self, ips: IPRepository, conflicts: ConflictResolver, recovery: RecoveryService
    ) -> None:
        self._ips = ips
        self._conflicts = conflicts
        self._recovery = recovery

    def read(self, address: str) -> DedicatedIP:
        """One dedicated IP to look at, as it is decided.

        :raises IPNotFound: it is not in the pool
        """
        ip = self._read(address)
        return self._resolved(ip) if self._recovery.is_released(ip) else ip

    def _read(self, address: str) -> DedicatedIP:
        try:
            ip = self._ips.get(address)
        except IPNotFound:
            return self._brought_back(address)
        if ip.conflicted:
            with suppress(Conflict):  # too fresh to tell; it stays marked
                return self._conflicts.resolve(ip.address)
        return ip

    def get(self, address: str) -> DedicatedIP:
        """One dedicated IP that will be written to.

        :raises IPNotFound: it is not in the pool
        :raises Conflict: it is in disorder, and too early to tell; or a transaction that has it
            is undecided
        """
        self._ips.expect_save()
        ip = self._resolved(self._read(address))
        if ip.conflicted:
            raise Conflict(ip.address)
        return ip

    def _resolved(self, ip: DedicatedIP) -> DedicatedIP:
        """It once the transaction that has it, if any, has come to its end."""
        for _ in range(_LOOKS):
            if not self._recovery.resolve([ip]):
                return ip
            ip = self._read(ip.address)
        raise Conflict(ip.address)

    def find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Those of these addresses that the pool has, to write to, by the spelling asked for.

        :raises Conflict: one is in disorder, and too early to tell; or a transaction that has it
            is undecided
        """
        found = self._find(wanted)
        changed: set[str] = set()
        for _ in range(_LOOKS):
            changed = self._recovery.resolve(found.values())
            if not changed:
                return found
            again = [a for a, ip in found.items() if ip.address in changed]
            found = {a: ip for a, ip in found.items() if a not in again} | self._find(again)
        raise Conflict(*changed)

    def _find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        found: dict[str, DedicatedIP] = {}
        for start in range(0, len(wanted), CHUNK):
            there, gone = self._ips.look_up(wanted[start : start + CHUNK])
            found |= there
            for address in gone:
                with suppress(IPNotFound):
                    found[address] = self._brought_back(address)
        for address, ip in found.items():
            if ip.conflicted:
                found[address] = self._conflicts.resolve(ip.address)
        return found

    def _brought_back(self, address: str) -> DedicatedIP:
        """An address that only its tombstone knows.

        :raises IPNotFound: it was never there, or somebody deleted it
        """
        canonical = addresses.canonical(address)
        if canonical is None:
            raise IPNotFound(address)
        try:
            return self._conflicts.resolve(canonical)
        except IPNotFound:
            raise IPNotFound(address) from None


def require_match(ip: DedicatedIP, if_match: tuple[str, ...]) -> None:
    """Go on only if a dedicated IP is at one of these revisions, where there are any.

    :raises PreconditionFailed: it is at another
    """
    if if_match and "*" not in if_match and ip.revision not in if_match:
        raise PreconditionFailed
