"""A dedicated IP and its transitions. Standard library only.

This module uses neither HTTP nor CouchDB nor the clock. Times (Gregorian seconds) and request ids
are parameters. A transition is a method that returns a new object, or raises the rule that it
would break. `lifecycle.py` has a diagram of all transitions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

from kazoo_ips.errors import (
    AlreadyAssigned,
    NotDisabled,
    NotReserved,
    NotResting,
    Reserved,
    UnknownStatus,
)
from kazoo_ips.model import trail
from kazoo_ips.model.changes import Changes, Replacement
from kazoo_ips.model.history import Author, State
from kazoo_ips.model.ip_rules import RuledIP
from kazoo_ips.model.lifecycle import (
    OPEN,
    Disabled,
    PlaceRules,
    Scope,
    Status,
    known_status,
)
from kazoo_ips.model.recorded_ip import NO_REST_OR_RESERVATION, replace
from kazoo_ips.model.stamps import Stamp, StampFields, ordered
from kazoo_ips.model.trail import Event, EventKind, Origin, Trail, generation


@dataclass(frozen=True)
class DedicatedIP(RuledIP):
    """An address that the operator owns, with its transitions.

    Every transition takes the fields of `Stamp` as keyword arguments: `at`, `request_id`, `by` and
    `keyed`. `place` has the rules that follow from the settings of the address's zone and host.
    `reason` is the reason that the author has given, for the history.
    """

    @classmethod
    def new(  # noqa: PLR0913 - one for each field
        cls,
        address: str,
        zone: str,
        host: str,
        *,
        trail: Trail = (),
        tombstone: str | None = None,
        place: PlaceRules = OPEN,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return a dedicated IP for an address that the pool does not have.

        It is available, or disabled if its zone or host is drained.

        :param trail: the trail of the same address at its last deletion; empty if there was none.
            Later attempts find earlier results in it, and the repair finds earlier owners
        :param tombstone: the revision of the last deletion; None if it is not known
        """
        stamped = ordered(Stamp(**stamp), trail)
        at, request_id, by, keyed = stamped
        status = Status.DISABLED if place.drained else Status.AVAILABLE
        ip = cls(address, zone, host, at, at, status, request_id=request_id, trail=trail)
        created = Event(
            EventKind.CREATED, None, at, request_id, generation(tombstone) + 1, by, keyed,
            State(status.value, None, zone, host),
        )  # fmt: skip
        return replace(ip, disabled=place.drained, trail=(*trail, created))

    def assign(
        self,
        account_id: str,
        *,
        others: Iterable["DedicatedIP"] = (),
        reservation: str | None = None,
        place: PlaceRules = OPEN,
        early: bool = False,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return this address, assigned to an account.

        :param others: the pool's other documents of the same address, under other spellings
        :param reservation: the id of the account's reservation of the address; None if the request
            names no reservation
        :param early: whether to assign it before it has rested, if the settings of the zone permit
            that
        :raises UnknownStatus: this release does not know the status
        :raises AlreadyAssigned: it is assigned to the account already
        :raises AssignedToAnother: it is assigned to another account, or has no known owner
        :raises OutOfService: it is disabled, or its zone or host is drained
        :raises Reserved: it is reserved, and `reservation` is not that reservation
        :raises NotReserved: the reservation does not hold it, or does not hold it any more
        :raises Resting: it rests, and another account had it last
        :raises Unusable: no proxy can have the address, or another document of the same address
            is the one to assign
        """
        stamped = self._stamp(stamp)
        if reservation is not None and not self._is_held_by(reservation, account_id, stamped.at):
            raise NotReserved(self.address)
        self._require_free(account_id, stamped.at, others, reservation, place, early=early)
        return self._become(EventKind.ASSIGNED, Status.ASSIGNED, stamped, account_id)

    def reserve(  # noqa: PLR0913 - one for each field
        self,
        account_id: str,
        reservation: str,
        until: int,
        *,
        others: Iterable["DedicatedIP"] = (),
        place: PlaceRules = OPEN,
        early: bool = False,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return this address, reserved for an account. The errors are those of `assign`.

        A rest goes on after the reservation.

        :param reservation: the id of the new reservation
        :param until: when the reservation ends
        """
        stamped = self._stamp(stamp)
        self._require_free(account_id, stamped.at, others, None, place, early=early)
        return self._become(
            EventKind.RESERVED, Status.RESERVED, stamped, account_id,
            **self._rest_left(stamped.at),
            reserved_for=account_id, reservation=reservation, reserved_until=until,
        )  # fmt: skip

    def extend(self, reservation: str, until: int, **stamp: Unpack[StampFields]) -> "DedicatedIP":
        """Return this address, reserved until another time.

        :param until: the new end of the reservation, which may be before the old one
        :raises NotReserved: the reservation does not hold it, or does not hold it any more
        """
        stamped = self._stamp(stamp)
        if not self._is_held_by(reservation, self.reserved_for, stamped.at):
            raise NotReserved(self.address)
        return self._become(
            EventKind.RESERVED, Status.RESERVED, stamped, self.reserved_for,
            **{**self._rest_and_reservation, "reserved_until": until},
        )  # fmt: skip

    def end_reservation(
        self,
        reservation: str | None = None,
        place: PlaceRules = OPEN,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return this address after its reservation was cancelled or has expired.

        It is available, resting or disabled.

        :param reservation: the id of the reservation to cancel; None ends only one that has
            expired
        :raises NotReserved: it is not reserved, it is reserved by another reservation than the one
            to cancel, or its reservation has not expired
        """
        stamped = self._stamp(stamp)
        is_over = (self.reserved_until or 0) <= stamped.at
        if self._implied_status is not Status.RESERVED or not (
            is_over if reservation is None else reservation == self.reservation
        ):
            raise NotReserved(self.address)
        return self._released(stamped, self.reserved_for, place)

    def release(
        self,
        account_id: str | None,
        *,
        place: PlaceRules = OPEN,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return this address after its release: available, resting or disabled.

        :param account_id: the account that releases it; None if the operator releases it, whoever
            has it
        :raises UnknownStatus: this release does not know the status
        :raises NotAssigned: it is not assigned
        :raises AssignedToAnother: it is assigned to another account
        """
        self._require_assigned(account_id)
        stamped, owner = self._stamp(stamp), self.assigned_to
        rests = bool(owner and place.aging_seconds)
        rest = {
            "available_at": stamped.at + place.aging_seconds if rests else None,
            "last_assigned_to": owner if rests else None,
        }
        return self._released(stamped, owner, place, rest)

    def transfer(self, account_id: str, to: str, **stamp: Unpack[StampFields]) -> "DedicatedIP":
        """Return this address, assigned to another account. It is not available in between.

        :param account_id: the account that has it now
        :param to: the account that gets it
        :raises AlreadyAssigned: `to` has it already
        :raises UnknownStatus: this release does not know the status
        :raises NotAssigned: it is not assigned
        :raises AssignedToAnother: it is assigned to a third account
        """
        if self.status is Status.ASSIGNED and self.assigned_to == to:
            raise AlreadyAssigned(self.address)
        self._require_assigned(account_id)
        return self._become(
            EventKind.TRANSFERRED, Status.ASSIGNED, self._stamp(stamp), to, disabled=self.disabled
        )

    def end_rest(
        self, *, early: bool = False, reason: str = "", **stamp: Unpack[StampFields]
    ) -> "DedicatedIP":
        """Return this address, available after its rest.

        :param early: whether the operator ends the rest before its time
        :raises NotResting: it does not rest, or its time is not over and `early` is false
        """
        stamped = self._stamp(stamp)
        if self._implied_status is not Status.AGING or not (early or self._has_rested(stamped.at)):
            raise NotResting(self.address)
        return self._become(EventKind.AGED, Status.AVAILABLE, stamped, reason=reason)

    def disable(self, mark: Disabled, **stamp: Unpack[StampFields]) -> "DedicatedIP":
        """Return this address, disabled. An assigned address stays assigned until its release.

        The fields `modified` and `request_id` of an assigned address do not change: they identify
        the assignment, and the account's copy does not record that the address is disabled. If the
        address rests, the rest goes on after the address is enabled. A reservation ends.

        :param mark: who disabled it, when and why
        :raises UnknownStatus: this release does not know the status
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        return self._with_mark(EventKind.DISABLED, mark, self._stamp(stamp), mark.reason)

    def enable(
        self, *, reason: str = "", place: PlaceRules = OPEN, **stamp: Unpack[StampFields]
    ) -> "DedicatedIP":
        """Return this address, enabled: available, or resting if its rest is not over.

        If its host or zone is drained, the address is disabled for that reason.

        :raises UnknownStatus: this release does not know the status
        :raises NotDisabled: it is not disabled, or its host or zone is drained
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        if self.disabled is None and self.status is not Status.DISABLED:
            raise NotDisabled(self.address)
        scope = self.disabled.scope if self.disabled else Scope.IP
        if place.drained and place.drained.scope is scope and self.status is not Status.ASSIGNED:
            raise NotDisabled(self.address)
        return self._with_mark(EventKind.ENABLED, None, self._stamp(stamp), reason, place)

    def change(
        self,
        changes: Changes,
        *,
        reason: str = "",
        place: PlaceRules = OPEN,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP":
        """Return this address in another zone, on another host, or with other notes.

        * If nothing changes, the result is the same object.
        * If the address moves away from a drained place, it is enabled, unless it was disabled on
          its own.
        * If it moves to a drained place and no account has it, it is disabled, and a reservation
          of it ends.
        * Otherwise its status does not change.

        :param place: the rules of its zone and host after the change
        :raises UnknownStatus: this release does not know the status
        :raises TooManyLabels: it would have too many labels
        """
        if not self.has_known_status:
            raise UnknownStatus(self.address, self.status)
        stamped = self._stamp(stamp)
        changed = replace(
            self,
            zone=changes.zone or self.zone,
            host=changes.host or self.host,
            description=changes.new_description(self.description),
            labels=changes.new_labels(self.labels),
            replacement=self._replacement(changes.replaced_by),
        )
        if (changed.state, changed.notes) == (self.state, self.notes):
            return self
        if (changed.zone, changed.host) != (self.zone, self.host):
            changed = changed._after_move(place, stamped.at)
        self._require_transition(EventKind.CHANGED, changed.status)
        event = self._event_with_place(EventKind.CHANGED, stamped, changed.status, reason)
        event = event._replace(state=changed.state)
        return replace(
            changed,
            modified=stamped.at,
            request_id=stamped.request_id,
            trail=(*self.trail, event),
            transaction=None,
        )

    def _replacement(self, address: str | None) -> Replacement | None:
        if address is None or self.assigned_to is None:
            return self.replacement
        return Replacement(address, self.assigned_to)

    def corrected(
        self,
        released_by: str | None = None,
        place: PlaceRules = OPEN,
        **stamp: Unpack[StampFields],
    ) -> "DedicatedIP | None":
        """Return this address in its correct status, after another program has made it available.

        :param released_by: the account that had it until then; None if that is not known
        :returns: None if the status is correct
        """
        if self.status is not Status.AVAILABLE:
            return None
        stamped = self._stamp(stamp)
        rest = self._rest_left(stamped.at)
        if released_by and place.aging_seconds:
            ends = self.modified + place.aging_seconds
            if ends > stamped.at:
                rest = {"available_at": ends, "last_assigned_to": released_by}
        mark = self.disabled or place.drained
        if mark:
            return self._become(
                EventKind.DISABLED, Status.DISABLED, stamped, None, mark.reason,
                disabled=mark, **rest,
            )  # fmt: skip
        if self._is_reserved(stamped.at):
            return self._become(
                EventKind.RESERVED, Status.RESERVED, stamped, self.reserved_for,
                **self._rest_and_reservation,
            )  # fmt: skip
        return self._become(EventKind.AGED, Status.AGING, stamped, **rest) if rest else None

    def delete(self, *, force: bool = False, **stamp: Unpack[StampFields]) -> "DedicatedIP":
        """Return this address with the deletion in its trail, as the tombstone records it.

        :param force: whether to delete the address even if it is reserved
        :raises Reserved: it is reserved, and `force` is not given
        """
        stamped = self._stamp(stamp)
        if self._is_reserved(stamped.at) and self._implied_status is Status.RESERVED and not force:
            raise Reserved(self.address)
        event = self._event_with_place(EventKind.DELETED, stamped, self.status)
        event = event._replace(state=None)
        return replace(
            self, request_id=stamped.request_id, trail=(*self.trail, event), transaction=None
        )

    def undo(self) -> "DedicatedIP":
        """Return this address as it was before its latest assignment, which was not acknowledged.

        A transfer and a reservation are undone in the same way. The trail still names the account
        that had the address, because that account may have a copy. If the address was disabled
        after the assignment, it stays disabled.
        """
        event = trail.latest_acquisition(self.trail)
        owner = self.reserved_for if self.status is Status.RESERVED else self.assigned_to
        if event is None or event.account_id != owner:
            # Another program has assigned it, so this is a release.
            stamp = Stamp(self.modified, self.request_id or "", Author(command="background"))
            released = self._released(stamp, owner, OPEN)
            return replace(released, request_id=self.request_id)
        origin = event.origin or Origin(str(Status.AVAILABLE))
        if self.disabled and origin.account_id is None:
            origin = origin._replace(status=str(Status.DISABLED))
        fields = {name: getattr(origin, name) for name in NO_REST_OR_RESERVATION}
        return replace(
            self,
            status=known_status(origin.status),
            assigned_to=origin.account_id,
            **fields,
            trail=trail.undone(self.trail, event, origin),
            transaction=None,
        )

    def withdrawing(self, events: Trail) -> "DedicatedIP":
        """Return this address with later writes, which were withdrawn, in its trail.

        The service restores the address in this state.

        :param events: the events that the withdrawn writes had added to the trail
        """
        withdrawn = (
            event._replace(kind=EventKind.WITHDRAWN, was=str(event.kind))
            for event in events
            if event.kind not in trail.NOT_DONE
        )
        return replace(self, trail=(*self.trail, *withdrawn))
