"""Exports as files: a JSON object on each line (NDJSON), or CSV.

In CSV, the last column has the line as JSON, and only it is read again. The other columns are for
people and spreadsheets.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from kazoo_ips.services.history.times import iso_8601
from kazoo_ips.services.pool.exports import ADDRESS, EVENT, BadExport, Line

COLUMNS = ["type", "ip", "zone", "host", "status", "account_id", "event", "at", "content"]
_MAX_CELL = 10_000_000


def to_json(line: Line) -> str:
    """Return a line as JSON. The same line is always the same text."""
    return json.dumps(line, separators=(",", ":"), sort_keys=True)


def to_csv(line: Line) -> dict[str, str]:
    """Return the cells of a line of CSV."""
    document: dict[str, Any] = line.get("document", {})
    if line["type"] == ADDRESS:
        cells = {name: document.get(f"pvt_{name}") for name in ("zone", "host", "status")}
        cells |= {"ip": document["_id"], "account_id": document.get("pvt_assigned_to")}
    elif line["type"] == EVENT:
        after = document.get("after") or document.get("before") or document
        cells = {name: after.get(name) for name in ("zone", "host", "status")}
        cells |= {name: document.get(name) for name in ("ip", "account_id", "event")}
        cells["at"] = iso_8601(document["at"])
    else:
        cells = {}
    texts = {name: "" if value is None else str(value) for name, value in cells.items()}
    return {**dict.fromkeys(COLUMNS, ""), **texts, "type": line["type"], "content": to_json(line)}


def read(file: TextIO) -> Iterator[Line]:
    """Yield the lines of an export in either form.

    :raises BadExport: the file is neither
    """
    lines: Iterable[str] = file
    first = next(iter(file), "")
    if first.startswith("{"):
        texts: Iterable[str] = lines
        yield _parsed(first, 1)
    else:
        csv.field_size_limit(_MAX_CELL)
        header = next(csv.reader([first]), [])
        if header[-1:] != COLUMNS[-1:]:
            raise BadExport("this is not an export: the first line is not its header")
        texts = _contents(file)
    for number, text in enumerate(texts, 2):
        yield _parsed(text, number)


def _contents(file: TextIO) -> Iterator[str]:
    try:
        for cells in csv.reader(file, strict=True):
            yield cells[-1] if len(cells) == len(COLUMNS) else ""
    except csv.Error as error:
        raise BadExport(f"the file is not CSV: {error}") from error


def _parsed(text: str, number: int) -> Line:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise BadExport(f"line {number} is not JSON") from error
    if not isinstance(line, dict):
        raise BadExport(f"line {number} is not a JSON object")
    return line
