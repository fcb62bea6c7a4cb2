"""The commands `drain`, `disable`, `enable` and `age`."""

import sys
from typing import Any

import click

from kazoo_ips.cli.backend import ChangedState
from kazoo_ips.cli.console import (
    backend,
    fail,
    json_option,
    print_json,
    reported,
    request_id,
    say,
)
from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model import DisableIP, EnableIP, EndRest, Scope, Status, names
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState

_dry_run = click.option("--dry-run", is_flag=True, help="Print the result, and write nothing.")
_host = click.option("--host", help="All addresses of this host.")
_zone = click.option("--zone", help="All addresses of this zone.")


@click.command()
@_host
@_zone
@click.option("--reason", required=True, help="The reason, which is shown with each address.")
@_dry_run
@json_option
def drain(
    host: str | None, zone: str | None, reason: str, *, dry_run: bool, as_json: bool
) -> None:
    """Drain a host or a zone: none of its addresses is assigned any more.

    Assigned addresses stay assigned. All others are disabled, and so is every address that is
    released or added there later. If the command is interrupted, the service continues.
    """
    _check_reason(reason)
    command = ChangePlace(_place(host, zone), enabled=False, reason=reason)
    _change_place(command, "unable to drain", dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("ip")
@click.option("--reason", required=True, help="The reason, which is shown with the address.")
@_dry_run
@json_option
def disable(ip: str, reason: str, *, dry_run: bool, as_json: bool) -> None:
    """Disable an address: no other account can get it.

    An assigned address stays assigned, and is disabled when it is released.
    """
    _check_reason(reason)
    with reported("unable to disable IP"):
        changes = backend().operator_changes
        changed = changes.disable(DisableIP(ip, reason), request_id(), dry_run=dry_run)
    _print_ip(changed, as_json=as_json)


@click.command()
@click.argument("ip", required=False)
@_host
@_zone
@click.option("--reason", default="", help="The reason; only for one address.")
@_dry_run
@json_option
def enable(  # noqa: PLR0913 - each is one argument or option
    ip: str | None,
    host: str | None,
    zone: str | None,
    *,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Enable an address, or a host or zone that was drained.

    For a host or a zone, the command enables exactly the addresses that its drain has disabled.
    """
    if ip is None:
        command = ChangePlace(_place(host, zone), enabled=True)
        _change_place(command, "unable to enable", dry_run=dry_run, as_json=as_json)
        return
    if host or zone:
        raise click.UsageError("one of IP, --host and --zone")
    if reason:
        _check_reason(reason)
    with reported("unable to enable IP"):
        changes = backend().operator_changes
        changed = changes.enable(EnableIP(ip, reason), request_id(), dry_run=dry_run)
    _print_ip(changed, as_json=as_json)


@click.command()
@click.argument("ip", required=False)
@click.option("--reason", default="", help="Why the rest of the address ends.")
@click.option("--zone", help="Set how long addresses of this zone rest after their release.")
@click.option(
    "--seconds",
    type=click.IntRange(0, 366 * 86_400),
    help="How long they rest; 0: they do not rest.",
)
@click.option(
    "--when-empty",
    type=click.Choice(["wait", "oldest"]),
    help="Whether an allocation takes addresses that still rest, if no others are left.",
)
@_dry_run
@json_option
def age(  # noqa: PLR0913 - each is one argument or option
    ip: str | None,
    zone: str | None,
    *,
    reason: str,
    seconds: int | None,
    when_empty: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """End the rest of an address, or set how long the addresses of a zone rest."""
    if (ip is None) == (zone is None):
        raise click.UsageError("either IP or --zone")
    if zone is not None:
        takes_oldest = None if when_empty is None else when_empty == "oldest"
        place = Place(Scope.ZONE, zone)
        command = ChangePlace(place, aging_seconds=seconds, takes_oldest=takes_oldest)
        _change_place(command, "unable to change", dry_run=dry_run, as_json=as_json)
        return
    _check_reason(reason)
    with reported("unable to end the rest of IP"):
        changes = backend().operator_changes
        changed = changes.end_rest(EndRest(ip or "", reason), request_id(), dry_run=dry_run)
    _print_ip(changed, as_json=as_json)


def _check_reason(reason: str) -> None:
    problem = names.problem(reason)
    if problem:
        fail(f"the reason {problem}")


def _place(host: str | None, zone: str | None) -> Place:
    if (host is None) == (zone is None):
        raise click.UsageError("either --host or --zone")
    return Place(Scope.ZONE, zone) if zone is not None else Place(Scope.HOST, host or "")


def _change_place(command: ChangePlace, failure: str, *, dry_run: bool, as_json: bool) -> None:
    instance, place, request = backend(), command.place, request_id()
    try:
        state = instance.places.set(command, dry_run=dry_run)
    except BadIdentifier:
        fail(f"{failure} {place.scope.value} {place.name}: it has no addresses")
    if command.enabled is not None and not dry_run:
        disabled = state.summary.counts.get(Status.DISABLED, 0)
        total = disabled if command.enabled else state.pending
        with click.progressbar(length=total, label="changed", file=sys.stderr) as bar:
            for count in instance.drains.carry_out(place, request):
                bar.update(count)
        state = instance.places.fetch(place)
    if as_json:
        print_json(_place_object(state))
    else:
        say(_line(state, dry_run=dry_run))


def _line(state: PlaceState, *, dry_run: bool) -> str:
    settings, counts = state.settings, state.summary.counts
    what = f"{state.place.scope.value} {state.place.name}"
    is_ = "would be" if dry_run else "is"
    parts = [f"{what} {is_} {'drained' if settings.drained else 'enabled'}"]
    if settings.aging_seconds:
        oldest = ", or shorter when no others are left" if settings.takes_oldest else ""
        parts.append(f"addresses rest for {settings.aging_seconds} s{oldest}")
    parts += [f"{counts[status]} {status}" for status in sorted(counts)]
    return "; ".join(parts)


def _place_object(state: PlaceState) -> dict[str, Any]:
    settings = state.settings
    return {
        state.place.scope.value: state.place.name,
        "enabled": settings.drained is None,
        "reason": settings.drained.reason if settings.drained else None,
        "aging_seconds": settings.aging_seconds,
        "when_empty": "oldest" if settings.takes_oldest else "wait",
        "counts": {str(status): count for status, count in sorted(state.summary.counts.items())},
        "pending": state.pending,
    }


def _print_ip(ip: ChangedState, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ip": ip.address,
                "status": str(ip.status),
                "assigned_to": ip.assigned_to,
                "disabled": ip.disabled.reason if ip.disabled else None,
            }
        )
        return
    later = ", and disabled when it is released" if ip.disabled and ip.assigned_to else ""
    say(f"IP {ip.address} is {ip.status}{later}")
