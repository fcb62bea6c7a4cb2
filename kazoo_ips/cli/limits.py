"""The command `limit`."""

import json
from collections.abc import Sequence

import click

from kazoo_ips.cli import completion
from kazoo_ips.cli.account_names import existing
from kazoo_ips.cli.console import (
    backend,
    json_option,
    print_table,
    reported,
    request_id,
    say,
)
from kazoo_ips.model import names
from kazoo_ips.model.limits import Limits
from kazoo_ips.services.assigning.limits import LimitStatus

_NONE = "none"
_FAILURE = "unable to set the limits"


class _Limit(click.ParamType[str]):
    """A number of addresses, or `none`."""

    name = "number"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value unchanged, if it is valid."""
        if value != _NONE and not (value.isascii() and value.isdigit() and len(value) < 10):
            self.fail(f"{value!r} is neither a number nor {_NONE}", param, ctx)
        return value


@click.command()
@click.argument("account", shell_complete=completion.accounts)
@click.option("--max", "most", type=_Limit(), help="Addresses of the account.")
@click.option(
    "--zone", "zones", multiple=True, metavar="ZONE=NUMBER",
    help="Addresses of the account in a zone. May be given for several zones.",
)  # fmt: skip
@click.option(
    "--descendants-max", type=_Limit(),
    help="Addresses of the account and all accounts below it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the result, and write nothing.")
@json_option
def limit(  # noqa: PLR0913 - each is one argument or option
    account: str,
    *,
    most: str | None,
    zones: Sequence[str],
    descendants_max: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show or set how many addresses an account may have.

    ACCOUNT is an id, a realm or a name. Limits without an option do not change; the number `none`
    removes a limit.
    """
    instance = backend()
    chosen = existing(instance, account, "unable to find account").id
    in_zones = dict(map(_zone_limit, zones))
    with reported(_FAILURE):
        status = instance.limits.status(chosen)
        if most or zones or descendants_max:
            limits = _changed(status.limits, most, in_zones, descendants_max)
            status = instance.limits.set(chosen, limits, request_id(), dry_run=dry_run)
    if as_json:
        say(json.dumps(_as_json(status)))
    else:
        _print(status)


def _zone_limit(given: str) -> tuple[str, str]:
    zone, equals, number = given.rpartition("=")
    problem = names.problem(zone) if equals else "is missing"
    if problem:
        raise click.BadParameter(f"{given!r}: the zone {problem}; use ZONE=NUMBER")
    return zone, str(_Limit().convert(number, None, None))


def _changed(
    limits: Limits, most: str | None, zones: dict[str, str], descendants_max: str | None
) -> Limits:
    kept = {zone: number for zone, number in limits.zones.items() if zone not in zones}
    new = {zone: int(number) for zone, number in zones.items() if number != _NONE}
    return Limits(
        limits.max if most is None else _number(most),
        {**kept, **new},
        limits.descendants_max if descendants_max is None else _number(descendants_max),
    )


def _number(given: str) -> int | None:
    return None if given == _NONE else int(given)


def _as_json(status: LimitStatus) -> dict[str, object]:
    return {
        "max": status.limits.max,
        "zones": dict(status.limits.zones),
        "descendants_max": status.limits.descendants_max,
        "used": {
            "total": status.used,
            "zones": status.zones,
            "descendants": status.descendants,
        },
        "exceeded_by": status.exceeded_by,
    }


def _print(status: LimitStatus) -> None:
    limits = status.limits
    lines = [["account", _shown(limits.max), str(status.used)]]
    lines += [
        [f"zone {zone}", _shown(limits.zones.get(zone)), str(status.zones.get(zone, 0))]
        for zone in sorted({*limits.zones, *status.zones})
    ]
    if status.descendants is not None:
        used = str(status.descendants)
        lines.append(["with accounts below", _shown(limits.descendants_max), used])
    print_table({"Limit of": 20, "Max": 9, "Used": 9}, lines)


def _shown(number: int | None) -> str:
    return _NONE if number is None else str(number)
