"""Addresses: the list of the pool, one address with its history, and what can be done with it."""

from typing import Any

from flask import request, url_for

from kazoo_ips.api import address_schemas, queries, schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import events, forms, parts, reservations
from kazoo_ips.console.pages import (
    Confirmation,
    account_of,
    ask,
    caller,
    done,
    is_partial,
    page,
    pages,
    revision,
)
from kazoo_ips.console.parts import Part
from kazoo_ips.errors import IPNotFound, ValidationFailed
from kazoo_ips.model import (
    AssignIP,
    ChangeIP,
    DedicatedIP,
    DeleteIP,
    ListIPs,
    ReleaseIP,
    Status,
    TransferIPs,
)
from kazoo_ips.model.listings import Page

_POOL = queries.PoolSchema()


@pages.on("GET", "/addresses", who=Who.OPERATOR)
def list_addresses() -> str:
    """The addresses of the pool, by zone and address."""
    account, problem = forms.account_named(request.args.get("account", ""))
    try:
        query = _list_query(account.id if account else None)
    except ValidationFailed as error:
        query, problem = ListIPs(), forms.problem(error)
    lists = services().lists
    found = parts.read(
        lines=Part("the addresses", lambda: Page(()) if problem else lists.pool(query)),
        zones=Part("the names of the zones", lambda: () if is_partial() else lists.zones(), ()),
        hosts=Part("the names of the hosts", lambda: () if is_partial() else lists.hosts(), ()),
    )
    lines = found.pop("lines")
    shown = lines or Page(())
    owners = {line.assigned_to for line in shown.items if line.assigned_to}
    found |= parts.read(
        names=Part("the names of the accounts", lambda: services().accounts.names(owners), {})
    )
    return page(
        "_addresses.html" if is_partial() else "addresses.html",
        lines=shown.items,
        is_left_out=lines is None,
        next_page=forms.next_page(shown.after),
        problem=problem,
        statuses=list(Status),
        **found,
    )


def _list_query(account_id: str | None) -> ListIPs:
    """Return the command to list the addresses that the parameters choose.

    :raises ValidationFailed: a parameter is invalid or unknown
    """
    chosen = dict(forms.given())
    chosen.setdefault("status", queries.ANY_STATUS)
    if account_id:
        chosen["account_id"] = account_id
    return queries.load_list(schemas.load_query((_POOL,), chosen.items()))


@pages.on("GET", "/addresses/<address>", who=Who.ACCOUNT)
def show_address(address: str) -> Any:
    """One address: its state, its history, and what can be done with it."""
    try:
        ip = _fetch(address)
    except IPNotFound:
        if not caller().is_operator:
            raise
        history = events.of_address(address)  # it may have been in the pool before
        return page("gone.html", address=address, events=history), 404
    if is_partial():
        return page("_timeline.html", ip=ip, events=events.of_address(ip.address))
    found = parts.read(
        events=Part("its history", lambda: events.of_address(ip.address)),
        names=Part("the names of accounts", lambda: _names(ip), {}),
    )
    return page("address.html", ip=ip, **found)


def _names(ip: DedicatedIP) -> dict[str, str]:
    """Return the names of the accounts of an address that the caller may see, by id."""
    ids = {each for each in (ip.assigned_to, ip.last_assigned_to, ip.reserved_for) if each}
    if not caller().is_operator:
        ids &= {caller().account.id, ip.assigned_to}
    return services().accounts.names({each for each in ids if each})


def _fetch(address: str, verb: str = "GET") -> DedicatedIP:
    """Return an address that the caller may see.

    :raises IPNotFound: the caller may not see it, or the pool does not have it
    """
    ip = services().ips.fetch(address, caller())
    if not caller().is_operator:
        account_of(ip.assigned_to or caller().account.id, address, verb=verb)
    return ip


@pages.on("POST", "/addresses/<address>/assign", who=Who.ACCOUNT)
def assign_address(address: str) -> Any:
    """Assign an address to an account."""
    ip = _fetch(address, "POST")
    account = forms.account_from_form() if caller().is_operator else caller().account
    command = AssignIP(account.id, ip.address, revision())
    services().ips.assign(command, **write())
    path = url_for("console.show_address", address=ip.address)
    if not write()["dry_run"]:
        return done(path, "assigned")
    return ask(
        Confirmation(
            f"Assign {ip.address} to {account.name}",
            "Assign",
            path,
            [(ip.address, str(ip.status), f"assigned to {account.name} ({account.realm})")],
            ["From then on, calls of the account leave through this address."],
        )
    )


@pages.on("POST", "/addresses/<address>/reserve", who=Who.ACCOUNT)
def reserve_address(address: str) -> Any:
    """Reserve an address for an account."""
    ip = _fetch(address)
    account = forms.account_from_form() if caller().is_operator else caller().account
    account_of(account.id, "reservations", verb="PUT")
    back = url_for("console.show_address", address=ip.address)
    return reservations.reserve_for(account, back, [ip.address])


@pages.on("POST", "/addresses/<address>/release", who=Who.ACCOUNT)
def release_address(address: str) -> Any:
    """Release an address."""
    ip = _fetch(address, "DELETE")
    owner = None if caller().is_operator else ip.assigned_to or caller().account.id
    after = services().ips.release(ReleaseIP(owner, ip.address, revision()), **write())
    path = url_for("console.show_address", address=ip.address)
    if not write()["dry_run"]:
        return done(path, "released")
    name = services().accounts.names({ip.assigned_to or ""}).get(ip.assigned_to or "", "")
    return ask(
        Confirmation(
            f"Release {ip.address}",
            "Release",
            path,
            [(ip.address, f"assigned to {name or ip.assigned_to}", str(after.status))],
            [
                "Calls of the account no longer leave through this address. Carriers may still "
                "accept calls from it for this account."
            ],
            danger=True,
        )
    )


@pages.on("POST", "/addresses/<address>/change", who=Who.OPERATOR)
def change_address(address: str) -> Any:
    """Change the zone, the host, the description and the labels of an address."""
    ip = _fetch(address)
    command = address_schemas.load_change(ip.address, _changes(ip), (), revision())
    assert isinstance(command, ChangeIP)  # the form has no members of states
    after = services().address_changes.change(command, **write())
    path = url_for("console.show_address", address=ip.address)
    if not write()["dry_run"]:
        return done(path, "changed")
    shown = [
        (name, before or "none", then or "none")
        for name, before, then in zip(_SHOWN, _notes(ip), _notes(after), strict=True)
        if before != then
    ]
    moves = (ip.zone, ip.host) != (after.zone, after.host) and ip.assigned_to
    notes = ["Its account keeps it. Calls go to the new host at once."] if moves else []
    title = f"Change {ip.address}" if shown else f"Change nothing of {ip.address}"
    return ask(Confirmation(title, "Change", path, shown, notes))


_SHOWN = ("zone", "host", "description", "labels")


def _notes(ip: DedicatedIP) -> tuple[str, str, str, str]:
    labels = ", ".join(f"{key}:{value}" for key, value in ip.labels)
    return ip.zone, ip.host, ip.description or "", labels


def _changes(ip: DedicatedIP) -> dict[str, Any]:
    """Return what the form changes, in the form of the API.

    :raises ValidationFailed: a label has no colon
    """
    form = request.form
    data: dict[str, Any] = {
        name: form[name].strip() for name in ("zone", "host") if form.get(name)
    }
    data["description"] = form.get("description", "").strip() or None
    labels: dict[str, str | None] = {key: None for key, _ in ip.labels}
    for text in filter(None, (part.strip() for part in form.get("labels", "").split(","))):
        key, colon, value = text.partition(":")
        if not colon:
            rule = {"message": "a label is written as key:value", "value": text}
            raise ValidationFailed({"labels": {"pattern": rule}})
        labels[key.strip()] = value.strip()
    return {**data, "labels": labels}


@pages.on("POST", "/addresses/<address>/transfer", who=Who.OPERATOR)
def transfer_address(address: str) -> Any:
    """Transfer an address from its account to another one."""
    ip, account = _fetch(address), forms.account_from_form()
    command = TransferIPs((ip.address,), ip.assigned_to or "", account.id)
    services().transfers.transfer(command, **write())
    path = url_for("console.show_address", address=ip.address)
    if not write()["dry_run"]:
        return done(path, "transferred")
    owner = services().accounts.names({ip.assigned_to or ""}).get(ip.assigned_to or "", "")
    return ask(
        Confirmation(
            f"Transfer {ip.address} to {account.name}",
            "Transfer",
            path,
            [(ip.address, f"assigned to {owner}", f"assigned to {account.name}")],
            [
                "No third account can get it in between. Calls of its old account no longer leave "
                "through it."
            ],
            danger=True,
        )
    )


@pages.on("POST", "/addresses/<address>/delete", who=Who.OPERATOR)
def delete_address(address: str) -> Any:
    """Delete an address from the pool; if it is assigned, only by force."""
    ip = _fetch(address)
    force = request.form.get("force") == "yes"
    services().pool.delete(DeleteIP(ip.address, force, revision()), **write())
    if not write()["dry_run"]:
        return done(url_for("console.list_addresses", zone=ip.zone), "deleted")
    released = ["It is released first."] if ip.assigned_to else []
    return ask(
        Confirmation(
            f"Delete {ip.address} from the pool",
            "Delete",
            url_for("console.show_address", address=ip.address),
            [(ip.address, f"{ip.status}, in {ip.zone} on {ip.host}", "not in the pool")],
            [*released, "Its history stays."],
            danger=True,
        )
    )
