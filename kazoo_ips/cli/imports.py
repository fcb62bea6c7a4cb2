"""The import command: a line of output for each address, and a summary."""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any, BinaryIO
from uuid import uuid4

import click

from kazoo_ips.cli.address_lists import NoList, read_list, wish
from kazoo_ips.cli.console import fail, services
from kazoo_ips.model.addresses import Block
from kazoo_ips.services.pool.imports import GOOD, ImportRow, Result

_WHY = {
    "contradictory": "an earlier line has another zone or host",
    "failed": "CouchDB did not store it",
    "unknown": "it is not known whether CouchDB has stored it",
}


def fill_from(file: BinaryIO, *, dry_run: bool, as_json: bool) -> None:
    """Add the addresses of a CSV file to the pool, and exit with status 0 or 1."""
    _fill(read_list(file), _lines(file), "line {}: ", dry_run=dry_run, as_json=as_json)


def fill_with(given: str, zone: str, host: str, *, dry_run: bool, as_json: bool) -> None:
    """Add an address, a block or a range to the pool, and exit with status 0 or 1."""
    asked = wish(given, zone, host)
    if asked.block is None:
        fail(f"unable to add IP {given}: {asked.problem}")
    version = asked.block.version
    wishes = (
        ImportRow(place, address, zone, host, Block(version, number, number))
        for place, (number, address) in enumerate(asked.block, 1)
    )
    _fill(wishes, len(asked.block), "", dry_run=dry_run, as_json=as_json)


def _fill(
    wishes: Iterable[ImportRow], length: int | None, place: str, *, dry_run: bool, as_json: bool
) -> None:
    counts: Counter[str] = Counter()
    tell = _json if as_json else lambda result: place.format(result.wish.line) + _text(result)
    # Without a length, the progress bar only shows that the import goes on.
    more: dict[str, Any] = {"length": length} if length else {"iterable": itertools.count()}
    hidden = not sys.stderr.isatty()
    try:
        with click.progressbar(label="filling", file=sys.stderr, hidden=hidden, **more) as bar:
            for results in services().imports.fill(wishes, uuid4().hex, dry_run=dry_run):
                counts.update(result.verdict for result in results)
                if not hidden:  # clears the bar, so that the output scrolls above it
                    click.echo("\r\x1b[K", nl=False, err=True)
                click.echo("\n".join(map(tell, results)))
                bar.update(results[-1].wish.line - bar.pos)
            bar.update((length or bar.pos) - bar.pos)
    except NoList as error:
        fail(str(error))
    finally:
        _sum_up(counts, as_json)
    sys.exit(0 if counts.keys() <= GOOD else 1)


def _text(result: Result) -> str:
    verdict, there, given = result.verdict, result.there, result.wish.given
    if verdict == "invalid":
        return f"{given} invalid: {result.wish.problem}"
    if verdict == "different" and there:
        return f"{result.address} different: in zone {there.zone} on {there.host}"
    why = _WHY.get(verdict)
    return f"{result.address} {verdict}: {why}" if why else f"{result.address} {verdict}"


def _json(result: Result) -> str:
    told: dict[str, Any] = {"line": result.wish.line, "given": result.wish.given}
    if result.verdict == "invalid":
        return json.dumps({**told, "result": "invalid", "reason": result.wish.problem})
    told |= {"ip": result.address, "zone": result.wish.zone, "host": result.wish.host}
    told["result"] = result.verdict
    if result.verdict == "different" and result.there:
        told["there"] = {"zone": result.there.zone, "host": result.there.host}
    return json.dumps(told)


def _sum_up(counts: Counter[str], as_json: bool) -> None:
    """Print the number of addresses with each result, also after an error."""
    if as_json:
        click.echo(json.dumps({"sum": dict(counts)}))
    else:
        parts = [f"{count} {verdict}" for verdict, count in counts.items()]
        click.echo(", ".join(parts) or "nothing to add")


def _lines(file: BinaryIO) -> int | None:
    """Return the number of lines; None for a stream, which can be read once only."""
    if not file.seekable():
        return None
    count = sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
    file.seek(0)
    return count + 1  # the last line may have no line end
