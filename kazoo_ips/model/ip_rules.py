"""The rules that the transitions of a dedicated IP have in common. Standard library only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from kazoo_ips.errors import (
    AlreadyAssigned,
    AssignedToAnother,
    NotAssigned,
    OutOfService,
    Reserved,
    Resting,
    RuleBroken,
    UnknownStatus,
    Unusable,
)
from kazoo_ips.model import addresses
from kazoo_ips.model.history import State
from kazoo_ips.model.lifecycle import OPEN, TRANSITIONS, Disabled, PlaceRules, Scope, Status
from kazoo_ips.model.recorded_ip import NO_REST_OR_RESERVATION, RecordedIP, replace
from kazoo_ips.model.stamps import Stamp, StampFields, ordered
from kazoo_ips.model.trail import Event, EventKind, Origin, generation


class _Statuses(NamedTuple):
    """The statuses before and after an event, if they follow from its kind."""

    before: Status
    after: Status


_BY_KIND = {
    EventKind.ASSIGNED: _Statuses(Status.AVAILABLE, Status.ASSIGNED),
    EventKind.RELEASED: _Statuses(Status.ASSIGNED, Status.AVAILABLE),
}
"""The most frequent transitions, whose events record no statuses."""


@dataclass(frozen=True)
class RuledIP(RecordedIP):
    """A dedicated IP with the checks of its transitions and the fields that each one sets."""

    # The rules

    @property
    def has_known_status(self) -> bool:
        """Whether this release knows the status. If not, it may not change the address."""
        return isinstance(self.status, Status)

    def _require_free(  # noqa: PLR0913 - one for each rule
        self,
        account_id: str,
        at: int,
        others: Iterable[Self],
        reservation: str | None,
        place: PlaceRules,
        *,
        early: bool,
    ) -> None:
        """Check that an account may get this address; parameters as in `DedicatedIP.assign`.

        :raises RuleBroken: the account may not get it
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        same = (self, *others)
        for ip in same:
            broken = ip._broken_rule(
                self.address, account_id, at, reservation, early and place.takes_oldest
            )
            if broken:
                raise broken
        if place.drained:
            raise OutOfService(self.address)
        unusable = addresses.unusable(self.address)
        if unusable:
            raise Unusable(self.address, unusable)
        if len(same) > 1:
            first = min(same, key=RuledIP._precedence)
            if first is not self:
                raise Unusable(self.address, f"the pool has it as {first.address} as well")

    def _broken_rule(
        self, address: str, account_id: str, at: int, reservation: str | None, early: bool
    ) -> RuleBroken | None:
        """Return the rule that an assignment would break by this document; None if there is none.

        :param address: the id of the document to assign, which the error names. It may be another
            spelling of the address
        """
        if self.status is Status.ASSIGNED or not self.has_known_status:
            own = self.assigned_to == account_id
            return (AlreadyAssigned if own else AssignedToAnother)(address)
        if self._implied_status is Status.DISABLED:
            return OutOfService(address)
        if self._is_reserved(at):
            return None if reservation == self.reservation else Reserved(address)
        if self._has_rested(at) or account_id == self.last_assigned_to or early:
            return None
        return Resting(address, self.available_at or 0)

    @property
    def _implied_status(self) -> str:
        """The status that follows from the other fields.

        It differs from `status` if another program has made the address available: that program
        keeps the fields of other statuses, which this service clears. It also differs if an
        assigned address is marked as disabled: its release disables it.
        """
        if self.disabled:
            return Status.DISABLED
        if self.status is not Status.AVAILABLE:
            return self.status
        if self.reservation:
            return Status.RESERVED
        return Status.AGING if self.available_at else Status.AVAILABLE

    def _is_reserved(self, at: int) -> bool:
        return self.reservation is not None and (self.reserved_until or 0) > at

    def _is_held_by(self, reservation: str, account_id: str | None, at: int) -> bool:
        held = (self.reservation, self.reserved_for) == (reservation, account_id)
        return held and self._is_reserved(at)

    def _has_rested(self, at: int) -> bool:
        return (self.available_at or 0) <= at

    def _rest_left(self, at: int) -> dict[str, Any]:
        """Return the fields of a rest that is not over; no fields if there is no such rest."""
        if self._has_rested(at):
            return {}
        return {"available_at": self.available_at, "last_assigned_to": self.last_assigned_to}

    def _precedence(self) -> tuple[bool, str]:
        """A sort key. Of several documents of one address, only the first can be assigned."""
        return addresses.canonical(self.address) != self.address, self.address

    def _require_assigned(self, account_id: str | None) -> None:
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        if self.status is not Status.ASSIGNED:
            raise NotAssigned(self.address)
        if account_id is not None and self.assigned_to != account_id:
            raise AssignedToAnother(self.address)

    # What transitions have in common

    def _stamp(self, fields: StampFields) -> Stamp:
        return ordered(Stamp(**fields), self.trail)

    def _released(
        self,
        stamp: Stamp,
        account_id: str | None,
        place: PlaceRules,
        rest: dict[str, Any] | None = None,
    ) -> Self:
        """Return this address after an assignment or a reservation.

        :param account_id: the account that had the address or its reservation
        :param rest: the fields of the rest that begins; by default, an earlier rest goes on
        """
        rest = self._rest_left(stamp.at) if rest is None else rest
        mark = self.disabled or place.drained
        rests = rest.get("available_at") is not None
        status = Status.DISABLED if mark else Status.AGING if rests else Status.AVAILABLE
        return self._become(EventKind.RELEASED, status, stamp, account_id, disabled=mark, **rest)

    def _with_mark(
        self,
        kind: EventKind,
        mark: Disabled | None,
        stamp: Stamp,
        reason: str,
        place: PlaceRules = OPEN,
    ) -> Self:
        """Return this address with a mark in `disabled`, or without one.

        :param mark: the mark; None for the one of `place`, or for none
        """
        if self.status is Status.ASSIGNED:
            event = self._event(kind, stamp, self.assigned_to, Status.ASSIGNED, reason)
            return replace(self, disabled=mark, trail=(*self.trail, event))
        fields = self._fields_with_mark(mark or place.drained, stamp.at)
        return self._become(kind, fields.pop("status"), stamp, None, reason, **fields)

    def _after_move(self, place: PlaceRules, at: int) -> Self:
        """Return this address after a move, disabled if its new zone or host is drained.

        An address that was disabled on its own stays disabled. An assigned address gets no mark
        from a drained place: its release reads the settings of zone and host.
        """
        own = self.disabled if self.disabled and self.disabled.scope is Scope.IP else None
        if self.status is Status.ASSIGNED:
            return replace(self, disabled=own)
        mark = own or place.drained
        if mark == self.disabled:
            return self
        return replace(self, **{**NO_REST_OR_RESERVATION, **self._fields_with_mark(mark, at)})

    def _fields_with_mark(self, mark: Disabled | None, at: int) -> dict[str, Any]:
        """Return the fields that an address without an account has, with a mark or without one."""
        rest = self._rest_left(at)
        status = Status.DISABLED if mark else Status.AGING if rest else Status.AVAILABLE
        return {"status": status, "disabled": mark, **rest}

    def _become(
        self,
        kind: EventKind,
        status: Status,
        stamp: Stamp,
        account_id: str | None = None,
        reason: str = "",
        **fields: Any,
    ) -> Self:
        """Return this address with another status, and with the event in its trail.

        :param account_id: the account of the event. It has the address if `status` is assigned
        :param fields: fields of a rest, of a reservation and `disabled`; those that are not given
            are cleared
        """
        self._require_transition(kind, status)
        event = self._event(kind, stamp, account_id, status, reason)
        cleared = {**NO_REST_OR_RESERVATION, "disabled": None, **fields}
        return replace(
            self,
            **cleared,
            status=status,
            assigned_to=account_id if status is Status.ASSIGNED else None,
            modified=stamp.at,
            request_id=stamp.request_id,
            trail=(*self.trail, event),
            transaction=None,
        )

    def _require_transition(self, kind: EventKind, status: str) -> None:
        allowed = TRANSITIONS[kind]
        assert (self.status, status) in allowed or (self._implied_status, status) in allowed

    def _event(
        self, kind: EventKind, stamp: Stamp, account_id: str | None, to: str, reason: str = ""
    ) -> Event:
        """Return the event for a transition from this state to the status `to`.

        The event leaves out what follows from its kind, so that most documents stay short, and so
        that the release before this one can read them.
        """
        at, request_id, by, keyed = stamp
        origin = state = None
        usual = _BY_KIND.get(kind)
        if usual is None or usual.before is not self.status or self._has_rest_or_reservation:
            origin = Origin(str(self.status), self.assigned_to, **self._rest_and_reservation)
        if usual is None or usual.after != to:
            owner = account_id if to == Status.ASSIGNED else None
            state = State(str(to), owner, self.zone, self.host)
        number = generation(self.revision) + 1
        return Event(
            kind, account_id, at, request_id, number, by, keyed, state,
            origin=origin, reason=reason,
        )  # fmt: skip

    def _event_with_place(self, kind: EventKind, stamp: Stamp, to: str, reason: str = "") -> Event:
        """Return an event that records the zone and host before it.

        After the event, the address may have another zone and host, and the trail may no longer
        have the events before it.
        """
        event = self._event(kind, stamp, None, to, reason)
        assert event.origin is not None
        return event._replace(origin=event.origin._replace(zone=self.zone, host=self.host))

    @property
    def _has_rest_or_reservation(self) -> bool:
        return self.available_at is not None or self.reservation is not None

    @property
    def _rest_and_reservation(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NO_REST_OR_RESERVATION}
