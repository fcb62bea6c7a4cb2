"""The import command: a line of output for each address, and a summary."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, BinaryIO

from kazoo_ips.cli import terminal
from kazoo_ips.cli.console import backend, fail, request_id, say
from kazoo_ips.model.addresses import Block
from kazoo_ips.services.pool.address_lists import NoList, import_row, read_list
from kazoo_ips.services.pool.imports import GOOD, ImportResult, ImportRow

_REASONS = {
    "contradictory": "an earlier line has another zone or host",
    "failed": "CouchDB did not store it",
    "unknown": "it is not known whether CouchDB has stored it",
}


def import_file(file: BinaryIO, *, dry_run: bool, as_json: bool) -> None:
    """Add the addresses of a CSV file to the pool, and exit with status 0 or 1."""
    _import(read_list(file), _count_lines(file), "line {}: ", dry_run=dry_run, as_json=as_json)


def import_block(given: str, zone: str, host: str, *, dry_run: bool, as_json: bool) -> None:
    """Add an address, a block or a range to the pool, and exit with status 0 or 1."""
    row = import_row(given, zone, host)
    if row.block is None:
        fail(f"unable to add IP {given}: {row.problem}")
    version = row.block.version
    rows = (
        ImportRow(line, address, zone, host, Block(version, number, number))
        for line, (number, address) in enumerate(row.block, 1)
    )
    _import(rows, len(row.block), "", dry_run=dry_run, as_json=as_json)


def _import(
    rows: Iterable[ImportRow], length: int | None, prefix: str, *, dry_run: bool, as_json: bool
) -> None:
    counts: Counter[str] = Counter()
    shown = _json if as_json else lambda result: prefix.format(result.row.line) + _text(result)
    line = 0
    try:
        with terminal.progress("importing", length) as advance:
            for results in backend().imports.add(rows, request_id(), dry_run=dry_run):
                counts.update(result.outcome for result in results)
                say(*map(shown, results))
                advance(results[-1].row.line - line)
                line = results[-1].row.line
            advance((length or line) - line)
    except NoList as error:
        fail(str(error))
    finally:
        _print_summary(counts, as_json)
    sys.exit(0 if counts.keys() <= GOOD else 1)


def _text(result: ImportResult) -> str:
    outcome, existing, row = result.outcome, result.existing, result.row
    if outcome == "invalid":
        return f"{row.given} invalid: {row.problem}"
    if outcome == "different" and existing:
        return f"{result.address} different: in zone {existing.zone} on {existing.host}"
    reason = _REASONS.get(outcome)
    return f"{result.address} {outcome}: {reason}" if reason else f"{result.address} {outcome}"


def _json(result: ImportResult) -> str:
    outcome, existing, row = result.outcome, result.existing, result.row
    line: dict[str, Any] = {"line": row.line, "given": row.given}
    if outcome == "invalid":
        return json.dumps({**line, "result": "invalid", "reason": row.problem})
    line |= {"ip": result.address, "zone": row.zone, "host": row.host, "result": outcome}
    if outcome == "different" and existing:
        line["there"] = {"zone": existing.zone, "host": existing.host}
    return json.dumps(line)


def _print_summary(counts: Counter[str], as_json: bool) -> None:
    """Print the number of addresses with each result, also after an error."""
    if as_json:
        say(json.dumps({"sum": dict(counts)}))
    else:
        parts = [f"{count} {outcome}" for outcome, count in counts.items()]
        say(", ".join(parts) or "nothing to add")


def _count_lines(file: BinaryIO) -> int | None:
    """Return the number of lines, for the progress bar.

    The result is None for a stream, which can be read once only. It is too small if the file
    cannot be read to its end, or if its lines end with CR.
    """
    if not file.seekable():
        return None
    count = 1  # the last line may have no line end
    with suppress(OSError):
        count += sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
    file.seek(0)
    return count
