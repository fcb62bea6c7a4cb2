"""Accounts: the list of all, one with its addresses, assigning and releasing its addresses."""

from typing import Any

from flask import request, url_for

from kazoo_ips.api import bodies, queries, schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import forms, parts
from kazoo_ips.console.pages import (
    Confirmation,
    account_of,
    ask,
    caller,
    done,
    is_partial,
    page,
    pages,
)
from kazoo_ips.console.parts import Part
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import Account, AllocateIPs, AssignIPs, ListIPs, ReleaseIPs

_LINES = 50
"""Number of accounts on a page."""


@pages.on("GET", "/accounts", who=Who.OPERATOR)
def list_accounts() -> str:
    """The accounts, by name, or those whose name or realm begins with a text."""
    text = request.args.get("q", "").strip()
    found = services().accounts.starting_with(text, _LINES)
    ancestors = {account_id for account in found for account_id in account.tree}
    ids = [account.id for account in found]
    shown = parts.read(
        counts=Part("how many addresses each has", lambda: services().summaries.of_accounts(ids)),
        names=Part("the accounts above", lambda: services().accounts.names(ancestors), {}),
    )
    counts = shown.pop("counts") or [None] * len(found)
    return page(
        "_accounts.html" if is_partial() else "accounts.html",
        accounts=list(zip(found, counts, strict=True)),
        has_more=len(found) == _LINES,
        **shown,
    )


@pages.on("GET", "/accounts/<account_id>", who=Who.ACCOUNT)
def show_account(account_id: str) -> str:
    """One account: its addresses, and what it can do with them."""
    account = account_of(account_id, "assigned")
    query, problem = ListIPs(), ""
    try:
        given = [(k, v) for k, v in forms.given() if k == "start_key"]
        query = queries.load_list(schemas.load_query((queries.AssignedSchema(),), given))
    except ValidationFailed as error:
        problem = forms.problem(error)
    lists, accounts = services().lists, services().accounts
    found = parts.read(
        lines=Part("its addresses", lambda: lists.assigned(query, account.id)),
        counts=Part("the counts", lambda: services().summaries.account(
            account.id, None, _LINES + 1).items, (None,)),
        ancestors=Part("the accounts above", lambda: accounts.names(
            account.tree if caller().is_operator else ()), {}),
        zones=Part("the names of the zones", lists.zones, ()),
        hosts=Part("the names of the hosts", lists.hosts, ()),
    )  # fmt: skip
    lines, (counts, *below) = found.pop("lines"), found.pop("counts")
    ids = [each.name for each in below]
    found |= parts.read(
        below_names=Part("the names of the accounts below", lambda: accounts.names(ids), {})
    )
    return page(
        "_holdings.html" if is_partial() else "account.html",
        account=account,
        lines=lines.items if lines else (),
        next_page=forms.next_page(lines.after) if lines else None,
        is_left_out=lines is None,
        counts=counts,
        below=below,
        problem=problem,
        **found,
    )


@pages.on("POST", "/accounts/<account_id>/take", who=Who.ACCOUNT)
def take(account_id: str) -> Any:
    """Assign addresses to an account: the service proposes them, and assigns them if confirmed."""
    account = account_of(account_id, verb="POST")
    path = url_for("console.show_account", account_id=account.id)
    if not write()["dry_run"]:
        command = bodies.load_assign(account.id, {"ips": request.form.getlist("address")})
        services().ips.assign_all(_named(command), **write())
        return done(path, "assigned")
    chosen = services().allocation.allocate(_allocation(account), **write())
    return ask(
        Confirmation(
            f"Assign {_counted(len(chosen))} to {account.name}",
            "Assign",
            path,
            [(ip.address, f"available, in {ip.zone} on {ip.host}", "assigned") for ip in chosen],
            ["The service has chosen these addresses. All of them are assigned, or none."],
            fields=[("address", ip.address) for ip in chosen],
        )
    )


def _named(command: AssignIPs | AllocateIPs) -> AssignIPs:
    assert isinstance(command, AssignIPs)
    return command


def _allocation(account: Account) -> AllocateIPs:
    """Return the command of the form that takes addresses.

    :raises ValidationFailed: with the rule that a field breaks
    """
    return AllocateIPs(
        account.id,
        forms.whole_number("quantity", 1000),
        request.form.get("zone") or None,
        request.form.get("host") or None,
        distinct_hosts=request.form.get("spread") == "hosts",
        distinct_zones=request.form.get("spread") == "zones",
    )


@pages.on("POST", "/accounts/<account_id>/release", who=Who.ACCOUNT)
def give_back(account_id: str) -> Any:
    """Release the addresses of an account that the form names, all or none."""
    account = account_of(account_id, verb="DELETE")
    path = url_for("console.show_account", account_id=account.id)
    addresses = bodies.load_addresses({"ips": request.form.getlist("address")})
    after = services().ips.release_all(ReleaseIPs(account.id, addresses), **write())
    if not write()["dry_run"]:
        return done(path, "released")
    return ask(
        Confirmation(
            f"Release {_counted(len(after))} of {account.name}",
            "Release",
            path,
            [(ip.address, "assigned", str(ip.status)) for ip in after],
            ["Calls of the account no longer leave through these addresses."],
            danger=True,
        )
    )


def _counted(count: int) -> str:
    return f"{count} address{'es' * (count != 1)}"
