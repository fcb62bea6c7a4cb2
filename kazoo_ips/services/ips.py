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
    Attempt,
    Caller,
    DedicatedIP,
    ReleaseIP,
    ReleaseIPs,
    Status,
)
from kazoo_ips.repositories.transaction_log import Action
from kazoo_ips.services.accounts import AccountService
from kazoo_ips.services.holdings import Holdings
from kazoo_ips.services.lookup import Lookup
from kazoo_ips.services.recovery import RecoveryService
from kazoo_ips.services.resumption import Resumption
from kazoo_ips.services.transactions import TransactionService

Change = Callable[[DedicatedIP], DedicatedIP]


class IPService:
    """The use cases of accounts.

    `attempt` is that of a request with an Idempotency-Key: what an earlier one has done is found
    and told, what it may still do is kept from happening.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
        self,
        lookup: Lookup,
        holdings: Holdings,
        accounts: AccountService,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        *,
        now: Callable[[], int],
    ) -> None:
        self._lookup = lookup
        self._holdings = holdings
        self._accounts = accounts
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._now = now

    def fetch(self, address: str, caller: Caller | None = None) -> DedicatedIP:
        """One dedicated IP.

        :param caller: who asks; None is somebody who may see everything
        :raises IPNotFound: not in the pool, or assigned to an account the caller may not see
        """
        ip = self._lookup.read(address)
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

    def assign(
        self, command: AssignIP, request_id: str, attempt: Attempt | None = None
    ) -> DedicatedIP:
        """Assign one address to an account.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not available; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        return self._resumption.once(
            attempt,
            lambda: self._resumption.assigned(command.address, command.account_id, request_id),
            lambda: self._assign(command, request_id),
        )

    def _assign(self, command: AssignIP, request_id: str) -> DedicatedIP:
        ip = self._lookup.get(command.address, command.if_match)
        change = self._assignment(command.account_id, request_id)
        with _Lost(command.if_match):
            return self._transactions.assign_one(ip, *_changed([command.address], [ip], change))

    def assign_all(
        self, command: AssignIPs, request_id: str, attempt: Attempt | None = None
    ) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not available; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if len(command.addresses) == 1:
            [address] = command.addresses
            return [self.assign(AssignIP(command.account_id, address), request_id, attempt)]
        done = self._done_earlier(Action.ASSIGN, command.account_id, request_id, attempt)
        if done:
            return done
        ips = self._find(command.addresses)
        change = self._assignment(command.account_id, request_id)
        after = _changed(command.addresses, ips, change)
        return self._transactions.assign([ip for ip in ips if ip], after, attempt)

    def release(
        self, command: ReleaseIP, request_id: str, attempt: Attempt | None = None
    ) -> DedicatedIP:
        """Take one address back.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not the account's; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        return self._resumption.once(
            attempt,
            lambda: self._resumption.released(command.address, command.account_id, request_id),
            lambda: self._release_one(command, request_id),
        )

    def _release_one(self, command: ReleaseIP, request_id: str) -> DedicatedIP:
        ip = self._lookup.get(command.address, command.if_match)
        change = self._release(command.account_id, request_id)
        with _Lost(command.if_match):
            return self._transactions.release_one(ip, *_changed([command.address], [ip], change))

    def release_all(
        self, command: ReleaseIPs, request_id: str, attempt: Attempt | None = None
    ) -> list[DedicatedIP]:
        """Take addresses back from an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not the account's; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if command.addresses is not None and len(command.addresses) == 1:
            [address] = command.addresses
            return [self.release(ReleaseIP(command.account_id, address), request_id, attempt)]
        done = self._done_earlier(Action.RELEASE, command.account_id, request_id, attempt)
        if done:
            return done
        change = self._release(command.account_id, request_id)
        if command.addresses is None:
            before = self._everything(command.account_id)
            after = [change(ip) for ip in before]
        else:
            ips = self._find(command.addresses)
            after = _changed(command.addresses, ips, change)
            before = [ip for ip in ips if ip]
        if not before:
            return []
        # Which ones it was is known from the record, when it is asked for again.
        if len(before) == 1 and attempt is None:
            return [self._transactions.release_one(before[0], after[0])]
        return self._transactions.release(before, after, attempt)

    def _everything(self, account_id: str) -> list[DedicatedIP]:
        """All that the account has at this moment, as the pool's documents say."""
        found = self._lookup.find(self._holdings.candidates(account_id))
        # A view may lag behind a release that somebody else has just made.
        return [ip for ip in found.values() if ip.assigned_to == account_id]

    def _done_earlier(
        self, action: Action, account_id: str, request_id: str, attempt: Attempt | None
    ) -> list[DedicatedIP]:
        """What an earlier attempt has done; empty when none has, and then none will."""
        done = self._recovery.settle_attempts(attempt, action, account_id, request_id)
        return self._resumption.of_transaction(done) if done else []

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
