"""The commands `reserve …`."""

import json
from collections.abc import Sequence

import click

from kazoo_ips.cli.account_names import existing
from kazoo_ips.cli.backend import Backend
from kazoo_ips.cli.console import (
    backend,
    json_lines_option,
    print_table,
    reported,
    request_id,
    say,
)
from kazoo_ips.model import AllocateIPs, AssignIPs
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.model.reservations import DEFAULT_SECONDS, MAX_SECONDS, Reservation
from kazoo_ips.services.history.times import iso_8601

_SECONDS = click.IntRange(1, MAX_SECONDS)
_FAILURE = "unable to reserve IPs"
_dry_run = click.option("--dry-run", is_flag=True, help="Print the result, and write nothing.")


@click.group()
def reserve() -> None:
    """Set addresses aside for an account for some time.

    ACCOUNT is an id, a realm or a name.
    """


@reserve.command()
@click.argument("account")
@click.argument("ips", metavar="[IP]...", nargs=-1)
@click.option("--quantity", type=click.IntRange(1, 1000), help="Choose this many addresses.")
@click.option("--zone", help="Choose addresses of this zone.")
@click.option("--host", help="Choose addresses of this host.")
@click.option("--distinct-hosts", is_flag=True, help="Choose each address from another host.")
@click.option(
    "--seconds", type=_SECONDS, default=DEFAULT_SECONDS, show_default=True, help="How long."
)
@_dry_run
@json_lines_option
def create(  # noqa: PLR0913 - each is one argument or option
    account: str,
    ips: Sequence[str],
    *,
    quantity: int | None,
    zone: str | None,
    host: str | None,
    distinct_hosts: bool,
    seconds: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Reserve named addresses, or a quantity of them: all or none."""
    if bool(ips) == (quantity is not None) or (ips and (zone or host or distinct_hosts)):
        raise click.UsageError(
            "either addresses, or --quantity and the options that limit the choice"
        )
    instance, chosen = _of(account)
    wanted: AssignIPs | AllocateIPs = AssignIPs(chosen, tuple(ips))
    if quantity is not None:
        wanted = AllocateIPs(chosen, quantity, zone, host, distinct_hosts)
    with reported(_FAILURE):
        made = instance.reservations.reserve(
            ReserveIPs(wanted, seconds), request_id(), dry_run=dry_run
        )
    _print([made], as_json=as_json)


@reserve.command("list")
@click.argument("account")
@json_lines_option
def list_all(account: str, *, as_json: bool) -> None:
    """List the open reservations of an account."""
    instance, chosen = _of(account)
    with reported("unable to list reservations"):
        _print(instance.reservations.all_open(chosen), as_json=as_json)


@reserve.command()
@click.argument("account")
@click.argument("reservation")
@click.option(
    "--seconds", type=_SECONDS, default=DEFAULT_SECONDS, show_default=True,
    help="How long it lasts from now.",
)  # fmt: skip
@_dry_run
@json_lines_option
def extend(account: str, reservation: str, *, seconds: int, dry_run: bool, as_json: bool) -> None:
    """Change the end of a reservation."""
    instance, chosen = _of(account)
    command = ExtendReservation(chosen, reservation, seconds)
    with reported("unable to extend the reservation"):
        extended = instance.reservations.extend(command, request_id(), dry_run=dry_run)
    _print([extended], as_json=as_json)


@reserve.command()
@click.argument("account")
@click.argument("reservation")
@_dry_run
@json_lines_option
def cancel(account: str, reservation: str, *, dry_run: bool, as_json: bool) -> None:
    """Cancel a reservation: other accounts can get its addresses."""
    instance, chosen = _of(account)
    with reported("unable to cancel the reservation"):
        ended = instance.reservations.cancel(chosen, reservation, request_id(), dry_run=dry_run)
    _print([ended], as_json=as_json)


@reserve.command()
@click.argument("account")
@click.argument("reservation")
@_dry_run
@json_lines_option
def assign(account: str, reservation: str, *, dry_run: bool, as_json: bool) -> None:
    """Assign all addresses of a reservation to its account, or none."""
    instance, chosen = _of(account)
    command = AssignReserved(chosen, reservation)
    with reported("unable to assign the reservation"):
        ips = instance.reservations.assign(command, request_id(), dry_run=dry_run)
    for ip in ips:
        line = {"ip": ip.address, "account_id": chosen, "dry_run": dry_run}
        would = "would assign" if dry_run else "assigned"
        say(json.dumps(line) if as_json else f"{would} IP {ip.address} to {chosen}")


def _of(account: str) -> tuple[Backend, str]:
    instance = backend()
    return instance, existing(instance, account, "unable to find account").id


def _print(reservations: Sequence[Reservation], *, as_json: bool) -> None:
    if as_json:
        for each in reservations:
            line = {
                "id": each.id,
                "ips": each.addresses,
                "created": each.started,
                "expires_at": each.until,
                "expires_at_iso_8601": iso_8601(each.until),
            }
            say(json.dumps(line))
    elif reservations:
        lines = [
            [each.id, iso_8601(each.until) or str(each.until), address]
            for each in reservations
            for address in each.addresses
        ]
        print_table({"Reservation": 32, "Until": 20, "IP": 15}, lines)
    else:
        say("No reservations found")
