"""Creating, listing, assigning, releasing and deleting dedicated IPs.

The pool's document decides who has an address; the account's copy follows it. Several addresses
in one request are all assigned or none. Knows neither HTTP nor CouchDB.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from kazoo_ips import addresses
from kazoo_ips.errors import (
    AccountNotFound,
    Conflict,
    DatastoreMissing,
    DatastoreUnreachable,
    IPAssigned,
    IPExists,
    IPNotFound,
    PreconditionFailed,
    RuleBroken,
    ValidationFailed,
)
from kazoo_ips.model import (
    AssignIP,
    AssignIPs,
    Caller,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    Listing,
    ListIPs,
    Outcome,
    Page,
    ReleaseIP,
    ReleaseIPs,
    Status,
    Written,
)
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.accounts import AccountService

log = logging.getLogger(__name__)

T = TypeVar("T")
Lost = type[Conflict] | type[PreconditionFailed]

_CHUNK = 1000
"""Addresses read or written at a time where the number is not the caller's."""


class IPService:
    """The use cases of dedicated IPs.

    :param now: the time in Gregorian seconds
    """

    def __init__(
        self, ips: IPRepository, accounts: AccountService, now: Callable[[], int]
    ) -> None:
        self._ips = ips
        self._accounts = accounts
        self._now = now

    # Reading.

    def fetch(self, address: str, caller: Caller | None = None) -> DedicatedIP:
        """One dedicated IP.

        :param caller: who asks; None is somebody who may see everything
        :raises IPNotFound: not in the pool, or assigned to an account the caller may not see
        """
        ip = self._ips.get(address)
        if ip.status is Status.ASSIGNED and caller and not self._may_see(caller, ip.assigned_to):
            raise IPNotFound(address)
        return ip

    def _may_see(self, caller: Caller, owner_id: str | None) -> bool:
        if caller.is_operator or caller.account.id == owner_id:
            return True
        try:
            return bool(owner_id) and caller.may_see(self._accounts.fetch(owner_id or ""))
        except AccountNotFound:
            return False

    def list_available(self, query: ListIPs) -> Page:
        """Available addresses, by zone and address."""
        return _page(self._ips.available, query)

    def list_assigned(self, query: ListIPs, account_id: str | None = None) -> Page:
        """What an account has, or all accounts, by zone and address."""
        if account_id is None:
            return _page(self._ips.assigned, query)
        return _page(lambda q: self._ips.assigned_to(account_id, q), query)

    def list_zones(self) -> list[str]:
        """The names of the zones in use, over the whole pool."""
        return self._ips.zones()

    def list_hosts(self) -> list[str]:
        """The names of the hosts in use, over the whole pool."""
        return self._ips.hosts()

    def summary(self, host: str | None = None) -> list[tuple[Listing, Status]]:
        """The whole pool or one host's part of it, by host."""
        return self._ips.by_host(host)

    # The operator's pool.

    def create(self, command: CreateIP, request_id: str) -> DedicatedIP:
        """Add an address to the pool.

        :raises IPExists: it is there already, in whatever spelling
        """
        if ":" in command.address and self._ips.find([command.address]):
            raise IPExists(command.address)
        ip = DedicatedIP(
            command.address,
            command.zone,
            command.host,
            created=self._now(),
            modified=self._now(),
            request_id=request_id,
        )
        [saved] = self._save([ip], IPExists)
        return saved

    def delete(self, command: DeleteIP, request_id: str) -> DedicatedIP:
        """Take an address out of the pool.

        :raises IPNotFound: it is not there
        :raises IPAssigned: it is assigned and not to be released first
        :raises Conflict: somebody else's write came first
        :raises PreconditionFailed: If-Match no longer holds
        """
        ip = self._get(command.address, command.if_match)
        if ip.status is Status.ASSIGNED:
            if not command.force:
                raise IPAssigned(ip.address)
            [ip] = self._release([ip], None, request_id)
        if self._ips.remove(ip).outcome is Outcome.REFUSED:
            raise _lost(command.if_match)(ip.address)
        return ip

    # What accounts do.

    def assign(self, command: AssignIP, request_id: str) -> DedicatedIP:
        """Assign one address to an account.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not available; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        ip = self._get(command.address, command.if_match)
        [assigned] = self._assign([ip], command.account_id, request_id, _lost(command.if_match))
        return assigned

    def assign_all(self, command: AssignIPs, request_id: str) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not available; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        return self._assign(self._find(command.addresses), command.account_id, request_id)

    def release(self, command: ReleaseIP, request_id: str) -> DedicatedIP:
        """Take one address back.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not the account's; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        ip = self._get(command.address, command.if_match)
        [released] = self._release([ip], command.account_id, request_id, _lost(command.if_match))
        return released

    def release_all(self, command: ReleaseIPs, request_id: str) -> list[DedicatedIP]:
        """Take addresses back from an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not the account's; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if command.addresses is None:
            return self._release_everything(command.account_id, request_id)
        return self._release(self._find(command.addresses), command.account_id, request_id)

    def _release_everything(self, account_id: str, request_id: str) -> list[DedicatedIP]:
        released: list[DedicatedIP] = []
        while True:
            rows = self._ips.assigned_to(account_id, ListIPs(limit=_CHUNK))
            found = self._ips.find([row.address for row in rows])
            # A view may lag behind a release that somebody else has just made.
            ips = [ip for ip in found.values() if ip.assigned_to == account_id]
            if not ips:
                return released
            released += self._release(ips, account_id, request_id)

    def _assign(
        self, ips: Sequence[DedicatedIP], account_id: str, request_id: str, lost: Lost = Conflict
    ) -> list[DedicatedIP]:
        now = self._now()
        assigned = _each(ips, lambda ip: ip.assign(account_id, at=now, request_id=request_id))
        saved = self._save(assigned, lost, ips)
        self._copy(saved, before=ips)
        return saved

    def _release(
        self,
        ips: Sequence[DedicatedIP],
        account_id: str | None,
        request_id: str,
        lost: Lost = Conflict,
    ) -> list[DedicatedIP]:
        now = self._now()
        released = _each(ips, lambda ip: ip.release(account_id, at=now, request_id=request_id))
        saved = self._save(released, lost, ips)
        by_owner: dict[str, list[str]] = {}
        for ip in ips:
            by_owner.setdefault(ip.assigned_to or "", []).append(ip.address)
        for owner_id, gone in by_owner.items():
            self._ips.remove_copies(owner_id, gone)
        return saved

    def refresh_copies(self) -> tuple[int, Iterator[int]]:
        """Write the accounts' copies that are missing or differ from the pool.

        :returns: how many addresses are assigned, and an iterator that does the work and yields
            how many were looked at since
        """
        assigned = list(walk(lambda q: _page(self._ips.assigned, q), ListIPs(limit=None)))
        return len(assigned), self._refresh(assigned)

    def _refresh(self, assigned: Sequence[Listing]) -> Iterator[int]:
        for start in range(0, len(assigned), _CHUNK):
            chunk = assigned[start : start + _CHUNK]
            pool = self._ips.find([row.address for row in chunk])
            by_owner: dict[str, list[DedicatedIP]] = {}
            for ip in pool.values():
                if ip.assigned_to:
                    by_owner.setdefault(ip.assigned_to, []).append(ip)
            for owner_id, ips in by_owner.items():
                self._refresh_account(owner_id, ips)
            yield len(chunk)

    def _refresh_account(self, owner_id: str, ips: Sequence[DedicatedIP]) -> None:
        try:
            copies = self._ips.copies(owner_id, [ip.address for ip in ips])
            stale = [ip for ip in ips if not _is_copy(copies.get(ip.address), ip)]
            self._ips.save_copies(stale)
        except DatastoreMissing:
            log.warning("account %s has no database, but %d addresses", owner_id, len(ips))

    # The parts they are made of.

    def _get(self, address: str, if_match: tuple[str, ...]) -> DedicatedIP:
        """One dedicated IP, at one of these revisions if there are any.

        :raises IPNotFound: it is not in the pool
        :raises PreconditionFailed: it is at another revision
        """
        ip = self._ips.get(address)
        if if_match and "*" not in if_match and ip.revision not in if_match:
            raise PreconditionFailed
        return ip

    def _find(self, wanted: Sequence[str]) -> list[DedicatedIP]:
        """The dedicated IPs of these addresses, in that order.

        :raises ValidationFailed: some are not in the pool; says which
        """
        found = self._ips.find(wanted)

        def lookup(address: str) -> DedicatedIP:
            if address not in found:
                raise IPNotFound(address)
            return found[address]

        return _each(wanted, lookup)

    def _save(
        self,
        changed: Sequence[DedicatedIP],
        lost: Lost,
        before: Sequence[DedicatedIP] = (),
    ) -> list[DedicatedIP]:
        """Write all or none: what was written is given back when one of them was lost.

        :param lost: what to raise then
        :param before: the same dedicated IPs as they were
        """
        if len(changed) == 1:
            outcomes = [self._ips.save(changed[0])]
        else:
            outcomes = self._ips.save_all(changed)
        settled = [self._settle(ip, w) for ip, w in zip(changed, outcomes, strict=True)]
        saved = [ip for ip in settled if ip]
        if len(saved) == len(changed):
            return saved
        revisions = {ip.address: ip.revision for ip in saved}
        taken = [ip for ip in before if ip.address in revisions]
        self._ips.save_all([replace(ip, revision=revisions[ip.address]) for ip in taken])
        raise lost(*(ip.address for ip in changed if ip.address not in revisions))

    def _settle(self, ip: DedicatedIP, written: Written) -> DedicatedIP | None:
        """The dedicated IP as it was written, or None when somebody else's write stands."""
        if written.outcome is Outcome.DONE:
            return replace(ip, revision=written.revision)
        if written.outcome is Outcome.REFUSED:
            return None
        there = self._ips.get(ip.address)
        same = (there.request_id, there.status) == (ip.request_id, ip.status)
        return there if same else None

    def _copy(self, saved: Sequence[DedicatedIP], before: Sequence[DedicatedIP]) -> None:
        try:
            written = self._ips.save_copies(saved)
        except DatastoreMissing:
            written = []
        if len(written) == len(saved) and all(w.outcome is not Outcome.REFUSED for w in written):
            return
        revisions = {ip.address: ip.revision for ip in saved}
        self._ips.save_all([replace(ip, revision=revisions[ip.address]) for ip in before])
        raise DatastoreUnreachable("the account's database does not take the copies")


def _is_copy(copy: DedicatedIP | None, ip: DedicatedIP) -> bool:
    return copy is not None and replace(copy, revision=None) == replace(ip, revision=None)


def _lost(if_match: tuple[str, ...]) -> Lost:
    return PreconditionFailed if if_match else Conflict


def _each(items: Sequence[T], change: Callable[[T], DedicatedIP]) -> list[DedicatedIP]:
    """Apply to each; the errors of all go out together, by place in the list."""
    changed, errors = [], {}
    for index, item in enumerate(items):
        try:
            changed.append(change(item))
        except IPNotFound as error:
            errors[f"ips.{index}"] = {
                "not_found": {"message": "ip not found", "value": error.cause}
            }
        except RuleBroken as error:
            errors[f"ips.{index}"] = {
                error.rule: {"message": error.message, "value": error.address}
            }
    if errors:
        raise ValidationFailed(errors)
    return changed


def _page(read: Callable[[ListIPs], list[Listing]], query: ListIPs) -> Page:
    """One page, and where the next one starts if there is more."""
    if query.limit is None:
        return Page(tuple(read(query)))
    rows = read(replace(query, limit=query.limit + 1))
    items = rows[: query.limit]
    return Page(tuple(items), _after(items[-1]) if len(rows) > query.limit else None)


def _after(last: Listing) -> tuple[str, str, str]:
    canonical = addresses.canonical(last.address) or last.address
    return (last.zone, addresses.sort_key(canonical), last.address)


def walk(list_page: Callable[[ListIPs], Page], query: ListIPs) -> Iterator[Listing]:
    """A list of any length, read in chunks: `query.limit` items of it, None being all."""
    left, after = query.limit, query.after
    while left is None or left > 0:
        limit = _CHUNK if left is None else min(left, _CHUNK)
        page = list_page(replace(query, limit=limit, after=after))
        yield from page.items
        after = page.after
        if after is None:
            return
        left = left and left - len(page.items)
