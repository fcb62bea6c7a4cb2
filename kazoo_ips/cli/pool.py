"""The commands `add`, `assign`, `release`, `delete` and `summary`."""

import json
from typing import BinaryIO

import click

from kazoo_ips.cli.account_names import account_id, existing
from kazoo_ips.cli.account_names import names as account_names
from kazoo_ips.cli.console import fail, print_table, reported, request_id, say, services
from kazoo_ips.cli.imports import import_block, import_file
from kazoo_ips.errors import IPExists
from kazoo_ips.model import (
    AssignIP,
    CreateIP,
    DeleteIP,
    ReleaseIP,
    ReleaseIPs,
    Status,
    addresses,
    names,
)

_COLUMNS = {"IP": 15, "Status": 10, "Zone": 10, "Host": 30, "Account": 32}
"""Kazoo's column widths. A longer value makes its column wider; Kazoo truncates it."""


@click.command()
@click.argument("ip", required=False)
@click.argument("zone", required=False)
@click.argument("host", required=False)
@click.option(
    "--from", "file", type=click.File("rb", lazy=False),
    help="Add the addresses of this CSV file: ip, zone, host; - is standard input.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the results, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def add(  # noqa: PLR0913 - each is one argument or option
    ip: str | None,
    zone: str | None,
    host: str | None,
    *,
    file: BinaryIO | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add one address to the pool, or many.

    IP is an address, a CIDR block (192.0.2.0/28: all of its 16 addresses) or a range
    (192.0.2.10-192.0.2.20). For many addresses the command prints a line for each. Addresses that
    are in the pool already are not changed, so the same list can be added again. The exit status
    is 0 if the pool then agrees with the list, and 1 otherwise.
    """
    if file and ip is None:
        import_file(file, dry_run=dry_run, as_json=as_json)
    elif file or ip is None or zone is None or host is None:
        raise click.UsageError("either IP, ZONE and HOST or --from FILE")
    elif dry_run or as_json or "/" in ip or "-" in ip:
        import_block(ip, zone, host, dry_run=dry_run, as_json=as_json)
    else:
        _add(ip, zone, host, explain=True)


@click.command()
@click.argument("ip")
@click.argument("zone")
@click.argument("host")
def add_one(ip: str, zone: str, host: str) -> None:
    """Add an address to the pool."""
    _add(ip, zone, host, explain=False)


def _add(ip: str, zone: str, host: str, *, explain: bool) -> None:
    """Add an address to the pool.

    :param explain: whether a conflict names the zone and host in the pool; Kazoo names neither
    """
    address = addresses.canonical(ip)
    if address is None:
        fail(f"unable to add IP {ip}: invalid_address")
    unusable = addresses.unusable(address)
    if unusable:
        fail(f"unable to add IP {ip}: invalid_address: {unusable}")
    for name, value in (("zone", zone), ("host", host)):
        problem = names.problem(value)
        if problem:
            fail(f"unable to add IP {ip}: invalid: the {name} {problem}")
    instance = services()
    with reported(f"unable to add IP {ip}"):
        try:
            instance.pool.create(CreateIP(address, zone, host), request_id())
        except IPExists:
            if not explain:
                raise
            has = instance.ips.fetch(address)
            differences = [
                f"in zone {has.zone}, not {zone}" if has.zone != zone else "",
                f"on host {has.host}, not {host}" if has.host != host else "",
            ]
            different = " and ".join(filter(None, differences)) or "with this zone and host"
            fail(f"unable to add IP {ip}: conflict: the pool has it already, {different}")
    say(f"added IP {ip} to available dedicated ips")


@click.command()
@click.argument("ip")
@click.argument("account")
def assign(ip: str, account: str) -> None:
    """Assign an address to an account: id, realm or name."""
    instance = services()
    chosen = existing(instance, account, "unable to find account").id
    with reported("unable to assign IP"):
        instance.ips.assign(AssignIP(chosen, ip), request_id())
    say(f"assigned IP {ip} to {chosen}")


@click.command()
@click.argument("ip", required=False)
@click.option(
    "--account",
    help="Release all addresses of this account: realm, name, or id, even of a deleted one.",
)
def release(ip: str | None, account: str | None) -> None:
    """Release an address, or all addresses of an account."""
    if (ip is None) == (account is None):
        raise click.UsageError("either an address or --account")
    if ip is None:
        instance = services()
        account = account_id(instance, account or "", "unable to release IPs")
        with reported("unable to release IPs"):
            ips = instance.ips.release_all(ReleaseIPs(account, None), request_id())
        for skipped in (ip for ip in ips if not ip.has_known_status):
            say(f"skipped IP {skipped.address}: {skipped.status}")
        say(f"released {sum(ip.has_known_status for ip in ips)} IPs of {account}")
        return
    service = services().ips
    with reported("unable to release IP"):
        # As in Kazoo, releasing an available address is not an error.
        if service.fetch(ip).status != Status.AVAILABLE:
            service.release(ReleaseIP(None, ip), request_id())
    say(f"released IP {ip}")


@click.command()
@click.argument("ip")
@click.option(
    "--force", is_flag=True,
    help="Release the address first if it is assigned; delete it in any status.",
)  # fmt: skip
def delete(ip: str, force: bool) -> None:
    """Delete an address from the pool."""
    with reported("unable to delete IP"):
        services().pool.delete(DeleteIP(ip, force), request_id())
    say(f"deleted IP {ip}")


@click.command()
@click.argument("host", required=False)
@click.option("--zone", help="Show the addresses of this zone only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def summary(host: str | None, zone: str | None, as_json: bool) -> None:
    """Show all addresses, or those of one host, as a table."""
    instance = services()
    with reported("unable to list IPs"):
        lines = instance.lists.summary(host)
        if zone is not None:
            lines = [line for line in lines if line[0].zone == zone]
        known = account_names(instance, (ip.assigned_to for ip, _ in lines))
    if as_json:
        for ip, status in lines:
            values = (ip.address, status, ip.zone, ip.host, ip.assigned_to)
            line = dict(zip(("ip", "status", "zone", "host", "account_id"), values, strict=True))
            say(json.dumps({**line, "account_name": known.get(ip.assigned_to or "")}))
    elif lines:
        rows = [(ip, status, ip.assigned_to or "") for ip, status in lines]
        cells = [
            [ip.address, status, ip.zone, ip.host, owner, known.get(owner, "")]
            for ip, status, owner in rows
        ]
        print_table({**_COLUMNS, "Name": 4}, cells)
    else:
        say("No IPs found")


@click.command()
@click.argument("host", required=False)
def kazoo_summary(host: str | None) -> None:
    """Show all addresses, or those of one host, in Kazoo's table."""
    with reported(f"Unable to list IPs assigned to host {host or 'undefined'}"):
        lines = services().lists.summary(host)
    if not lines:
        say("No IPs found")
        return
    print_table(
        _COLUMNS,
        [[ip.address, status, ip.zone, ip.host, ip.assigned_to or ""] for ip, status in lines],
    )
