"""Disabling and enabling addresses, hosts and zones; how long addresses rest."""

from typing import Any

from flask import request, url_for
from werkzeug.exceptions import BadRequest

from kazoo_ips.api import place_schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import formats
from kazoo_ips.console.pages import Confirmation, ask, done, pages, revision
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import DedicatedIP, DisableIP, EnableIP, EndRest, Scope
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState


@pages.on("POST", "/addresses/<address>/disable", who=Who.OPERATOR)
def disable_address(address: str) -> Any:
    """Disable an address."""
    command = DisableIP(address, _reason(), revision())
    after = services().operator_changes.disable(command, **write())
    notes = ["It stays assigned until it is released."] if after.assigned_to else []
    return _changed(after, "Take {} out of service", "Take out", notes)


@pages.on("POST", "/addresses/<address>/enable", who=Who.OPERATOR)
def enable_address(address: str) -> Any:
    """Enable an address again."""
    command = EnableIP(address, request.form.get("reason", ""), revision())
    after = services().operator_changes.enable(command, **write())
    return _changed(after, "Take {} into service again", "Take into service")


@pages.on("POST", "/addresses/<address>/end-rest", who=Who.OPERATOR)
def end_rest(address: str) -> Any:
    """End the rest of an address before its time."""
    command = EndRest(address, _reason(), revision())
    after = services().operator_changes.end_rest(command, **write())
    return _changed(after, "End the rest of {}", "End its rest")


def _changed(after: DedicatedIP, title: str, button: str, notes: list[str] | None = None) -> Any:
    """Return the page that asks to confirm a change of an address, or that follows it."""
    path = url_for("console.show_address", address=after.address)
    if not write()["dry_run"]:
        return done(path, "changed")
    before = services().ips.fetch(after.address)
    lines = [(after.address, _state(before), _state(after))]
    return ask(Confirmation(title.format(after.address), button, path, lines, notes or []))


def _state(ip: DedicatedIP) -> str:
    reason = f": {ip.disabled.reason}" if ip.disabled else ""
    return (
        f"{ip.status}, out of service{reason}"
        if ip.disabled and ip.assigned_to
        else (f"{ip.status}{reason}")
    )


def _reason() -> str:
    """Return the reason that the form gives.

    :raises ValidationFailed: there is none
    """
    reason = request.form.get("reason", "").strip()
    if not reason:
        rule = {"message": "Field is required but missing"}
        raise ValidationFailed({"reason": {"required": rule}})
    return reason


@pages.on("POST", "/<scope>/state", who=Who.OPERATOR)
def change_place(scope: str) -> Any:
    """Drain a host or a zone, or enable it again."""
    place, form = _place(scope), request.form
    data: dict[str, Any] = {"enabled": form.get("enabled") == "yes"}
    if not data["enabled"]:
        data["reason"] = _reason()
    command = place_schemas.load_change(place, data)
    before = services().places.fetch(place)
    after = services().places.change(command, **write())
    if not write()["dry_run"]:
        return done(_path(place), "drained" if not data["enabled"] else "enabled")
    verb = "Enable" if data["enabled"] else "Drain"
    notes = (
        ["This enables exactly the addresses that the drain has disabled."]
        if data["enabled"]
        else [
            "Accounts keep their addresses. No other address there is assigned any more. An "
            "address that is released there later is disabled."
        ]
    )
    return ask(
        Confirmation(
            f"{verb} the {scope} {place.name}",
            verb,
            _path(place),
            _counts(before, after),
            notes,
            danger=not data["enabled"],
        )
    )


@pages.on("POST", "/zone/settings", who=Who.OPERATOR)
def change_zone() -> Any:
    """Change how long addresses of a zone rest after their release."""
    place, form = _place("zone"), request.form
    days = form.get("aging_days", "").strip()
    if not days.replace(".", "", 1).isdigit():
        rule = {"message": "a number of days is required", "value": days}
        raise ValidationFailed({"aging_days": {"type": rule}})
    data = {
        "aging_seconds": round(float(days) * 86_400),
        "when_empty": form.get("when_empty", "wait"),
    }
    command: ChangePlace = place_schemas.load_change(place, data)
    before = services().places.fetch(place).settings
    after = services().places.change(command, **write()).settings
    if not write()["dry_run"]:
        return done(_path(place), "settings_changed")
    lines = [
        ("Rest after a release", formats.duration(before.aging_seconds),
         formats.duration(after.aging_seconds)),
        ("If only resting ones are left", _when_empty(before.takes_oldest),
         _when_empty(after.takes_oldest)),
    ]  # fmt: skip
    notes = ["It applies to releases from now on."]
    title = f"Change the settings of {place.name}"
    return ask(Confirmation(title, "Change", _path(place), lines, notes))


def _when_empty(takes_oldest: bool) -> str:
    return "assign those that have rested longest" if takes_oldest else "assign none"


def _place(scope: str) -> Place:
    """Return the zone or host that the form names.

    :raises BadRequest: the path names neither a zone nor a host
    """
    if scope not in {Scope.HOST, Scope.ZONE}:
        raise BadRequest
    return Place(Scope(scope), request.form.get("name", ""))


def _path(place: Place) -> str:
    return url_for(f"console.show_{place.scope}", name=place.name)


def _counts(before: PlaceState, after: PlaceState) -> list[tuple[str, str, str]]:
    """Return how many addresses of each status there are, before and after a change."""
    now, then = before.summary.counts, after.summary.counts
    return [
        (name, formats.number(now.get(name, 0)), formats.number(then.get(name, 0)))
        for name in formats.ordered({**now, **then})
    ]
