"""Read CSV lists of addresses: ip, zone and host.

The reader accepts the files that spreadsheets write: UTF-8 with or without a byte order mark,
UTF-16 with one, lines that end with LF, CRLF or CR, quotes, semicolons or tabs, columns in any
order and under several names, and further columns. It skips blank lines, rows of empty cells,
lines that start with `#`, and a first line that names the separator (`sep=;`). Every other line
becomes a row of an import, valid or not.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from kazoo_ips import error_texts
from kazoo_ips.model import names
from kazoo_ips.model.addresses import parse_block
from kazoo_ips.services.pool.imports import ImportRow

COLUMNS = {"ip": ("ip", "ipaddress", "address"), "zone": ("zone",), "host": ("host", "hostname")}
"""The columns, and the names that each may have, in lower case and with letters only. If a list
has several names of one column, the first of them is used."""
_MAX_LINE = 65_536
"""The maximum length of a line in bytes, in UTF-16 in characters."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""The first bytes of .xlsx, .ods and .xls files."""
_GZIP = b"\x1f\x8b"
_LINE_ENDS = r"\r\n|\n|\r(?=[^\n])"
"""A CR at the end of what was read so far may be the first half of a CRLF."""
_BYTE_LINE_ENDS, _TEXT_LINE_ENDS = re.compile(_LINE_ENDS.encode()), re.compile(_LINE_ENDS)
_SEPARATOR = re.compile(r'"?sep=.?"?', re.IGNORECASE)
"""The line with which a list tells a spreadsheet its separator. Spreadsheets do not show it."""
_EMPTY_CELLS = ',;\t" '
"""The characters of a row of empty cells."""
_BAD_QUOTES = "a quote is missing or in the wrong place"
Read = Callable[[int, str], ImportRow]


class NoList(ValueError):
    """The file is not a list of addresses. The message says why."""


def read_list(file: BinaryIO) -> Iterator[ImportRow]:
    """Yield the rows of a list.

    The first line names the columns. If it has three cells and starts with an address, it is the
    first row, and the columns are ip, zone and host.

    :raises NoList: the first line neither names the columns nor is a row, a line is too long, the
        encoding is unknown, or the file cannot be read
    """
    try:
        yield from _rows(file)
    except OSError as error:
        raise NoList(f"the file cannot be read: {error_texts.of_os_error(error)}") from error


def _rows(file: BinaryIO) -> Iterator[ImportRow]:
    read: Read | None = None
    for number, (text, problem) in enumerate(_lines(file), 1):
        line = text.strip()
        if not line.strip(_EMPTY_CELLS) or line.startswith("#"):
            continue
        if number == 1 and _SEPARATOR.fullmatch(line):
            continue
        if problem and read is None:
            raise NoList(f"line {number} is {problem}")
        if problem:
            yield ImportRow(number, line, problem=problem)
            continue
        if read is None:
            read, names_columns = _reader(number, line)
            if names_columns:
                continue
        yield read(number, line)


def _lines(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Return the lines of a file, each with the problem of its encoding, or an empty text."""
    first = file.read(_MAX_LINE)
    if first.startswith(_UTF_16) and not first.startswith(codecs.BOM_UTF32_LE):
        return _utf_16_lines(first, file)
    if first.startswith(_WORKBOOKS):
        raise NoList("this is a workbook of a spreadsheet; save it as CSV")
    if first.startswith(_GZIP):
        raise NoList("this file is compressed with gzip; decompress it")
    if b"\0" in _BYTE_LINE_ENDS.split(first, 1)[0]:
        raise NoList("line 1 is not UTF-8; probably it is UTF-16 or UTF-32")
    return _utf_8_lines(first, file)


def _utf_8_lines(raw: bytes, file: BinaryIO) -> Iterator[tuple[str, str]]:
    number, rest = 1, b""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    while raw:
        *lines, rest = _BYTE_LINE_ENDS.split(rest + raw)
        raw = file.read(_MAX_LINE)
        for line in lines if raw else [*lines, rest]:
            _check_length(number, line)
            yield _decoded(line)
            number += 1
        _check_length(number, rest)


def _check_length(number: int, line: bytes | str) -> None:
    """:raises NoList: the line is too long"""
    if len(line) >= _MAX_LINE:
        raise NoList(f"line {number} is too long for a list of addresses")


def _decoded(line: bytes) -> tuple[str, str]:
    try:
        return line.decode(), ""
    except UnicodeDecodeError as error:
        return line.decode(errors="replace"), error_texts.of_encoding(error)


def _utf_16_lines(raw: bytes, file: BinaryIO) -> Iterator[tuple[str, str]]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    number, text = 1, ""
    while raw:
        try:
            text += decoder.decode(raw)
            raw = file.read(_MAX_LINE)
            text += "" if raw else decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            number += len(_TEXT_LINE_ENDS.findall(text))
            raise NoList(f"line {number} or a later one is not UTF-16") from error
        *lines, text = _TEXT_LINE_ENDS.split(text)
        for line in lines:
            _check_length(number, line)
            yield line, ""
            number += 1
        _check_length(number, text)
    yield text, ""


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


def _reader(number: int, line: str) -> tuple[Read, bool]:
    """Return a function that reads the lines, and whether the first line names the columns.

    :raises NoList: the first line neither names the columns nor is a row
    """
    delimiter = max(",;\t", key=line.count)
    try:
        cells = _cells(line, delimiter)
    except csv.Error as error:
        raise NoList(f"line {number} is not CSV: {_BAD_QUOTES}") from error
    header = ["".join(filter(str.isalpha, cell.casefold())) for cell in cells]
    columns = [_column(number, header, COLUMNS[column]) for column in COLUMNS]
    if None not in columns:
        return _read_by(delimiter, len(cells), [c for c in columns if c is not None]), True
    if len(cells) == len(COLUMNS) and _names_addresses(cells[0]):
        return _read_by(delimiter, len(cells), range(len(COLUMNS))), False
    raise NoList(f"line {number} does not name the columns ip, zone and host: {line}")


def _column(number: int, header: Sequence[str], known: Sequence[str]) -> int | None:
    """Return the position of a column under the first of its names that the header has, or None.

    :raises NoList: the header has that name twice
    """
    name = next((name for name in known if name in header), None)
    if name is None:
        return None
    if header.count(name) > 1:
        raise NoList(f"line {number} has the column {name} twice")
    return header.index(name)


def _read_by(delimiter: str, width: int, columns: Sequence[int]) -> Read:
    """Return a function that reads lines.

    :param width: the number of cells of a line
    :param columns: the positions of ip, zone and host
    """
    ip, zone, host = columns

    def read(number: int, line: str) -> ImportRow:
        try:
            cells = _cells(line, delimiter)
        except csv.Error:
            return ImportRow(number, line, problem=f"not CSV: {_BAD_QUOTES}")
        if len(cells) != width:
            wanted = f"{len(cells)} cells instead of {width}"
            return ImportRow(number, line, problem=wanted)
        return import_row(cells[ip], cells[zone], cells[host], number)

    return read


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' in line:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    else:  # the common case, and faster
        cells = line.split(delimiter)
    return [cell.strip() for cell in cells]
