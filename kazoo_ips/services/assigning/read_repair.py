"""Reads of dedicated IPs that resolve conflicts and finish transactions: read repair."""

from collections.abc import Collection, Sequence
from contextlib import suppress

from kazoo_ips.errors import Conflict, IPNotFound, PreconditionFailed
from kazoo_ips.model import DedicatedIP, addresses
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.pool.lists import CHUNK

_TRIES = 3
"""Maximum number of reads of documents while a transaction changes them."""


class IPReader:
    """Reads dedicated IPs by their addresses, to return them or to write to them."""

    def __init__(
        self, ips: IPRepository, conflicts: ConflictResolver, recovery: RecoveryService
    ) -> None:
        self._ips = ips
        self._conflicts = conflicts
        self._recovery = recovery

    def read(self, address: str) -> DedicatedIP:
        """Return one dedicated IP for display, with committed transactions applied.

        :raises IPNotFound: the address is not in the pool
        """
        ip = self._read(address)
        return self._resolved(ip) if self._recovery.is_released(ip) else ip

    def _read(self, address: str) -> DedicatedIP:
        try:
            ip = self._ips.get(address)
        except IPNotFound:
            return self._restored(address)
        return self._with_conflict_resolved(ip)

    def _with_conflict_resolved(self, ip: DedicatedIP) -> DedicatedIP:
        if ip.conflicted:
            with suppress(Conflict):  # too recent to resolve; `conflicted` stays set
                return self._conflicts.resolve(ip.address)
        return ip

    def get(self, address: str) -> DedicatedIP:
        """Return one dedicated IP that is going to be written to.

        :raises IPNotFound: the address is not in the pool
        :raises Conflict: it has a conflict that is too recent to resolve, or a pending transaction
        """
        self._ips.expect_save()
        return self._unconflicted(self._resolved(self._read(address)))

    def get_to_assign(self, address: str) -> tuple[DedicatedIP, list[DedicatedIP]]:
        """Return one dedicated IP as `get` does, and the pool's other documents of its address."""
        self._ips.expect_save()
        try:
            ip, others = self._ips.get_to_assign(address)
        except IPNotFound:
            ip = self._restored(address)
            others = self.others([ip])[ip.address]
        ip = self._resolved(self._with_conflict_resolved(ip))
        return self._unconflicted(ip), others

    def expect_no_save(self) -> None:
        """Announce that this thread will not write what it has read with `get`.

        Then other threads do not wait for its write.
        """
        self._ips.expect_no_save()

    @staticmethod
    def _unconflicted(ip: DedicatedIP) -> DedicatedIP:
        """Return a dedicated IP that has no conflict.

        :raises Conflict: it has one
        """
        if ip.conflicted:
            raise Conflict(ip.address)
        return ip

    def _resolved(self, ip: DedicatedIP) -> DedicatedIP:
        """Return a dedicated IP after its transaction, if any, has ended."""
        for _ in range(_TRIES):
            if not self._recovery.resolve([ip]):
                return ip
            ip = self._read(ip.address)
        raise Conflict(ip.address)

    def find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Return dedicated IPs that are going to be written to, by the requested spelling.

        Addresses that the pool does not have are left out.

        :raises Conflict: one has a conflict that is too recent to resolve, or a pending
            transaction
        """
        changed: set[str] = set()
        for _ in range(_TRIES):
            found = self._find(wanted)
            changed = self._recovery.resolve(found.values())
            if not changed:
                return found
        raise Conflict(*changed)

    def find_each(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Return the same as `find`, without addresses that cannot be written to now."""
        left = list(wanted)
        while left:
            try:
                return self.find(left)
            except Conflict as error:
                busy = {*error.addresses}
                fewer = [address for address in left if address not in busy]
                if len(fewer) == len(left):
                    raise
                left = fewer
        return {}

    def others(self, ips: Collection[DedicatedIP]) -> dict[str, list[DedicatedIP]]:
        """Return, by document id, the pool's other documents of the same address."""
        return self._ips.others(ips)

    def _find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        found: dict[str, DedicatedIP] = {}
        for start in range(0, len(wanted), CHUNK):
            live, deleted = self._ips.look_up(wanted[start : start + CHUNK])
            found |= live
            for address in deleted:
                with suppress(IPNotFound):
                    found[address] = self._restored(address)
        for address, ip in found.items():
            if ip.conflicted:
                found[address] = self._conflicts.resolve(ip.address)
        return found

    def _restored(self, address: str) -> DedicatedIP:
        """Restore an address that only has a tombstone, and return its dedicated IP.

        :raises IPNotFound: the address was never in the pool, or a client deleted it
        """
        canonical = addresses.canonical(address)
        if canonical is None:
            raise IPNotFound(address)
        try:
            return self._conflicts.resolve(canonical)
        except IPNotFound:
            raise IPNotFound(address) from None


def require_match(ip: DedicatedIP, if_match: tuple[str, ...]) -> None:
    """Raise an error unless a dedicated IP is at one of the revisions of an If-Match header.

    :param if_match: the revisions; empty if the request has no such header
    :raises PreconditionFailed: the dedicated IP is at another revision
    """
    if if_match and "*" not in if_match and ip.revision not in if_match:
        raise PreconditionFailed
