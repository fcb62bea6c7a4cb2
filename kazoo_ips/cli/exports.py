"""The commands `export` and `import`: the pool, its history and the settings as one file."""

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from kazoo_ips.cli import terminal
from kazoo_ips.cli.console import (
    backend,
    fail,
    json_option,
    print_json,
    reported,
    say,
)
from kazoo_ips.model.names import csv_cell
from kazoo_ips.repositories.exports import RestoreOutcome
from kazoo_ips.services.pool import export_files
from kazoo_ips.services.pool.exports import BadExport, Line

_SHOWN = 20
"""The number of ids of different documents that are printed."""


@click.command("export")
@click.option(
    "--output", type=click.Path(dir_okay=False),
    help="Write to this file, which exists only when it is complete; standard output by default.",
)  # fmt: skip
@click.option(
    "--csv", "as_csv", is_flag=True, help="Write CSV in place of one JSON object a line."
)
@click.option("--no-history", is_flag=True, help="Leave out the events of the history.")
def export(output: str | None, *, as_csv: bool, no_history: bool) -> None:
    """Write all addresses, the history and the settings to a file."""
    service = backend().exports
    with reported("unable to export"):
        lines = service.lines(history=not no_history)
        length = service.size(history=not no_history) if sys.stderr.isatty() else 0
        if output is None:
            sys.stdout.reconfigure(newline="")  # type: ignore[union-attr]
            _write(sys.stdout, _with_progress(lines, length, "exporting"), as_csv=as_csv)
            return
        with _replaced(output) as file:
            _write(file, _with_progress(lines, length, "exporting"), as_csv=as_csv)


def _write(file: TextIO, lines: Iterable[Line], *, as_csv: bool) -> None:
    if not as_csv:
        file.writelines(f"{export_files.to_json(line)}\n" for line in lines)
        return
    writer = csv.DictWriter(file, export_files.COLUMNS)
    writer.writeheader()
    for line in lines:
        writer.writerow({k: csv_cell(v) for k, v in export_files.to_csv(line).items()})


@contextmanager
def _replaced(path: str) -> Iterator[TextIO]:
    """Open a file under another name, and give it its name when it is complete."""
    part = f"{path}.part"
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


_STEPS = 1000
"""The lines of one step of the progress bar."""


def _with_progress(lines: Iterable[Line], length: int, label: str) -> Iterator[Line]:
    """Yield the lines, with a progress bar on a terminal."""
    with terminal.progress(label, length or None) as advance:
        for number, line in enumerate(lines, 1):
            yield line
            if number % _STEPS == 0:
                advance(_STEPS)


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8", lazy=False))
@click.option("--dry-run", is_flag=True, help="Print the results, and write nothing.")
@json_option
def import_(file: TextIO, *, dry_run: bool, as_json: bool) -> None:
    """Store what `kazoo-ips export` has written, in an empty database.

    FILE has one JSON object a line, or CSV; - is standard input. Documents that the database has
    already are not changed, so an import that was interrupted can be repeated. The exit status is
    0 if the database then has all documents as they are in the file, and 1 otherwise. For plain
    lists of addresses, use `kazoo-ips add --from`. Uses COUCHDB_ADMIN_URL if it is set.
    """
    service = backend(as_administrator=True).restores
    counts: dict[str, Counter[str]] = {}
    different: list[str] = []
    without: set[str] = set()
    length = 0
    if file.seekable() and sys.stderr.isatty():
        length = sum(1 for _ in file)
        file.seek(0)
    try:
        with reported("unable to import"):
            lines = _with_progress(export_files.read(file), length, "importing")
            for result in service.restore(lines, dry_run=dry_run):
                counts.setdefault(result.type, Counter()).update(result.counts)
                different += result.different[: max(0, _SHOWN - len(different))]
                without.update(result.without_copies)
    except (BadExport, UnicodeDecodeError) as error:
        _report(counts, different, without, as_json=as_json)
        fail(str(error))
    _report(counts, different, without, as_json=as_json)
    good = {RestoreOutcome.ADDED, RestoreOutcome.UNCHANGED}
    sys.exit(0 if all(each.keys() <= good for each in counts.values()) else 1)


def _report(
    counts: dict[str, Counter[str]], different: list[str], without: set[str], *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "counts": {kind: dict(each) for kind, each in counts.items()},
                "different": different,
                "accounts_without_database": sorted(without),
            }
        )
        return
    for kind, each in counts.items():
        say(f"{kind}: " + ", ".join(f"{count} {name}" for name, count in each.items()))
    for document_id in different:
        say(f"different, and not changed: {document_id}", err=True)
    for account_id in sorted(without):
        say(f"no copies: the account {account_id} has no database here", err=True)
