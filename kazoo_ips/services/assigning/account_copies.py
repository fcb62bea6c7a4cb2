"""The accounts' copies of their addresses, which Kazoo's billing counts.

A copy follows the pool's document and is written last, so that it is also the evidence that an
assignment was acknowledged.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace

from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing, DatastoreUnreachable
from kazoo_ips.model import DedicatedIP, Listing, Outcome
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.account_holdings import AccountHoldings, by_owner
from kazoo_ips.services.assigning.conflicts import ConflictResolver, is_copy
from kazoo_ips.services.pool.lists import CHUNK, ListService

log = logging.getLogger(__name__)

Find = Callable[[], Mapping[str, DedicatedIP]]

_MANY = 200
"""Addresses whose copies are read while the pool is written to; fewer are not worth a thread."""


class AccountCopyService:
    """Writes copies, removes them, and brings all of them up to date.

    :param look_again: called with an address and an account whose copy of it should be looked at
        a little later
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        lists: ListService,
        conflicts: ConflictResolver,
        holdings: AccountHoldings,
        look_again: Callable[[str, str], None],
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._lists = lists
        self._conflicts = conflicts
        self._holdings = holdings
        self.look_again = look_again

    def expect_change(self, account_id: str) -> None:
        """Say that one copy of an account is going to be written or removed before long."""
        self._copies.expect_change(account_id)

    def write(self, ips: Sequence[DedicatedIP]) -> None:
        """Write the copies of addresses that are certainly their accounts' by now.

        :raises DatastoreUnreachable: they are not certain to be there
        """
        try:
            written = self._copies.save(ips)
            outcomes = zip(ips, written, strict=True)
            unsure = (ip for ip, w in outcomes if w.outcome is not Outcome.DONE)
            if all(map(self._conflicts.is_acknowledged, unsure)):
                self._holdings.note(ips)
                return
        except DatastoreForbidden:
            raise  # it was told, and trying again is no use
        except (DatastoreMissing, DatastoreUnreachable) as error:
            log.warning("the copies could not be written: %s", error)
        raise DatastoreUnreachable("the account's database does not take the copies")

    def remove(self, ips: Sequence[DedicatedIP]) -> None:
        """Remove the copies of addresses as they were before they left their accounts.

        What cannot be removed now is looked at later: the pool's document has decided.
        """
        owned = by_owner(ips).items()
        self._remove_all({owner: (gone, self._finding(gone)) for owner, gone in owned})

    def mend(self, account_id: str, addresses: Iterable[str]) -> None:
        """Write the copies that an account lacks and remove those it should not have."""
        self._conflicts.repair_copies(account_id, addresses)

    @contextmanager
    def removal(self, ips: Sequence[DedicatedIP]) -> Iterator[Callable[[], None]]:
        """Do the same when what this gives is called; the copies of many are read meanwhile.

        A copy that is written after it was read is not removed, whenever that was.
        """
        if len(ips) < _MANY:
            yield lambda: self.remove(ips)
            return
        with ThreadPoolExecutor(1) as beside:
            reading = {
                owner: (gone, beside.submit(copy_context().run, self._finding(gone)).result)
                for owner, gone in by_owner(ips).items()
            }
            yield lambda: self._remove_all(reading)

    def _finding(self, of: Sequence[DedicatedIP]) -> Find:
        return lambda: self._copies.find(of[0].assigned_to or "", [ip.address for ip in of])

    def _remove_all(self, owned: Mapping[str, tuple[Sequence[DedicatedIP], Find]]) -> None:
        for owner_id, (gone, find) in owned.items():
            try:
                left = self._remove(owner_id, gone, find())
            except DatastoreMissing:
                continue
            except DatastoreUnreachable:
                left = True
            if left:
                log.warning("account %s: copies of released addresses are left", owner_id)
                for ip in gone:
                    self.look_again(ip.address, owner_id)

    def _remove(
        self, owner_id: str, gone: Sequence[DedicatedIP], copies: Mapping[str, DedicatedIP]
    ) -> bool:
        """Remove an account's copies of these very assignments; whether some may be left.

        By now an address may be the account's again, with a copy of its new assignment. And the
        copy may yet have to come, when the assignment was released before its own request ended.
        """
        ended = [ip for ip in gone if ip.address in copies and is_copy(copies[ip.address], ip)]
        written = self._copies.drop(owner_id, [copies[ip.address] for ip in ended])
        if len(ended) < len(gone):
            self._conflicts.repair_copies(owner_id, [ip.address for ip in gone])
        return len(ended) < len(gone) or any(w.outcome is not Outcome.DONE for w in written)

    def refresh(self) -> tuple[int, Iterator[int]]:
        """Write the copies that are missing or differ from the pool.

        :returns: how many addresses are assigned, and an iterator that does the work and yields
            how many were looked at since
        """
        assigned = self._lists.all_assigned()
        return len(assigned), self._refresh(assigned)

    def _refresh(self, assigned: Sequence[Listing]) -> Iterator[int]:
        for start in range(0, len(assigned), CHUNK):
            chunk = assigned[start : start + CHUNK]
            pool = self._ips.find([row.address for row in chunk]).values()
            known = (ip for ip in pool if ip.has_known_status)
            for owner_id, ips in by_owner(known).items():
                self._refresh_account(owner_id, ips)
            yield len(chunk)

    def _refresh_account(self, owner_id: str, ips: Sequence[DedicatedIP]) -> None:
        try:
            copies = self._copies.find(owner_id, [ip.address for ip in ips])
            stale = [ip for ip in ips if not _is_current(copies.get(ip.address), ip)]
            self._copies.save(stale)
        except DatastoreMissing:
            log.warning("account %s has no database, but %d addresses", owner_id, len(ips))
        except DatastoreForbidden as error:
            log.warning("account %s: %s", owner_id, error)


def _is_current(copy: DedicatedIP | None, ip: DedicatedIP) -> bool:
    """Whether a copy shows the pool's document as it is, field for field."""
    return copy is not None and replace(copy, revision=None) == replace(ip, revision=None)
