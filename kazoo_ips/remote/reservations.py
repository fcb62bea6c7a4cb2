"""The reservations of accounts, read and changed over the API."""

from collections.abc import Mapping
from typing import Any

from kazoo_ips.errors import ReservationExpired, ReservationNotFound
from kazoo_ips.model import AllocateIPs, Listing, Status
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.model.reservations import Reservation
from kazoo_ips.remote.client import APIClient, segment


class RemoteReservations:
    """Creates, shows, changes and cancels reservations."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def all_open(self, account_id: str) -> list[Reservation]:
        """Return the open reservations of an account, the earliest first."""
        pages = self._client.pages(f"{_of(account_id)}/reservations")
        return [_reservation(each, account_id) for page in pages for each in page.data]

    def reserve(
        self, command: ReserveIPs, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Reserve addresses for an account, all or none.

        :raises ValidationFailed: an address is unknown or not available
        :raises InsufficientIPs: fewer addresses are available than requested
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises ReservationLimitReached: the account has too many open reservations
        """
        account_id = command.wanted.account_id
        return self._write("PUT", account_id, "", _wanted(command), request_id, dry_run)

    def extend(
        self, command: ExtendReservation, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Change the end of a reservation, to a number of seconds from now.

        :raises BadIdentifier: the account has no open reservation with this id
        :raises ValidationFailed: it would last too long in all
        """
        path = _path(command.reservation_id)
        data = {"seconds": command.seconds}
        return self._write("PATCH", command.account_id, path, data, request_id, dry_run)

    def cancel(
        self, account_id: str, reservation_id: str, request_id: str, *, dry_run: bool = False
    ) -> Reservation:
        """Cancel a reservation; return it as it was before.

        :raises BadIdentifier: the account has no open reservation with this id
        """
        path = _path(reservation_id)
        return self._write("DELETE", account_id, path, None, request_id, dry_run)

    def assign(
        self, command: AssignReserved, request_id: str, *, dry_run: bool = False
    ) -> list[Listing]:
        """Assign all addresses of a reservation to its account, or none.

        :returns: the addresses, without their zones and hosts
        :raises ReservationExpired: the reservation is over; nothing is assigned
        """
        if not command.reservation_id:
            raise ReservationExpired(command.reservation_id)
        data = {"reservation": command.reservation_id}
        path = _of(command.account_id)
        try:
            reply = self._client.write(
                "POST", path, data, request_id=request_id, dry_run=dry_run or None
            )
        except ReservationExpired:  # the reply does not repeat the id
            raise ReservationExpired(command.reservation_id) from None
        found = reply.data["ips"]
        return [Listing(each, "", "", command.account_id, Status.ASSIGNED) for each in found]

    def _write(  # noqa: PLR0913, PLR0917 - what a request consists of
        self,
        method: str,
        account_id: str,
        path: str,
        data: Mapping[str, Any] | None,
        request_id: str,
        dry_run: bool,
    ) -> Reservation:
        reply = self._client.write(
            method,
            f"{_of(account_id)}/reservations{path}",
            data,
            request_id=request_id,
            dry_run=dry_run or None,
        )
        return _reservation(reply.data, account_id)


def _of(account_id: str) -> str:
    return f"/accounts/{segment(account_id)}/ips"


def _path(reservation_id: str) -> str:
    """Return the end of the path of a reservation.

    :raises ReservationNotFound: the id is empty; that is the path of the list
    """
    if not reservation_id:
        raise ReservationNotFound(reservation_id)
    return f"/{segment(reservation_id)}"


def _wanted(command: ReserveIPs) -> dict[str, Any]:
    wanted = command.wanted
    if not isinstance(wanted, AllocateIPs):
        return {"ips": wanted.addresses, "seconds": command.seconds}
    choice = {"zone": wanted.zone, "host": wanted.host}
    return {
        "quantity": wanted.quantity,
        "distinct_hosts": wanted.distinct_hosts,
        "seconds": command.seconds,
        **{name: value for name, value in choice.items() if value is not None},
    }


def _reservation(given: Mapping[str, Any], account_id: str) -> Reservation:
    return Reservation(
        given["id"], account_id, tuple(given["ips"]), given["created"], given["expires_at"]
    )
