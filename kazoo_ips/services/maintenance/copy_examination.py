"""The doctor's examination of the accounts' copies: which are missing, stale or left over.

Each account has a database of its own, which takes two requests. The pool's documents of many
accounts are read at once. The doctor reads the documents of a problem again before it reports it,
because the address may have changed in between.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing
from kazoo_ips.model import DedicatedIP, ListIPs
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.maintenance.findings import Finding

CHUNK = 1000
"""Number of documents that are read at once."""
READERS = 4
"""Number of accounts that are examined at the same time."""
_ACCOUNTS = 100
"""Number of accounts of which all findings are known before the next ones are examined."""
_ALL = ListIPs(limit=None)


class CopyExaminer:
    """Compares the accounts' copies with the pool.

    :param is_fresh: whether an address was written so recently that a request may be working on it
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        lists: ListRepository,
        conflicts: ConflictResolver,
        recovery: RecoveryService,
        is_fresh: Callable[[DedicatedIP], bool],
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._lists = lists
        self._conflicts = conflicts
        self._recovery = recovery
        self._is_fresh = is_fresh

    def examine(
        self, sizes: Mapping[str, int | None], repair: bool
    ) -> Iterator[tuple[str, list[Finding]]]:
        """Yield accounts with the problems of their copies. Several are examined at a time.

        :param sizes: the accounts in their order, each with the number of its addresses; None if
            that is not known
        """
        with ThreadPoolExecutor(READERS) as readers:
            for batch in _batches(sizes):
                owned = self._owned(batch)
                several = {a for addresses_ in owned.values() for a in addresses_}
                pool = self._ips.by_id(several)[0] if several else {}
                examining = [
                    readers.submit(
                        copy_context().run,
                        self._copies_of, each, repair, owned.get(each), pool,
                    )
                    for each in batch
                ]  # fmt: skip
                for account_id, copies in zip(batch, examining, strict=True):
                    yield account_id, copies.result()

    def _owned(self, batch: Mapping[str, int | None]) -> dict[str, list[str]]:
        """Return the addresses of accounts that have few, read at once; of others nothing."""
        few = [each for each, size in batch.items() if size is not None and size <= CHUNK]
        owned: dict[str, list[str]] = {each: [] for each in few}
        for address, account_id in self._lists.assigned_to_several(few):
            owned[account_id].append(address)
        return owned

    def _copies_of(
        self,
        account_id: str,
        repair: bool,
        owned: Sequence[str] | None,
        pool: Mapping[str, DedicatedIP],
    ) -> list[Finding]:
        """Return the problems of one account's copies.

        :param owned: the addresses of the account, if they have been read
        :param pool: their documents
        """
        if owned is None:
            owned, pool = [x.address for x in self._lists.assigned_to(account_id, _ALL)], {}
        try:
            extra = sorted({*self._copies.addresses(account_id)} - {*owned})
            found = [
                finding
                for start in range(0, len(owned), CHUNK)
                for finding in self._examine_copies(
                    account_id, owned[start : start + CHUNK], pool, repair
                )
            ]
            return found + list(self._extra_copies(account_id, extra, repair))
        except DatastoreMissing:
            return []  # reported as an unknown owner
        except DatastoreForbidden:
            return [Finding("no_access", address, account_id) for address in owned or [""]]

    def _examine_copies(
        self,
        account_id: str,
        owned: Sequence[str],
        pool: Mapping[str, DedicatedIP],
        repair: bool,
    ) -> list[Finding]:
        """Return the addresses of an account that have no copy, or a copy that differs.

        :param pool: the documents of the addresses, if they have been read
        """
        pool, copies = pool or self._ips.by_id(owned)[0], self._copies.find(account_id, owned)
        wrong = self._wrong_copies(account_id, owned, pool, copies)
        if wrong:  # the address may have changed after its document was read
            pool, copies = self._ips.by_id(wrong)[0], self._copies.find(account_id, wrong)
            wrong = self._wrong_copies(account_id, wrong, pool, copies)
        under_way = self._recovery.under_way() if wrong else set()
        return [
            Finding(
                "copy_stale" if address in copies else "copy_missing",
                address,
                account_id,
                repair and self._write_copy(pool[address]),
            )
            for address in wrong
            if address not in under_way
        ]

    def _wrong_copies(
        self,
        account_id: str,
        owned: Sequence[str],
        pool: Mapping[str, DedicatedIP],
        copies: Mapping[str, DedicatedIP],
    ) -> list[str]:
        return [
            ip.address
            for ip in (pool[each] for each in owned if each in pool)
            if ip.assigned_to == account_id
            and ip.has_known_status
            and not (ip.conflicted or self._is_fresh(ip))
            and not (ip.address in copies and copies[ip.address].is_copy_of(ip))
        ]

    def _write_copy(self, ip: DedicatedIP) -> bool:
        """Write the copy; return whether the account has it."""
        self._conflicts.drop_copy(ip.assigned_to or "", ip.address)
        return self._conflicts.is_acknowledged(ip)

    def _extra_copies(
        self, account_id: str, extra: Sequence[str], repair: bool
    ) -> Iterator[Finding]:
        """Yield the copies of addresses that the account does not have.

        :param extra: the addresses of copies that are not in the view of assigned addresses
        """
        pool = self._ips.by_id(extra)[0] if extra else {}
        copies = self._copies.find(account_id, extra) if extra else {}
        for address in copies:
            ip = pool.get(address)
            if ip and (ip.assigned_to == account_id or self._is_fresh(ip) or ip.conflicted):
                continue
            if ip and not ip.has_known_status:
                continue
            if repair:
                self._conflicts.drop_copy(account_id, address)
            yield Finding("copy_extra", address, account_id, repair)


def _batches(sizes: Mapping[str, int | None]) -> Iterator[dict[str, int | None]]:
    """Yield accounts in their order, so few at a time that their documents fit into memory.

    :param sizes: the number of addresses of each; None if that is not known
    """
    batch: dict[str, int | None] = {}
    total = 0
    for account_id, size in sizes.items():
        if batch and (len(batch) == _ACCOUNTS or total + (size or 0) > CHUNK):
            yield batch
            batch, total = {}, 0
        batch[account_id] = size
        total += size or 0
    if batch:
        yield batch
