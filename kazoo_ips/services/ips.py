"""What accounts do with addresses they know: look at them, take them, give them back.

The pool's document decides who has an address; the account's copy follows it. Knows neither HTTP
nor CouchDB.
"""

from collections.abc import Callable, Sequence

from kazoo_ips.errors import (
    AccountNotFound,
    Conflict,
    IPNotFound,
    PreconditionFailed,
    RuleBroken,
    ValidationFailed,
)
from kazoo_ips.model import (
    AssignIP,
    AssignIPs,
    Caller,
    DedicatedIP,
    ReleaseIP,
    ReleaseIPs,
    Status,
)
from kazoo_ips.services.accounts import AccountService
from kazoo_ips.services.claims import ClaimService
from kazoo_ips.services.copies import CopyService
from kazoo_ips.services.lists import ListService
from kazoo_ips.services.lookup import Lookup
from kazoo_ips.services.transfers import TransferService

Change = Callable[[DedicatedIP], DedicatedIP]


class IPService:
    """The use cases of accounts.

    `resumed` says that an earlier attempt at this very request may have done the work already,
    `dry_run` that it is only asked what would be done: everything is decided, nothing written.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
        self,
        lookup: Lookup,
        lists: ListService,
        accounts: AccountService,
        claims: ClaimService,
        copies: CopyService,
        transfers: TransferService,
        *,
        now: Callable[[], int],
    ) -> None:
        self._lookup = lookup
        self._lists = lists
        self._accounts = accounts
        self._claims = claims
        self._copies = copies
        self._transfers = transfers
        self._now = now

    def fetch(self, address: str, caller: Caller | None = None) -> DedicatedIP:
        """One dedicated IP.

        :param caller: who asks; None is somebody who may see everything
        :raises IPNotFound: not in the pool, or assigned to an account the caller may not see
        """
        ip = self._lookup.read(address)
        owned = ip.status is Status.ASSIGNED or (ip.assigned_to and not ip.has_known_status)
        if owned and caller and not self._may_see(caller, ip.assigned_to):
            raise IPNotFound(address)
        return ip

    def _may_see(self, caller: Caller, owner_id: str | None) -> bool:
        if caller.is_operator or caller.account.id == owner_id:
            return True
        try:
            return bool(owner_id) and caller.may_see(self._accounts.fetch(owner_id or ""))
        except AccountNotFound:
            return False

    def assign(
        self,
        command: AssignIP,
        request_id: str,
        *,
        resumed: bool = False,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Assign one address to an account.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not available; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        if resumed:
            ip = self._lookup.read(command.address)
            if is_done(ip, request_id, command.account_id):
                self._copies.write([ip])
                return ip
        ip = self._lookup.get(command.address, command.if_match)
        change = self._assignment(command.account_id, request_id)
        after = _changed([command.address], [ip], change)
        if dry_run:
            return after[0]
        with _Lost(command.if_match):
            return self._transfers.assign([ip], after)[0]

    def assign_all(
        self,
        command: AssignIPs,
        request_id: str,
        *,
        resumed: bool = False,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not available; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if resumed:
            self._claims.recover_request(request_id)
        ips = self._find(command.addresses)
        if resumed and all(ip and is_done(ip, request_id, command.account_id) for ip in ips):
            return self._transfers.repeat([ip for ip in ips if ip])
        change = self._assignment(command.account_id, request_id)
        after = _changed(command.addresses, ips, change)
        if dry_run:
            return after
        return self._transfers.assign([ip for ip in ips if ip], after)

    def release(
        self,
        command: ReleaseIP,
        request_id: str,
        *,
        resumed: bool = False,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Take one address back.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not the account's; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        if resumed:
            ip = self._lookup.read(command.address)
            if is_done(ip, request_id, None):
                self._copies.look_again(ip.address, command.account_id or "")
                return ip
        ip = self._lookup.get(command.address, command.if_match)
        change = self._release(command.account_id, request_id)
        after = _changed([command.address], [ip], change)
        if dry_run:
            return after[0]
        with _Lost(command.if_match):
            return self._transfers.release([ip], after)[0]

    def release_all(
        self,
        command: ReleaseIPs,
        request_id: str,
        *,
        resumed: bool = False,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Take addresses back from an account: all of them, in the order asked, or none.

        :returns: them as they are now; where all that it has is asked for, also those that keep
            their status because this release does not know it
        :raises ValidationFailed: one is unknown or not the account's; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if resumed:
            self._claims.recover_request(request_id)
        if command.addresses is None:
            return self._release_everything(command.account_id, request_id, dry_run)
        ips = self._find(command.addresses)
        if resumed and all(ip and is_done(ip, request_id, None) for ip in ips):
            return self._transfers.repeat([ip for ip in ips if ip])
        change = self._release(command.account_id, request_id)
        after = _changed(command.addresses, ips, change)
        if dry_run:
            return after
        return self._transfers.release([ip for ip in ips if ip], after)

    def _release_everything(
        self, account_id: str, request_id: str, dry_run: bool
    ) -> list[DedicatedIP]:
        """All that the account has at this moment, as the pool's documents say."""
        listed = [row.address for row in self._lists.all_assigned(account_id)]
        found = self._lookup.find(listed)
        # A view may lag behind a release that somebody else has just made.
        own = [ip for ip in found.values() if ip.assigned_to == account_id]
        before = [ip for ip in own if ip.has_known_status]
        left = [ip for ip in own if not ip.has_known_status]
        change = self._release(account_id, request_id)
        after = [change(ip) for ip in before]
        if before and not dry_run:
            after = self._transfers.release(before, after)
        return [*after, *left]

    def _find(self, wanted: Sequence[str]) -> list[DedicatedIP | None]:
        found = self._lookup.find(wanted)
        return [found.get(address) for address in wanted]

    def _assignment(self, account_id: str, request_id: str) -> Change:
        at = self._now()
        return lambda ip: ip.assign(account_id, at=at, request_id=request_id)

    def _release(self, account_id: str | None, request_id: str) -> Change:
        at = self._now()
        return lambda ip: ip.release(account_id, at=at, request_id=request_id)


class _Lost:
    """Says of a write that came second what If-Match promises: it was checked in that write."""

    def __init__(self, if_match: tuple[str, ...]) -> None:
        self._if_match = if_match

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._if_match and isinstance(error, Conflict):
            raise PreconditionFailed from error


def is_done(ip: DedicatedIP, request_id: str, account_id: str | None) -> bool:
    """Whether this very request has brought the address to this account, or to nobody."""
    return ip.request_id == request_id and ip.assigned_to == account_id


def _changed(
    wanted: Sequence[str], ips: Sequence[DedicatedIP | None], change: Change
) -> list[DedicatedIP]:
    """Apply to each; the errors of all go out together, by place in the list.

    :param ips: what there is at each address; None is nothing
    :raises ValidationFailed: with every broken rule
    """
    changed, errors = [], {}
    for index, (address, ip) in enumerate(zip(wanted, ips, strict=True)):
        try:
            if ip:
                changed.append(change(ip))
            else:
                rule = {"message": "ip not found", "value": address}
                errors[f"ips.{index}"] = {"not_found": rule}
        except RuleBroken as error:
            rule = {"message": error.message, "value": error.address}
            errors[f"ips.{index}"] = {error.rule: rule}
    if errors:
        raise ValidationFailed(errors)
    return changed
