"""The reservations of an account: made, extended, assigned and cancelled."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request, url_for

from kazoo_ips.api.reservations import load_extension, load_reservation
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import formats, forms, parts
from kazoo_ips.console.pages import (
    Confirmation,
    account_of,
    ask,
    done,
    page,
    pages,
)
from kazoo_ips.console.parts import Part
from kazoo_ips.model import Account
from kazoo_ips.model.commands import AssignReserved, ExtendReservation
from kazoo_ips.model.reservations import MAX_SECONDS, Reservation


@pages.on("GET", "/accounts/<account_id>/reservations", who=Who.ACCOUNT)
def list_reservations(account_id: str) -> str:
    """The open reservations of an account, and the form for another one."""
    account = account_of(account_id, "reservations")
    lists = services().lists
    return page(
        "reservations.html",
        account=account,
        reservations=services().reservations.all_open(account.id),
        **parts.read(
            zones=Part("the names of the zones", lists.zones, ()),
            hosts=Part("the names of the hosts", lists.hosts, ()),
        ),
    )


@pages.on("GET", "/accounts/<account_id>/reservations/<reservation_id>", who=Who.ACCOUNT)
def show_reservation(account_id: str, reservation_id: str) -> str:
    """One open reservation, and what can be done with it."""
    account = account_of(account_id, "reservations", reservation_id)
    reservation = services().reservations.fetch(account.id, reservation_id)
    ips = services().reservations.addresses(reservation)
    return page("reservation.html", account=account, reservation=reservation, ips=ips)


@pages.on("POST", "/accounts/<account_id>/reservations", who=Who.ACCOUNT)
def reserve(account_id: str) -> Any:
    """Reserve addresses: the service proposes them, and reserves them if confirmed."""
    account = account_of(account_id, "reservations", verb="PUT")
    return reserve_for(account, _path(account))


def reserve_for(account: Account, back: str, addresses: Sequence[str] = ()) -> Any:
    """Return the page that asks to confirm a reservation, or that follows it.

    :param back: the path to go to if nothing is reserved
    :param addresses: the addresses; without them, those or the quantity that the form names
    """
    chosen = addresses or request.form.getlist("address")
    seconds = forms.whole_number("seconds", MAX_SECONDS)
    wanted = {"ips": chosen} if chosen else _quantity(request.form)
    command = load_reservation(account.id, {**wanted, "seconds": seconds}, ())
    reservation = services().reservations.reserve(command, **write())
    if not write()["dry_run"]:
        return done(_path(account, reservation), "reserved")
    ips = services().reservations.addresses(reservation)
    fields = [("address", each) for each in reservation.addresses]
    named = [(name, request.form[name]) for name in ("account", "seconds") if name in request.form]
    return ask(
        Confirmation(
            f"Reserve {_counted(reservation)} for {account.name}",
            "Reserve",
            back,
            [(ip.address, f"{ip.status}, in {ip.zone} on {ip.host}", "reserved") for ip in ips],
            [
                f"No other account can get them until {formats.moment(reservation.until)} UTC. "
                "All of them are reserved, or none."
            ],
            fields=[*fields, *named],
        )
    )


def _quantity(form: Mapping[str, str]) -> dict[str, Any]:
    """Return how many addresses the form wants, and where, in the form of the API."""
    spread = form.get("spread", "")
    choice: dict[str, Any] = {
        "quantity": forms.whole_number("quantity", 1000),
        "zone": form.get("zone"),
        "host": form.get("host", "").strip(),
        "distinct_hosts": spread == "hosts",
        "distinct_zones": spread == "zones",
    }
    return {name: value for name, value in choice.items() if value}


@pages.on("POST", "/accounts/<account_id>/reservations/<reservation_id>/extend", who=Who.ACCOUNT)
def extend_reservation(account_id: str, reservation_id: str) -> Any:
    """Change the end of a reservation."""
    account = account_of(account_id, "reservations", reservation_id, verb="PATCH")
    seconds = load_extension({"seconds": forms.whole_number("seconds", MAX_SECONDS)}, ())
    command = ExtendReservation(account.id, reservation_id, seconds)
    after = services().reservations.extend(command, **write())
    path = _path(account, after)
    if not write()["dry_run"]:
        return done(path, "extended")
    before = services().reservations.fetch(account.id, reservation_id)
    title = f"Change the end of the reservation of {account.name}"
    line = ("Ends", formats.moment(before.until), formats.moment(after.until))
    return ask(Confirmation(title, "Change", path, [line]))


@pages.on("POST", "/accounts/<account_id>/reservations/<reservation_id>/cancel", who=Who.ACCOUNT)
def cancel_reservation(account_id: str, reservation_id: str) -> Any:
    """Cancel a reservation."""
    account = account_of(account_id, "reservations", reservation_id, verb="DELETE")
    ended = services().reservations.cancel(account.id, reservation_id, **write())
    if not write()["dry_run"]:
        return done(_path(account), "cancelled")
    return ask(
        Confirmation(
            f"Cancel the reservation of {_counted(ended)} of {account.name}",
            "Cancel the reservation",
            _path(account, ended),
            [(each, "reserved", "available") for each in ended.addresses],
            ["Other accounts can get them at once."],
            danger=True,
        )
    )


@pages.on("POST", "/accounts/<account_id>/reservations/<reservation_id>/assign", who=Who.ACCOUNT)
def assign_reservation(account_id: str, reservation_id: str) -> Any:
    """Assign all addresses of a reservation to its account, or none."""
    account = account_of(account_id, verb="POST")
    command = AssignReserved(account.id, reservation_id)
    ips = services().reservations.assign(command, **write())
    if not write()["dry_run"]:
        return done(url_for("console.show_account", account_id=account.id), "assigned")
    return ask(
        Confirmation(
            f"Assign {len(ips)} reserved address{'es' * (len(ips) != 1)} to {account.name}",
            "Assign",
            url_for(
                "console.show_reservation", account_id=account.id, reservation_id=reservation_id
            ),
            [(ip.address, f"reserved, in {ip.zone} on {ip.host}", "assigned") for ip in ips],
            ["All of them are assigned, or none. Then the reservation ends."],
        )
    )


def _path(account: Account, reservation: Reservation | None = None) -> str:
    if reservation is None:
        return url_for("console.list_reservations", account_id=account.id)
    return url_for(
        "console.show_reservation", account_id=account.id, reservation_id=reservation.id
    )


def _counted(reservation: Reservation) -> str:
    count = len(reservation.addresses)
    return f"{count} address{'es' * (count != 1)}"
