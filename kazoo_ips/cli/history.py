"""The commands `history` and `history-export`."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from kazoo_ips.cli import completion
from kazoo_ips.cli.account_names import account_id, names
from kazoo_ips.cli.backend import Backend
from kazoo_ips.cli.console import (
    backend,
    fail,
    json_lines_option,
    print_table,
    reported,
    say,
)
from kazoo_ips.model import addresses
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.names import csv_cell
from kazoo_ips.model.timelines import Holder, ListEvents
from kazoo_ips.services.history import json_objects, times

_SHOWN = 1000
"""The number of events that are printed as a table."""
_COLUMNS = {"Time": 20, "IP": 15, "Event": 10, "Account": 32, "Zone": 10, "By": 10, "Certain": 7}


def _time(rounding: Callable[[float], int]) -> Callable[..., int | None]:
    """Return the callback of an option whose value is a time."""

    def parse(_context: click.Context, _option: click.Parameter, given: str | None) -> int | None:
        try:
            return None if given is None else times.parse(given, rounding)
        except ValueError:
            raise click.BadParameter(f"{given!r} is {times.NEITHER}") from None

    return parse


_LATER, _EARLIER = _time(math.ceil), _time(math.floor)


@click.command()
@click.argument("ip_or_account", metavar="IP|ACCOUNT", shell_complete=completion.ips_or_accounts)
@click.option(
    "--at", callback=_EARLIER, metavar="TIME", help="Print who had the address at this time."
)
@click.option(
    "--from", "since", callback=_LATER, metavar="TIME", help="Only events at this time or later."
)
@click.option(
    "--to", "until", callback=_LATER, metavar="TIME", help="Only events before this time."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print all events as CSV.")
@json_lines_option
def history(  # noqa: PLR0913 - each is one argument or option
    ip_or_account: str,
    *,
    at: int | None,
    since: int | None,
    until: int | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show the events of an address or an account, the latest first.

    ACCOUNT is an id, even of a deleted account, a realm or a name. A time is ISO 8601, in UTC if
    it has no offset (2026-11-01, 2026-11-01T08:00:00+01:00), or Gregorian seconds. Without --csv
    and --json, at most 1,000 events are printed.
    """
    if as_csv and as_json:
        raise click.UsageError("either --csv or --json")
    chosen = backend()
    is_address = addresses.canonical(ip_or_account) is not None
    if at is not None:
        if not is_address or since is not None or until is not None:
            raise click.UsageError("--at takes an address, without --from and --to")
        with reported("unable to read the history"):
            holder = chosen.history.holder(ip_or_account, at)
        _print_holder(chosen, holder, as_csv=as_csv, as_json=as_json)
        return
    query = ListEvents(since=since, until=until, limit=None)
    with reported("unable to read the history"):
        found = _events(chosen, ip_or_account, query, is_address=is_address)
        if as_csv or as_json:
            _print_all(found, as_json=as_json)
        else:
            _print_events(chosen, found)


def _events(
    services: Backend, given: str, query: ListEvents, *, is_address: bool
) -> Iterator[HistoryEvent]:
    if is_address:
        query = replace(query, address=given)
        return services.history.lines(query)
    account = account_id(services, given, "unable to read the history")
    return services.history.lines(replace(query, account_id=account))


@click.command()
@click.argument("year", type=click.IntRange(1, 9999))
@json_lines_option
def history_export(year: int, *, as_json: bool) -> None:
    """Print all events in the database of a year as CSV, the earliest first.

    Run this before you delete the database. The database of the oldest year also has the events of
    all years before it.
    """
    instance = backend()
    if year not in instance.history.years():
        kept = ", ".join(map(str, instance.history.years())) or "none"
        fail(f"unable to export {year}: the history has no database of this year; years: {kept}")
    with reported(f"unable to export {year}"):
        _print_all(instance.history.export(year), as_json=as_json)


def _print_holder(services: Backend, holder: Holder, *, as_csv: bool, as_json: bool) -> None:
    line = json_objects.of_holder(holder, names(services, [holder.account_id]))
    if as_json:
        say(json.dumps(line))
    elif as_csv:
        _write_csv(json_objects.HOLDER_COLUMNS, [line])
    else:
        cells = json_objects.csv_line(line, json_objects.HOLDER_COLUMNS)
        say(*(f"{name}: {value}" for name, value in cells.items() if value))


def _print_events(services: Backend, found: Iterator[HistoryEvent]) -> None:
    shown = list(islice(found, _SHOWN))
    named = names(services, (event.account_id for event in shown))
    if shown:
        print_table({**_COLUMNS, "Name": 4}, [_cells(event, named) for event in shown])
    else:
        say("No events found")
    if next(found, None):
        say(f"these are the latest {_SHOWN} events; --csv and --json print all", err=True)


def _cells(event: HistoryEvent, named: Mapping[str, str]) -> list[str]:
    state, owner = event.after or event.before, event.account_id or ""
    return [
        times.iso_8601(event.at) or str(event.at),
        event.address,
        event.event,
        owner,
        state.zone if state else "",
        _author(event),
        "yes" if event.certain else "no",
        named.get(owner, ""),
    ]


def _author(event: HistoryEvent) -> str:
    """Return who made a change, in a few words."""
    by = event.by
    if by.command:
        return f"{by.command} ({by.system_user})" if by.system_user else by.command
    return " ".join(filter(None, (by.account_id, by.user_id))) or str(event.source)


def _print_all(found: Iterable[HistoryEvent], *, as_json: bool) -> None:
    """Print events of any number, one after the other."""
    if as_json:
        for event in found:
            say(json.dumps(json_objects.of_event(event)))
    else:
        _write_csv(json_objects.EVENT_COLUMNS, map(json_objects.of_event, found))


def _write_csv(columns: list[str], found: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    for line in found:
        cells = json_objects.csv_line(line, columns)
        writer.writerow({name: csv_cell(cell) for name, cell in cells.items()})
