"""The command `summary`: all addresses as a table, or how many there are."""

import json
from collections.abc import Iterator
from functools import partial

import click

from kazoo_ips.cli import completion
from kazoo_ips.cli.account_names import AccountNames
from kazoo_ips.cli.console import (
    backend,
    json_lines_option,
    print_long_table,
    print_table,
    reported,
    say,
    services,
)
from kazoo_ips.model import ListIPs, Status, Summary
from kazoo_ips.services.history.times import date
from kazoo_ips.services.pool.summaries import walk

_COLUMNS = {"IP": 15, "Status": 10, "Zone": 10, "Host": 30, "Account": 32}
"""Kazoo's column widths. A longer value makes its column wider; Kazoo truncates it."""
_MEMBERS = ("ip", "status", "zone", "host", "account_id")
Line = list[str | None]


@click.command()
@click.argument("host", required=False, shell_complete=completion.hosts)
@click.option(
    "--zone", shell_complete=completion.zones, help="Show the addresses of this zone only."
)
@click.option(
    "--by", type=click.Choice(["status", "zone", "host", "account"]),
    help="Print counts in place of addresses, which is fast for any number of them.",
)  # fmt: skip
@json_lines_option
def summary(host: str | None, zone: str | None, by: str | None, *, as_json: bool) -> None:
    """Show all addresses, or those of one host, as a table; or how many there are."""
    if by is None:
        with reported("unable to list IPs"):
            _print_addresses(host, zone, as_json=as_json)
        return
    if host is not None:
        raise click.UsageError("either HOST or --by")
    if by == "account" and zone is not None:
        raise click.UsageError("either --zone or --by account")
    with reported("unable to count IPs"):
        _print_counts(by, zone, as_json=as_json)


@click.command()
@click.argument("host", required=False)
def kazoo_summary(host: str | None) -> None:
    """Show all addresses, or those of one host, in Kazoo's table."""
    instance = services()

    def cells() -> Iterator[list[str]]:
        for ip, status in instance.lists.summary(host):
            yield [ip.address, status, ip.zone, ip.host, ip.assigned_to or ""]

    with reported(f"Unable to list IPs assigned to host {host or 'undefined'}"):
        if not print_long_table(_COLUMNS, cells, plain=True):
            say("No IPs found")


def _print_addresses(host: str | None, zone: str | None, *, as_json: bool) -> None:
    used = backend()
    names = AccountNames(used)
    query = ListIPs(zone=zone, host=host)

    def read() -> Iterator[Line]:
        for ip in used.lists.lines(query):
            yield [ip.address, ip.status, ip.zone, ip.host, ip.assigned_to]

    def cells() -> Iterator[list[str]]:
        lines = names.of(read())
        return ([cell or "" for cell in (*line, name)] for line, name in lines)

    if as_json:
        for line, name in names.of(read()):
            values = dict(zip(_MEMBERS, line, strict=True))
            say(json.dumps({**values, "account_name": name}))
    elif not print_long_table({**_COLUMNS, "Name": 4}, cells):
        say("No IPs found")


def _print_counts(by: str, zone: str | None, *, as_json: bool) -> None:
    """Print the number of addresses of each status.

    :param by: `status`, or `zone`, `host` or `account` for a line for each of them
    :param zone: count only the addresses of this zone
    """
    found = list(_read(by, zone))
    names = _names(found) if by == "account" else {}
    if as_json:
        for each in found:
            say(json.dumps(_json(by, each, names)))
    elif not found:
        say("No IPs found")
    elif by == "status":
        counts = found[0].counts
        print_table({"Status": 10, "IPs": 8}, [[s, str(counts[s])] for s in _statuses(found)])
    else:
        _print_table(by, found, names)


def _read(by: str, zone: str | None) -> Iterator[Summary]:
    service = backend().summaries
    if by == "account":
        return walk(service.accounts)
    if by == "host":
        return walk(partial(service.hosts, zone=zone))
    if by == "zone" and zone is None:
        return walk(service.zones)
    summary = service.pool() if zone is None else service.zone(zone)
    return iter([summary] if summary.counts else [])


def _names(found: list[Summary]) -> dict[str, str]:
    lines = AccountNames(backend()).of([each.name] for each in found)
    return {str(line[0]): name for line, name in lines if name is not None}


def _json(by: str, summary: Summary, names: dict[str, str]) -> dict[str, object]:
    if by == "status":
        return {"total": summary.total, "counts": _sorted(summary)}
    member = "account_id" if by == "account" else by
    line: dict[str, object] = {member: summary.name}
    if by == "account":
        line["account_name"] = names.get(summary.name)
    line |= {"total": summary.total, "counts": _sorted(summary)}
    if by == "zone":
        line["low"] = bool(summary.low)
        line["exhausts_at"] = date(summary.forecast.day) if summary.forecast else None
    return line


def _print_table(by: str, found: list[Summary], names: dict[str, str]) -> None:
    statuses = _statuses(found)
    columns = {by.capitalize(): 32 if by == "account" else 10}
    columns |= {status.capitalize(): 0 for status in statuses}
    columns |= {"Total": 8, **({"Name": 4} if by == "account" else {"Used": 6})}
    columns |= {"Low": 3, "Runs out": 10} if by == "zone" else {}
    print_table(
        columns,
        [
            [
                each.name,
                *(str(each.counts.get(status, 0)) for status in statuses),
                str(each.total),
                names.get(each.name, "") if by == "account" else f"{each.used:.1%}",
                *(_of_zone(each) if by == "zone" else []),
            ]
            for each in found
        ],
    )


def _of_zone(zone: Summary) -> list[str]:
    return ["low" if zone.low else "", date(zone.forecast.day) if zone.forecast else ""]


def _statuses(found: list[Summary]) -> list[str]:
    """Return the statuses that occur: those that this release knows first, in their order."""
    known = [str(status) for status in Status]
    occurring = {status for each in found for status in each.counts}
    return [s for s in known if s in occurring] + sorted(occurring.difference(known))


def _sorted(summary: Summary) -> dict[str, int]:
    return {status: summary.counts[status] for status in _statuses([summary])}
