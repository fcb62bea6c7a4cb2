"""Read CSV lists of addresses: ip, zone and host.

The reader accepts what spreadsheets write: a byte order mark, CRLF, quotes, semicolons or tabs,
columns in any order, and further columns. It skips blank lines and lines that start with `#`.
Every other line becomes a row of an import, valid or not.
"""

import csv
from collections.abc import Callable, Iterator
from typing import BinaryIO

from kazoo_ips.model import names
from kazoo_ips.model.addresses import parse_block
from kazoo_ips.services.pool.imports import ImportRow

COLUMNS = ("ip", "zone", "host")
_MAX_LINE = 65_536
"""The maximum length of a line in bytes."""


class NoList(ValueError):
    """The file is not a list of addresses. The message says why."""


def read_list(file: BinaryIO) -> Iterator[ImportRow]:
    """Yield the rows of a list.

    The first line names the columns. If it has three cells and starts with an address, it is a row
    already, and the columns are ip, zone and host.

    :raises NoList: the first line is neither, or a line is too long
    """
    read: Callable[[int, str], ImportRow] | None = None
    for number, raw in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
        if len(raw) == _MAX_LINE:
            raise NoList(f"line {number} is too long for a list of addresses")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            yield ImportRow(number, raw.decode(errors="replace").strip(), problem="not UTF-8")
            continue
        if not line or line.startswith("#"):
            continue
        if read is None:
            read, names_columns = _reader(number, line)
            if names_columns:
                continue
        yield read(number, line)


def import_row(given: str, zone: str, host: str, line: int = 1) -> ImportRow:
    """Return the row for an address, a CIDR block or a range."""
    for name, value in (("ip", given), ("zone", zone), ("host", host)):
        if not value:
            return ImportRow(line, given, zone, host, problem=f"no {name}")
    for name, value in (("zone", zone), ("host", host)):
        problem = names.problem(value)
        if problem:
            return ImportRow(line, given, zone, host, problem=f"the {name} {problem}")
    try:
        block = parse_block(given)
    except ValueError as error:
        return ImportRow(line, given, zone, host, problem=str(error))
    if block.unusable:
        return ImportRow(line, given, zone, host, problem=block.unusable)
    return ImportRow(line, given, zone, host, block)


def _names_addresses(text: str) -> bool:
    try:
        return bool(parse_block(text))
    except ValueError:
        return False


def _reader(number: int, line: str) -> tuple[Callable[[int, str], ImportRow], bool]:
    """Return a function that reads lines like the first one, and whether that names the columns.

    :raises NoList: the first line neither names the columns nor is a row
    """
    delimiter = max(",;\t", key=line.count)
    try:
        names = [cell.casefold() for cell in _cells(line, delimiter)]
    except csv.Error as error:
        raise NoList(f"line {number} is not CSV: {error}") from error
    twice = [column for column in COLUMNS if names.count(column) > 1]
    if twice:
        raise NoList(f"line {number} has the column {twice[0]} twice")
    if set(COLUMNS) <= set(names):
        return _read_by(delimiter, names), True
    if len(names) == len(COLUMNS) and _names_addresses(names[0]):
        return _read_by(delimiter, list(COLUMNS)), False
    raise NoList(f"line {number} does not name the columns ip, zone and host: {line}")


def _read_by(delimiter: str, names: list[str]) -> Callable[[int, str], ImportRow]:
    ip, zone, host = (names.index(column) for column in COLUMNS)

    def read(number: int, line: str) -> ImportRow:
        try:
            cells = _cells(line, delimiter)
        except csv.Error as error:
            return ImportRow(number, line, problem=f"not CSV: {error}")
        if len(cells) != len(names):
            wanted = f"{len(cells)} cells where {len(names)} are wanted"
            return ImportRow(number, line, problem=wanted)
        return import_row(cells[ip], cells[zone], cells[host], number)

    return read


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' in line:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    else:  # the common case, and faster
        cells = line.split(delimiter)
    return [cell.strip() for cell in cells]
