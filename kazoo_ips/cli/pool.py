"""The commands `add`, `assign`, `release` and `delete`."""

import json
from typing import BinaryIO

import click

from kazoo_ips.cli import completion
from kazoo_ips.cli.account_names import account_id, existing
from kazoo_ips.cli.backend import AddressState
from kazoo_ips.cli.console import (
    backend,
    fail,
    json_lines_option,
    json_option,
    reported,
    request_id,
    say,
)
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


@click.command()
@click.argument("ip", required=False)
@click.argument("zone", required=False, shell_complete=completion.zones)
@click.argument("host", required=False, shell_complete=completion.hosts)
@click.option(
    "--from", "file", type=click.File("rb", lazy=False),
    help="Add the addresses of this CSV file: ip, zone, host; - is standard input.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the results, and write nothing.")
@json_lines_option
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
    instance = backend()
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
@click.argument("ip", shell_complete=completion.ips)
@click.argument("account", shell_complete=completion.accounts)
@json_option
def assign(ip: str, account: str, as_json: bool) -> None:
    """Assign an address to an account: id, realm or name."""
    instance = backend()
    chosen = existing(instance, account, "unable to find account").id
    with reported("unable to assign IP"):
        after = instance.ips.assign(AssignIP(chosen, ip), request_id())
    _print_change(after, f"assigned IP {ip} to {chosen}", as_json=as_json)


def _print_change(ip: AddressState, text: str, *, as_json: bool) -> None:
    """Print a change of an address.

    :param ip: the address after the change
    """
    if as_json:
        line = {"ip": ip.address, "status": str(ip.status), "zone": ip.zone, "host": ip.host}
        text = json.dumps({**line, "account_id": ip.assigned_to})
    say(text)


@click.command()
@click.argument("ip", required=False, shell_complete=completion.ips)
@click.option(
    "--account",
    shell_complete=completion.accounts,
    help="Release all addresses of this account: realm, name, or id, even of a deleted one.",
)
@json_option
def release(ip: str | None, account: str | None, as_json: bool) -> None:
    """Release an address, or all addresses of an account.

    With --account, --json prints an object with the status of each address.
    """
    if (ip is None) == (account is None):
        raise click.UsageError("either an address or --account")
    if ip is None:
        instance = backend()
        account = account_id(instance, account or "", "unable to release IPs")
        with reported("unable to release IPs"):
            ips = instance.ips.release_all(ReleaseIPs(account, None), request_id())
        if as_json:
            statuses = {ip.address: str(ip.status) for ip in ips}
            say(json.dumps({"account_id": account, "ips": statuses}))
            return
        skipped = [ip for ip in ips if ip.status not in {*Status}]
        for each in skipped:
            say(f"skipped IP {each.address}: {each.status}")
        say(f"released {len(ips) - len(skipped)} IPs of {account}")
        return
    service = backend().ips
    with reported("unable to release IP"):
        after = service.fetch(ip)
        # As in Kazoo, releasing an available address is not an error.
        if after.status != Status.AVAILABLE:
            after = service.release(ReleaseIP(None, ip), request_id())
    _print_change(after, f"released IP {ip}", as_json=as_json)


@click.command()
@click.argument("ip", shell_complete=completion.ips)
@click.option(
    "--force", is_flag=True,
    help="Release the address first if it is assigned; delete it in any status.",
)  # fmt: skip
@json_option
def delete(ip: str, force: bool, as_json: bool) -> None:
    """Delete an address from the pool."""
    with reported("unable to delete IP"):
        before = backend().pool.delete(DeleteIP(ip, force), request_id())
    _print_change(before, f"deleted IP {ip}", as_json=as_json)
