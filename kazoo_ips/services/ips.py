"""Creating, listing, assigning, releasing and deleting dedicated IPs.

The pool's document decides who has an address; the account's copy follows it. Several addresses
in one request are all assigned or none. Knows neither HTTP nor CouchDB.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from kazoo_ips import addresses
from kazoo_ips.errors import (
    AccountNotFound,
    Conflict,
    DatastoreMissing,
    DatastoreUnreachable,
    InsufficientIPs,
    IPAssigned,
    IPExists,
    IPNotFound,
    PreconditionFailed,
    RuleBroken,
    ValidationFailed,
)
from kazoo_ips.model import (
    AllocateIPs,
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
from kazoo_ips.repositories.journal import Claim
from kazoo_ips.services import allocation
from kazoo_ips.services.accounts import AccountService
from kazoo_ips.services.claims import ClaimService
from kazoo_ips.services.settlement import Settlement, is_copy

log = logging.getLogger(__name__)

T = TypeVar("T")

_ALLOCATIONS = 6
"""Attempts at an allocation while there seem to be enough addresses for it."""
_WRITES = 2
"""Times that a new address is written when CouchDB does not say what became of the first."""
_CHUNK = 1000
"""Addresses read or written at a time where the number is not the caller's."""


class IPService:
    """The use cases of dedicated IPs.

    :param now: the time in Gregorian seconds
    :param look_again: called with an address, and perhaps an account, that somebody should look
        at a little later
    """

    def __init__(  # noqa: PLR0913 - one for each thing it brings together
        self,
        ips: IPRepository,
        accounts: AccountService,
        claims: ClaimService,
        settlement: Settlement,
        *,
        now: Callable[[], int],
        look_again: Callable[[str, str], None],
    ) -> None:
        self._ips = ips
        self._accounts = accounts
        self._claims = claims
        self._settlement = settlement
        self._now = now
        self._look_again = look_again

    # Reading.

    def fetch(self, address: str, caller: Caller | None = None) -> DedicatedIP:
        """One dedicated IP.

        :param caller: who asks; None is somebody who may see everything
        :raises IPNotFound: not in the pool, or assigned to an account the caller may not see
        """
        ip = self._read(address)
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

    # `resumed` says that an earlier attempt at this very request may have done the work already.

    def create(self, command: CreateIP, request_id: str, *, resumed: bool = False) -> DedicatedIP:
        """Add an address to the pool.

        :raises IPExists: it is there already, in whatever spelling
        """
        if resumed:
            with suppress(IPNotFound):
                there = self._read(command.address)
                if there.request_id == request_id:
                    return there
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
        for _ in range(_WRITES):
            written = self._ips.save(ip)
            if written.outcome is Outcome.DONE:
                return replace(ip, revision=written.revision)
            added = self._created(ip, written)
            if added:
                return added
        raise DatastoreUnreachable(f"{ip.address}: not known whether added")

    def _created(self, ip: DedicatedIP, written: Written) -> DedicatedIP | None:
        """A new address of which CouchDB did not simply say that it is there; None if it is not.

        Then it can be written again: should the first write arrive after all, it is refused or
        finds its own revision, and the address is there once.
        """
        if written.revision:  # no quorum: nobody has been told of it, so it can go
            self._ips.drop(replace(ip, revision=written.revision))
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        try:
            there = self._settlement.settle(ip.address)
        except IPNotFound:
            return None
        if (there.request_id, there.created) != (ip.request_id, ip.created):
            raise IPExists(ip.address)
        return there

    def delete(self, command: DeleteIP, request_id: str, *, resumed: bool = False) -> DedicatedIP:
        """Take an address out of the pool.

        :raises IPNotFound: it is not there
        :raises IPAssigned: it is assigned and not to be released first
        :raises Conflict: somebody else's write came first
        :raises PreconditionFailed: If-Match no longer holds
        """
        if resumed:
            removed = self._ips.find_removed(command.address, request_id)
            if removed:
                return removed
        ip = self._get(command.address, command.if_match)
        if ip.status is Status.ASSIGNED:
            if not command.force:
                raise IPAssigned(ip.address)
            [ip] = self._release([ip], None, request_id)
        written = self._ips.remove(replace(ip, request_id=request_id))
        if written.outcome is Outcome.REFUSED:
            raise _lost(command.if_match, ip.address)
        if written.outcome is Outcome.UNKNOWN:
            self._deleted(replace(ip, request_id=request_id))
        return ip

    def _deleted(self, ip: DedicatedIP) -> None:
        """Make sure that an address is gone, without a word of CouchDB whether it is.

        :raises DatastoreUnreachable: it cannot be found out, or somebody keeps it alive
        """
        if not self._ips.leaves(ip.address).live:
            return
        # At the same revision: should the first write arrive after all, it is refused.
        written = self._ips.remove(ip)
        if written.outcome is not Outcome.DONE and self._ips.leaves(ip.address).live:
            raise DatastoreUnreachable(f"{ip.address}: not known whether deleted")

    # What accounts do.

    def assign(self, command: AssignIP, request_id: str, *, resumed: bool = False) -> DedicatedIP:
        """Assign one address to an account.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not available; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        if resumed:
            ip = self._read(command.address)
            if _is_done(ip, request_id, command.account_id):
                self._copy([ip], before=[])
                return ip
        ip = self._get(command.address, command.if_match)
        try:
            [assigned] = self._assign([ip], command.account_id, request_id)
        except Conflict as error:
            raise _lost(command.if_match, *error.addresses) from error
        return assigned

    def assign_all(
        self, command: AssignIPs, request_id: str, *, resumed: bool = False
    ) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not available; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if resumed:
            self._claims.recover_request(request_id)
        ips = self._find(command.addresses)
        if resumed and all(_is_done(ip, request_id, command.account_id) for ip in ips):
            return ips
        return self._assign(ips, command.account_id, request_id)

    def release(
        self, command: ReleaseIP, request_id: str, *, resumed: bool = False
    ) -> DedicatedIP:
        """Take one address back.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not the account's; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        if resumed:
            ip = self._read(command.address)
            if _is_done(ip, request_id, None):
                self._look_again(ip.address, command.account_id or "")
                return ip
        ip = self._get(command.address, command.if_match)
        try:
            [released] = self._release([ip], command.account_id, request_id)
        except Conflict as error:
            raise _lost(command.if_match, *error.addresses) from error
        return released

    def release_all(
        self, command: ReleaseIPs, request_id: str, *, resumed: bool = False
    ) -> list[DedicatedIP]:
        """Take addresses back from an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not the account's; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if resumed:
            self._claims.recover_request(request_id)
        if command.addresses is None:
            return self._release_everything(command.account_id, request_id)
        ips = self._find(command.addresses)
        if resumed and all(_is_done(ip, request_id, None) for ip in ips):
            return ips
        return self._release(ips, command.account_id, request_id)

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
            if len(rows) < _CHUNK:
                return released

    def allocate(
        self, command: AllocateIPs, request_id: str, *, resumed: bool = False
    ) -> list[DedicatedIP]:
        """Pick available addresses and assign them to an account: so many or none.

        :raises InsufficientIPs: there are not as many
        """
        if resumed:
            self._claims.recover_request(request_id)
            done = self._allocated(command.account_id, request_id)
            if done:
                return done
        for attempt in range(_ALLOCATIONS):
            allocated = self._allocate(command, request_id)
            if allocated:
                return allocated
            # Two who want most of the same few take each other's; whoever waits longer yields.
            available = self._count_available(command)
            if available < command.quantity:
                break
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise InsufficientIPs(command.quantity, min(available, command.quantity - 1))

    def _allocate(self, command: AllocateIPs, request_id: str) -> list[DedicatedIP]:
        """One attempt; empty when there were too few to be had, and then nothing is kept."""
        before: list[DedicatedIP] = []
        taken: list[DedicatedIP] = []
        tried: set[str] = set()
        notes: list[Claim] = []
        at = self._now()
        while len(taken) < command.quantity:
            proposed = allocation.propose(self._ips, command, taken, tried)
            if not proposed or (not tried and len(proposed) < command.quantity):
                self._claims.give_back(before, taken)
                self._claims.conclude(notes)
                return []
            tried.update(proposed)
            found = self._ips.find(proposed).values()
            ips = [ip for ip in found if ip.status is Status.AVAILABLE and not ip.conflicted]
            if command.quantity > 1:
                addresses_ = [ip.address for ip in ips]
                notes.append(
                    self._claims.note("assign", command.account_id, request_id, at, addresses_)
                )
            wanted = [ip.assign(command.account_id, at=at, request_id=request_id) for ip in ips]
            saved, _ = self._claims.make(ips, wanted)
            before += ips
            taken += saved
        self._copy(taken, before)
        self._conclude(notes, before, taken)
        return taken

    def _allocated(self, account_id: str, request_id: str) -> list[DedicatedIP]:
        """What a request has allocated already."""
        rows = walk(lambda q: self.list_assigned(q, account_id), ListIPs(limit=None))
        found = self._ips.find([row.address for row in rows])
        done = [ip for ip in found.values() if _is_done(ip, request_id, account_id)]
        if done:
            self._copy(done, before=[])
        return done

    def _count_available(self, command: AllocateIPs) -> int:
        if command.distinct_hosts:
            hosts = self._ips.hosts_available(command.zone)
            return sum(command.host in (None, host) for host in hosts)
        if command.distinct_zones:
            return sum(command.zone in (None, zone) for zone in self._ips.zones_available())
        return self._ips.count_available(command.zone, command.host)

    def _assign(
        self, ips: Sequence[DedicatedIP], account_id: str, request_id: str
    ) -> list[DedicatedIP]:
        at = self._now()
        assigned = _each(ips, lambda ip: ip.assign(account_id, at=at, request_id=request_id))
        notes = self._note("assign", account_id, request_id, at, ips)
        try:
            saved = self._claims.make_all(ips, assigned)
        except Conflict:
            self._claims.conclude(notes)
            raise
        self._copy(saved, ips)
        self._conclude(notes, ips, saved)
        return saved

    def _release(
        self, ips: Sequence[DedicatedIP], account_id: str | None, request_id: str
    ) -> list[DedicatedIP]:
        at = self._now()
        released = _each(ips, lambda ip: ip.release(account_id, at=at, request_id=request_id))
        notes = self._note("release", account_id or "", request_id, at, ips)
        try:
            saved = self._claims.make_all(ips, released)
        except Conflict:
            self._claims.conclude(notes)
            raise
        self._conclude(notes, ips, saved)
        self._remove_copies(ips)
        return saved

    def _conclude(
        self,
        notes: Sequence[Claim],
        before: Sequence[DedicatedIP],
        saved: Sequence[DedicatedIP],
    ) -> None:
        """Strike the notes out: the last step before the reply, after which nobody undoes it.

        :raises DatastoreUnreachable: that is not certain; so it is undone here and now
        """
        try:
            self._claims.conclude(notes)
        except DatastoreUnreachable:
            self._take_back(before, saved)
            raise

    def _take_back(self, before: Sequence[DedicatedIP], saved: Sequence[DedicatedIP]) -> None:
        """Undo what was done, copies included.

        :raises DatastoreUnreachable: it is not certain that everything is undone
        """
        self._claims.give_back(before, saved)
        self._remove_copies([ip for ip in saved if ip.assigned_to])

    def _note(
        self,
        action: str,
        account_id: str,
        request_id: str,
        at: int,
        ips: Sequence[DedicatedIP],
    ) -> list[Claim]:
        """Note several claims before they are made; one alone is done or not, and needs none."""
        if len(ips) < 2:
            return []
        addresses_ = [ip.address for ip in ips]
        return [self._claims.note(action, account_id, request_id, at, addresses_)]

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
            stale = [ip for ip in ips if not _is_current(copies.get(ip.address), ip)]
            self._ips.save_copies(stale)
        except DatastoreMissing:
            log.warning("account %s has no database, but %d addresses", owner_id, len(ips))

    # The parts they are made of.

    def _read(self, address: str) -> DedicatedIP:
        """One dedicated IP, put in order if a cluster left it in disorder.

        :raises IPNotFound: it is not in the pool
        """
        try:
            ip = self._ips.get(address)
        except IPNotFound:
            canonical = addresses.canonical(address)
            if canonical is None:
                raise
            return self._brought_back(address, canonical)
        if ip.conflicted:
            with suppress(Conflict):  # too fresh to tell; it stays marked
                return self._settlement.settle(ip.address)
        return ip

    def _brought_back(self, address: str, canonical: str) -> DedicatedIP:
        try:
            return self._settlement.settle(canonical)
        except IPNotFound:
            raise IPNotFound(address) from None

    def _get(self, address: str, if_match: tuple[str, ...]) -> DedicatedIP:
        """One dedicated IP to write to, at one of these revisions if there are any.

        :raises IPNotFound: it is not in the pool
        :raises PreconditionFailed: it is at another revision
        :raises Conflict: it is in disorder, and too early to tell
        """
        ip = self._read(address)
        if if_match and "*" not in if_match and ip.revision not in if_match:
            raise PreconditionFailed
        if ip.conflicted:
            raise Conflict(ip.address)
        return ip

    def _find(self, wanted: Sequence[str]) -> list[DedicatedIP]:
        """The dedicated IPs of these addresses to write to, in that order.

        :raises ValidationFailed: some are not in the pool; says which
        :raises Conflict: some are in disorder, and too early to tell
        """
        found, gone = self._ips.look_up(wanted)
        for address in gone:
            with suppress(IPNotFound):
                found[address] = self._brought_back(address, addresses.canonical(address) or "")
        for address, ip in found.items():
            if ip.conflicted:
                found[address] = self._settlement.settle(ip.address)

        def lookup(address: str) -> DedicatedIP:
            if address not in found:
                raise IPNotFound(address)
            return found[address]

        return _each(wanted, lookup)

    def _copy(self, saved: Sequence[DedicatedIP], before: Sequence[DedicatedIP]) -> None:
        """Write the account's copies of addresses that are certainly its own by now.

        :param before: as they were before; nothing when it is not us who assigned them just now
        :raises DatastoreUnreachable: they cannot be written; the addresses are given back
        """
        try:
            written = self._ips.save_copies(saved)
            unsure = [
                ip
                for ip, w in zip(saved, written, strict=True)
                if w.outcome is not Outcome.DONE and not self._settlement.is_acknowledged(ip)
            ]
            if not unsure:
                return
        except (DatastoreMissing, DatastoreUnreachable) as error:
            log.warning("the copies could not be written: %s", error)
        if before:
            self._take_back(before, saved)
        raise DatastoreUnreachable("the account's database does not take the copies")

    def _remove_copies(self, ips: Sequence[DedicatedIP]) -> None:
        """Remove the copies of addresses that were just released from their accounts."""
        by_owner: dict[str, list[DedicatedIP]] = {}
        for ip in ips:
            by_owner.setdefault(ip.assigned_to or "", []).append(ip)
        for owner_id, gone in by_owner.items():
            try:
                left = self._remove_copies_of(owner_id, gone)
            except DatastoreMissing:
                continue
            except DatastoreUnreachable:
                left = True
            if left:  # the address is released all the same: the pool's document decides
                log.warning("account %s: copies of released addresses are left", owner_id)
                for ip in gone:
                    self._look_again(ip.address, owner_id)

    def _remove_copies_of(self, owner_id: str, gone: Sequence[DedicatedIP]) -> bool:
        """Remove an account's copies of these very assignments; whether some may be left.

        By now an address may be the account's again, with a copy of its new assignment. And the
        copy may yet have to come, when the assignment was released before its own request ended.
        """
        copies = self._ips.copies(owner_id, [ip.address for ip in gone])
        ended = [ip for ip in gone if ip.address in copies and is_copy(copies[ip.address], ip)]
        written = self._ips.drop_copies(owner_id, [copies[ip.address] for ip in ended])
        if len(ended) < len(gone):
            self._settlement.mend_copies(owner_id, [ip.address for ip in gone])
        return len(ended) < len(gone) or any(w.outcome is not Outcome.DONE for w in written)


def _is_done(ip: DedicatedIP, request_id: str, account_id: str | None) -> bool:
    """Whether this very request has brought the address to this account, or to nobody."""
    return ip.request_id == request_id and ip.assigned_to == account_id


def _is_current(copy: DedicatedIP | None, ip: DedicatedIP) -> bool:
    """Whether a copy shows the pool's document as it is, field for field."""
    return copy is not None and replace(copy, revision=None) == replace(ip, revision=None)


def _lost(if_match: tuple[str, ...], *lost: str) -> Conflict | PreconditionFailed:
    """What to say of a write that came second: If-Match was checked in that very write."""
    return PreconditionFailed() if if_match else Conflict(*lost)


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
