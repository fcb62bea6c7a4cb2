"""The operator disables or enables one address, or ends its rest."""

from collections.abc import Callable
from functools import partial

from kazoo_ips.errors import IPNotFound, NotDisabled, RuleBroken, ValidationFailed
from kazoo_ips.model import (
    Attempt,
    DedicatedIP,
    Disabled,
    DisableIP,
    EnableIP,
    EndRest,
    EventKind,
    Scope,
    Status,
)
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.services.assigning.assignment import broken_rule, conflict_breaks
from kazoo_ips.services.assigning.pool_writes import PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.states.places import PlaceService

_Transition = Callable[..., DedicatedIP]


class OperatorChanges:
    """Changes the state of one address.

    The argument `attempt` belongs to a request with an Idempotency-Key. If an earlier attempt has
    executed the request, its result is returned. A call with `dry_run` returns what would be
    written, and writes nothing.

    All methods raise `IPNotFound` if the pool does not have the address, `ValidationFailed` if its
    state does not permit the change, `Conflict` if another writer was faster, and
    `PreconditionFailed` if the revision differs from If-Match.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        reader: IPReader,
        writer: PoolWriter,
        resumption: Resumption,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._resumption = resumption
        self._places = places
        self._now = now

    def disable(
        self,
        command: DisableIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Take an address out of service. If it is assigned, it stays so until its release.

        An address that is disabled already, because its host or zone is drained, stays disabled
        when that is enabled.
        """
        mark = Disabled(command.reason, self._now(), audit.author(), Scope.IP)

        def change(ip: DedicatedIP, **stamp: object) -> DedicatedIP:
            given = ip.disabled
            if given and (given.scope, given.reason) == (Scope.IP, command.reason):
                return ip
            return ip.disable(mark, **stamp)  # type: ignore[arg-type]

        once = partial(self._change, command, EventKind.DISABLED, change)
        return self._resumption.once(attempt, lambda: once(request_id, attempt, dry_run))

    def enable(
        self,
        command: EnableIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Enable an address again. One that is not disabled does not change.

        If its host or zone is drained, it stays disabled for that.
        """

        def change(ip: DedicatedIP, **stamp: object) -> DedicatedIP:
            if ip.disabled is None and ip.status is not Status.DISABLED:
                return ip
            place = self._places.rules(ip)
            return ip.enable(reason=command.reason, place=place, **stamp)  # type: ignore[arg-type]

        once = partial(self._change, command, EventKind.ENABLED, change)
        return self._resumption.once(attempt, lambda: once(request_id, attempt, dry_run))

    def end_rest(
        self,
        command: EndRest,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """End the rest of an address before its time, so that any account may have it."""

        def change(ip: DedicatedIP, **stamp: object) -> DedicatedIP:
            return ip.end_rest(early=True, reason=command.reason, **stamp)  # type: ignore[arg-type]

        once = partial(self._change, command, EventKind.AGED, change)
        return self._resumption.once(attempt, lambda: once(request_id, attempt, dry_run))

    def _change(  # noqa: PLR0913, PLR0917 - what a change consists of
        self,
        command: DisableIP | EnableIP | EndRest,
        kind: EventKind,
        change: _Transition,
        request_id: str,
        attempt: Attempt | None,
        dry_run: bool,
    ) -> DedicatedIP:
        try:
            ip = self._reader.get(command.address)
        except IPNotFound:
            done = is_resumed(attempt) and self._resumption.before_deletion(
                kind, command.address, None, request_id
            )
            if done:
                return done
            raise
        if is_resumed(attempt):
            done = self._resumption.marked(ip, kind, request_id)
            if done:
                return done
        require_match(ip, command.if_match)
        stamp = audit.stamp(self._now(), request_id, attempt)
        try:
            after = change(ip, **stamp)
        except NotDisabled as error:
            why = {"message": "ip is disabled because its host or zone is drained", "value": True}
            raise ValidationFailed({"enabled": {"forbidden": why}}) from error
        except RuleBroken as error:
            raise ValidationFailed({"ips.0": broken_rule(error)}) from error
        if dry_run or after is ip:
            self._reader.expect_no_save()
            return after
        with conflict_breaks(command.if_match):
            results = self._writer.write([ip], [after])
            TransactionService.require(results)
        audit.changed(Change(kind.value), [ip], [after], command.reason)
        return results[0].ip
