"""The limits of an account: what counts against them, and how those above it change them."""

from typing import Any

from flask import request, url_for

from kazoo_ips.api.limits import load_limits
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import require_above, services, write
from kazoo_ips.console import parts
from kazoo_ips.console.pages import Confirmation, account_of, ask, caller, done, page, pages
from kazoo_ips.console.parts import Part
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model.limits import Limits

_NONE = "no limit"


@pages.on("GET", "/accounts/<account_id>/limits", who=Who.ACCOUNT)
def show_limits(account_id: str) -> str:
    """The limits of an account, and what it has."""
    account = account_of(account_id, "limits")
    return page(
        "limits.html",
        account=account,
        may_change=caller().is_operator or caller().account.id != account.id,
        **parts.read(
            status=Part("the limits", lambda: services().limits.status(account.id)),
            zones=Part("the names of the zones", services().lists.zones, ()),
        ),
    )


@pages.on("POST", "/accounts/<account_id>/limits", who=Who.ACCOUNT)
def set_limits(account_id: str) -> Any:
    """Set the limits of an account."""
    account = account_of(account_id, "limits", verb="POST")
    require_above(caller(), account)
    limits = load_limits(_given(), ())
    before = services().limits.status(account.id)
    after = services().limits.set(account.id, limits, **write())
    path = url_for("console.show_limits", account_id=account.id)
    if not write()["dry_run"]:
        return done(path, "limits_set")
    old, new = _lines(before.limits), _lines(limits)
    lines = [
        (name, old.get(name, _NONE), new.get(name, _NONE))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    notes = ["All processes apply new limits after ten seconds."]
    if after.exceeded_by:
        notes.append(f"The account keeps {after.exceeded_by} addresses above its limits.")
    title = f"Change the limits of {account.name}"
    return ask(Confirmation(title, "Change", path, lines, notes))


def _given() -> dict[str, Any]:
    """Return the limits of the form, in the form of the API.

    :raises ValidationFailed: a text is no number, or a line of zones is malformed
    """
    form = request.form
    data: dict[str, Any] = {
        name: _number(name, form[name].strip())
        for name in ("max", "descendants_max")
        if form.get(name, "").strip()
    }
    zones = {}
    for line in filter(None, (line.strip() for line in form.get("zones", "").splitlines())):
        zone, _, number = line.rpartition("=")
        zones[zone.strip()] = _number("zones", number.strip())
    return {**data, "zones": zones}


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text[:9])
    raise ValidationFailed({name: {"type": {"message": "a number is required", "value": text}}})


def _lines(limits: Limits) -> dict[str, str]:
    """Return the limits as texts, by their names."""
    named = {"Addresses": limits.max, "With the accounts below": limits.descendants_max}
    named |= {f"In {zone}": number for zone, number in sorted(limits.zones.items())}
    return {name: str(number) for name, number in named.items() if number is not None}
