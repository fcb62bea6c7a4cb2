"""What accounts do with addresses they know: look at them, take them, give them back.

The pool's document decides who has an address; the account's copy follows it. Knows neither HTTP
nor CouchDB.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from kazoo_ips.errors import (
    AccountNotFound,
    Conflict,
    DatastoreUnreachable,
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
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.account_holdings import AccountHoldings
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.assigning.transactions import TransactionService

Change = Callable[[DedicatedIP], DedicatedIP]


class IPService:
    """The use cases of accounts.

    `attempt` is that of a request with an Idempotency-Key: what an earlier one has done is found
    and told, what it may still do is kept from happening.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        reader: IPReader,
        holdings: AccountHoldings,
        accounts: AccountService,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        *,
        now: Callable[[], int],
    ) -> None:
        self._reader = reader
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
        ip = self._reader.read(address)
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
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Assign one address to an account.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not available; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        return self._resumption.once(
            attempt, lambda: self._assign(command, request_id, attempt, dry_run)
        )

    def _assign(
        self, command: AssignIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        ip = self._reader.get(command.address)
        if is_resumed(attempt):
            done = self._resumption.assigned(ip, command.account_id, request_id)
            if done:
                return done
        require_match(ip, command.if_match)
        change = self._assigning(command.account_id, request_id)
        [after] = _changed([command.address], [ip], change)
        if dry_run:
            return after
        with _lost(command.if_match):
            return self._transactions.assign_one(ip, after)

    def assign_all(
        self,
        command: AssignIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order asked, or none.

        :raises ValidationFailed: one is unknown or not available; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if len(command.addresses) == 1:
            one = AssignIP(command.account_id, command.addresses[0])
            with _listed(one.address):
                return [self.assign(one, request_id, attempt=attempt, dry_run=dry_run)]
        done = self._done_earlier(Action.ASSIGN, command.account_id, request_id, attempt)
        if done:
            return done
        ips = self._find(command.addresses)
        change = self._assigning(command.account_id, request_id)
        after = _changed(command.addresses, ips, change)
        if dry_run:
            return after
        with _resumed(attempt):
            return self._transactions.assign([ip for ip in ips if ip], after, attempt)

    def release(
        self,
        command: ReleaseIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Take one address back.

        :raises IPNotFound: it is not in the pool
        :raises ValidationFailed: it is not the account's; says why
        :raises Conflict: somebody else was faster
        :raises PreconditionFailed: If-Match no longer holds
        """
        return self._resumption.once(
            attempt, lambda: self._release(command, request_id, attempt, dry_run)
        )

    def _release(
        self, command: ReleaseIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        ip = self._reader.get(command.address)
        if is_resumed(attempt):
            done = self._resumption.released(ip, command.account_id, request_id)
            if done:
                return done
        require_match(ip, command.if_match)
        change = self._releasing(command.account_id, request_id)
        [after] = _changed([command.address], [ip], change)
        if dry_run:
            return after
        with _lost(command.if_match):
            return self._transactions.release_one(ip, after)

    def release_all(
        self,
        command: ReleaseIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Take addresses back from an account: all of them, in the order asked, or none.

        :returns: them as they are now; where all that it has is asked for, also those that keep
            their status because this release does not know it
        :raises ValidationFailed: one is unknown or not the account's; says which and why
        :raises Conflict: somebody else was faster; nothing of this request is left
        """
        if command.addresses is not None and len(command.addresses) == 1:
            one = ReleaseIP(command.account_id, command.addresses[0])
            with _listed(one.address):
                return [self.release(one, request_id, attempt=attempt, dry_run=dry_run)]
        done = self._done_earlier(Action.RELEASE, command.account_id, request_id, attempt)
        if done:
            return done
        change = self._releasing(command.account_id, request_id)
        left: list[DedicatedIP] = []
        if command.addresses is None:
            own = self._everything(command.account_id)
            before = [ip for ip in own if ip.has_known_status]
            left = [ip for ip in own if not ip.has_known_status]
            after = [change(ip) for ip in before]
        else:
            ips = self._find(command.addresses)
            after = _changed(command.addresses, ips, change)
            before = [ip for ip in ips if ip]
        if before and not dry_run:
            with _resumed(attempt):
                after = self._release_several(before, after, attempt)
        return [*after, *left]

    def _release_several(
        self, before: list[DedicatedIP], after: list[DedicatedIP], attempt: Attempt | None
    ) -> list[DedicatedIP]:
        # Which ones it was is known from the record, when it is asked for again.
        if len(before) == 1 and attempt is None:
            return [self._transactions.release_one(before[0], after[0])]
        return self._transactions.release(before, after, attempt)

    def _everything(self, account_id: str) -> list[DedicatedIP]:
        """All that the account has at this moment, as the pool's documents say."""
        found = self._reader.find(self._holdings.candidates(account_id))
        # A view may lag behind a release that somebody else has just made.
        return [ip for ip in found.values() if ip.assigned_to == account_id]

    def _done_earlier(
        self, action: Action, account_id: str, request_id: str, attempt: Attempt | None
    ) -> list[DedicatedIP]:
        """What an earlier attempt has done; empty when none has, and then none will."""
        done = self._recovery.settle_attempts(attempt, action, account_id, request_id)
        return self._resumption.of_transaction(done) if done else []

    def _find(self, wanted: Sequence[str]) -> list[DedicatedIP | None]:
        found = self._reader.find(wanted)
        return [found.get(address) for address in wanted]

    def _assigning(self, account_id: str, request_id: str) -> Change:
        at = self._now()
        return lambda ip: ip.assign(account_id, at=at, request_id=request_id)

    def _releasing(self, account_id: str | None, request_id: str) -> Change:
        at = self._now()
        return lambda ip: ip.release(account_id, at=at, request_id=request_id)


@contextmanager
def _instead(kind: type[Exception], error: Exception | None) -> Iterator[None]:
    """Raise an error in the place of another kind; None leaves it as it is."""
    try:
        yield
    except kind as cause:
        if error is None:
            raise
        raise error from cause


def _lost(if_match: tuple[str, ...]) -> AbstractContextManager[None]:
    """Say of a write that came second what If-Match promises: it was checked in that write."""
    return _instead(Conflict, PreconditionFailed() if if_match else None)


def _resumed(attempt: Attempt | None) -> AbstractContextManager[None]:
    """Do not say of a later attempt that somebody else was faster: it may be an earlier one."""
    came_first = DatastoreUnreachable("an earlier attempt's write came first")
    return _instead(Conflict, came_first if is_resumed(attempt) else None)


def _listed(address: str) -> AbstractContextManager[None]:
    """Say of the only address of a list what is said of one among several: it is a rule broken.

    :param address: as the caller wrote it
    """
    return _instead(IPNotFound, ValidationFailed({"ips.0": _not_found(address)}))


def _not_found(address: str) -> dict[str, dict[str, str]]:
    return {"not_found": {"message": "ip not found", "value": address}}


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
                errors[f"ips.{index}"] = _not_found(address)
        except RuleBroken as error:
            rule = {"message": error.message, "value": error.address}
            errors[f"ips.{index}"] = {error.rule: rule}
    if errors:
        raise ValidationFailed(errors)
    return changed
