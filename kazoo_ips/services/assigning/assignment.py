"""Reading, assigning and releasing addresses that the caller names.

The pool document decides which account has an address; the account's copy follows it. This module
knows neither HTTP nor CouchDB.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from kazoo_ips.errors import (
    AccountNotFound,
    Conflict,
    DatastoreUnreachable,
    IPNotFound,
    PreconditionFailed,
    Resting,
    RuleBroken,
    ValidationFailed,
)
from kazoo_ips.model import (
    AssignIP,
    AssignIPs,
    Attempt,
    Caller,
    DedicatedIP,
    EventKind,
    ReleaseIP,
    ReleaseIPs,
    Status,
)
from kazoo_ips.observability import audit
from kazoo_ips.repositories.transaction_log import Action
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.account_holdings import AccountHoldings
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.history.times import iso_8601
from kazoo_ips.services.states.places import PlaceService

Change = Callable[[DedicatedIP], DedicatedIP]


class IPService:
    """The use cases of accounts.

    The argument `attempt` belongs to a request with an Idempotency-Key. If an earlier attempt has
    a result, the methods return it. After that earlier attempts cannot commit any more.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        reader: IPReader,
        holdings: AccountHoldings,
        accounts: AccountService,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        places: PlaceService,
        *,
        now: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._holdings = holdings
        self._accounts = accounts
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._places = places
        self._now = now

    def fetch(self, address: str, caller: Caller | None = None) -> DedicatedIP:
        """Return one dedicated IP.

        :param caller: the caller of the request; None may see every dedicated IP
        :raises IPNotFound: the address is not in the pool, or is assigned to an account that the
            caller may not see
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

        :raises IPNotFound: the address is not in the pool
        :raises ValidationFailed: the address is not available; the error says why
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises Conflict: another writer was faster
        :raises PreconditionFailed: the revision differs from If-Match
        """
        return self._resumption.once(
            attempt, lambda: self._assign(command, request_id, attempt, dry_run)
        )

    def _assign(
        self, command: AssignIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        if self._transactions.is_needed(command.account_id):
            done, _ = self._done_earlier(Action.ASSIGN, command.account_id, request_id, attempt)
            if done:
                return done[0]
        try:
            ip, others = self._reader.get_to_assign(command.address)
        except IPNotFound:
            return self._done_before_deletion(EventKind.ASSIGNED, command, request_id, attempt)
        if is_resumed(attempt):
            earlier = self._resumption.assigned(ip, command.account_id, request_id)
            if earlier:
                return earlier
        require_match(ip, command.if_match)
        change = self._assigning(command.account_id, request_id, {ip.address: others}, attempt)
        [after] = changed([command.address], [ip], change)
        if dry_run:
            self._transactions.check([after])
            return after
        with conflict_breaks(command.if_match):
            return self._transactions.assign_one(ip, after, attempt)

    def assign_all(
        self,
        command: AssignIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Assign addresses to an account: all of them, in the order of the request, or none.

        :raises ValidationFailed: an address is unknown or not available; the error says which and
            why
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises Conflict: another writer was faster; this request has changed nothing
        """
        if len(command.addresses) == 1:
            one = AssignIP(command.account_id, command.addresses[0])
            with _as_list_item(one.address):
                return [self.assign(one, request_id, attempt=attempt, dry_run=dry_run)]
        done, _ = self._done_earlier(Action.ASSIGN, command.account_id, request_id, attempt)
        if done:
            return done
        ips = self._find(command.addresses)
        others = self._reader.others([ip for ip in ips if ip])
        change = self._assigning(command.account_id, request_id, others, attempt)
        after = changed(command.addresses, ips, change)
        if dry_run:
            self._transactions.check(after)
            return after
        with own_conflict(attempt):
            return self._transactions.assign([ip for ip in ips if ip], after, attempt)

    def release(
        self,
        command: ReleaseIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Release one address.

        :raises IPNotFound: the address is not in the pool
        :raises ValidationFailed: the address is not assigned to the account; the error says why
        :raises Conflict: another writer was faster
        :raises PreconditionFailed: the revision differs from If-Match
        """
        return self._resumption.once(
            attempt, lambda: self._release(command, request_id, attempt, dry_run)
        )

    def _release(
        self, command: ReleaseIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        try:
            ip = self._reader.get(command.address)
        except IPNotFound:
            return self._done_before_deletion(EventKind.RELEASED, command, request_id, attempt)
        if is_resumed(attempt):
            done = self._resumption.released(ip, command.account_id, request_id)
            if done:
                return done
        require_match(ip, command.if_match)
        change = self._releasing(command.account_id, request_id, attempt)
        [after] = changed([command.address], [ip], change)
        if dry_run:
            return after
        with conflict_breaks(command.if_match):
            return self._transactions.release_one(ip, after)

    def _done_before_deletion(
        self,
        kind: EventKind,
        command: AssignIP | ReleaseIP,
        request_id: str,
        attempt: Attempt | None,
    ) -> DedicatedIP:
        """Return what an earlier attempt has done to an address that was deleted afterwards.

        :raises IPNotFound: no earlier attempt has done it
        """
        address, account_id = command.address, command.account_id
        if is_resumed(attempt):
            done = self._resumption.before_deletion(kind, address, account_id, request_id)
            if done:
                return done
        raise IPNotFound(address)

    def release_all(
        self,
        command: ReleaseIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Release addresses of an account: all of them, in the order of the request, or none.

        :returns: the dedicated IPs after the release; if the command names no addresses, also
            those that keep their status because this release does not know it
        :raises ValidationFailed: an address is unknown or not assigned to the account; the error
            says which and why
        :raises Conflict: another writer was faster; this request has changed nothing
        """
        if command.addresses is not None and len(command.addresses) == 1:
            one = ReleaseIP(command.account_id, command.addresses[0])
            with _as_list_item(one.address):
                return [self.release(one, request_id, attempt=attempt, dry_run=dry_run)]
        done, aborted = self._done_earlier(Action.RELEASE, command.account_id, request_id, attempt)
        if done:
            return done
        change = self._releasing(command.account_id, request_id, attempt)
        unchanged: list[DedicatedIP] = []
        if command.addresses is None:
            owned = self._owned(command.account_id, aborted)
            if command.replaced:
                held = {ip.address for ip in owned}
                owned = [ip for ip in owned if ip.replaced_by in held]
            before = [ip for ip in owned if ip.has_known_status]
            unchanged = [ip for ip in owned if not ip.has_known_status]
            after = [change(ip) for ip in before]
        else:
            ips = self._find(command.addresses)
            after = changed(command.addresses, ips, change)
            before = [ip for ip in ips if ip]
        if before and not dry_run:
            with own_conflict(attempt):
                after = self._release_several(before, after, attempt)
        return [*after, *unchanged]

    def _release_several(
        self, before: list[DedicatedIP], after: list[DedicatedIP], attempt: Attempt | None
    ) -> list[DedicatedIP]:
        # A request with an Idempotency-Key always writes a record: a later attempt reads from it
        # which addresses were released.
        if len(before) == 1 and attempt is None:
            return [self._transactions.release_one(before[0], after[0])]
        return self._transactions.release(before, after, attempt)

    def _owned(self, account_id: str, aborted: Sequence[str]) -> list[DedicatedIP]:
        """Return all dedicated IPs that the account holds now, as the pool documents say.

        :param aborted: the addresses that an aborted attempt found. If the attempt has withdrawn
            one, the address is in no view. Reading the address restores it
        """
        candidates = [*self._holdings.candidates(account_id), *aborted]
        found = self._reader.find(list(dict.fromkeys(candidates)))
        # A view may lag behind a concurrent release.
        return [ip for ip in found.values() if ip.assigned_to == account_id]

    def _done_earlier(
        self, action: Action, account_id: str, request_id: str, attempt: Attempt | None
    ) -> tuple[list[DedicatedIP], list[str]]:
        """Return the result of a committed attempt, and the addresses of aborted attempts.

        After this call no earlier attempt can commit any more.
        """
        done, aborted = self._recovery.end_attempts(attempt, action, account_id, request_id)
        return (self._resumption.of_transaction(done) if done else []), aborted

    def _find(self, wanted: Sequence[str]) -> list[DedicatedIP | None]:
        found = self._reader.find(wanted)
        return [found.get(address) for address in wanted]

    def _assigning(
        self,
        account_id: str,
        request_id: str,
        others: Mapping[str, list[DedicatedIP]],
        attempt: Attempt | None,
    ) -> Change:
        stamp = audit.stamp(self._now(), request_id, attempt)
        return lambda ip: ip.assign(
            account_id, others=others[ip.address], place=self._places.rules(ip), **stamp
        )

    def _releasing(
        self, account_id: str | None, request_id: str, attempt: Attempt | None
    ) -> Change:
        stamp = audit.stamp(self._now(), request_id, attempt)
        return lambda ip: ip.release(account_id, place=self._places.rules(ip), **stamp)


@contextmanager
def _translated(kind: type[Exception], error: Exception | None) -> Iterator[None]:
    """Raise `error` in place of any error of the class `kind`; if it is None, change nothing."""
    try:
        yield
    except kind as cause:
        if error is None:
            raise
        raise error from cause


def conflict_breaks(if_match: tuple[str, ...]) -> AbstractContextManager[None]:
    """Translate a conflict to the failed precondition, if the request has an If-Match header.

    The write itself compares the revision, so a conflict means that If-Match does not hold.
    """
    return _translated(Conflict, PreconditionFailed() if if_match else None)


@contextmanager
def own_conflict(attempt: Attempt | None) -> Iterator[None]:
    """Translate a conflict of a later attempt to an unknown outcome.

    The other write may be that of an earlier attempt of the same request.
    """
    try:
        yield
    except Conflict as conflict:
        if not is_resumed(attempt):
            raise
        raise DatastoreUnreachable("an earlier attempt's write came first") from conflict


def _as_list_item(address: str) -> AbstractContextManager[None]:
    """Report an unknown address as a validation error, as for lists of several addresses.

    :param address: the address as the client wrote it
    """
    return _translated(IPNotFound, ValidationFailed({"ips.0": _not_found(address)}))


def broken_rule(error: RuleBroken) -> dict[str, dict[str, str]]:
    """Return a broken rule in the form of a validation error."""
    message = error.message
    if isinstance(error, Resting) and error.until:
        message = f"{message} until {iso_8601(error.until) or error.until}"
    return {error.rule: {"message": message, "value": error.address}}


def _not_found(address: str) -> dict[str, dict[str, str]]:
    return {"not_found": {"message": "ip not found", "value": address}}


def changed(
    wanted: Sequence[str], ips: Sequence[DedicatedIP | None], change: Change
) -> list[DedicatedIP]:
    """Apply a change to each dedicated IP; report the errors of all, by position in the list.

    :param ips: the dedicated IP of each address, or None if the pool does not have it
    :raises ValidationFailed: at least one address is unknown or breaks a rule; names all of them
    """
    after, errors = [], {}
    for index, (address, ip) in enumerate(zip(wanted, ips, strict=True)):
        try:
            if ip:
                after.append(change(ip))
            else:
                errors[f"ips.{index}"] = _not_found(address)
        except RuleBroken as error:
            errors[f"ips.{index}"] = broken_rule(error)
    if errors:
        raise ValidationFailed(errors)
    return after
