"""The parts that all commands use: the services, output, and error messages."""

import json
import logging
import os
import pwd
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import click

from kazoo_ips import app, error_texts
from kazoo_ips.app import Instance
from kazoo_ips.cli import target, terminal
from kazoo_ips.cli.backend import Backend
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.errors import (
    AlreadyAssigned,
    AssignedToAnother,
    Conflict,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreUnreachable,
    Forbidden,
    InsufficientIPs,
    InvalidCredentials,
    IPAssigned,
    IPReserved,
    IPStatusUnknown,
    KazooIPsError,
    LimitReached,
    RemoteFailure,
    ReservationExpired,
    ReservationLimitReached,
    TokenRestricted,
    ValidationFailed,
)
from kazoo_ips.model.names import printable
from kazoo_ips.observability import logs, request_context, tracing
from kazoo_ips.remote import services as remote

_TABLE_CHUNK = 5000
"""Lines of a table that are kept in memory. A longer table is read twice."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object per line."
)


class Group(click.Group):
    """A group of commands. Its list has whole descriptions, also on a narrow terminal."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands. click cuts each description off at the end of its line."""
        names = self.list_commands(ctx)
        commands = [command for name in names if (command := self.get_command(ctx, name))]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(sys.maxsize))
                    for name, command in zip(names, commands, strict=True)
                ]
            )


def run(command: Callable[[], Any]) -> None:
    """Run a command. An error is printed in one line, and the exit status is 1."""
    _check_arguments(sys.argv)
    # If standard input is closed, the command finds an empty one.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    # The HTTP client logs what CouchDB refuses. The command prints it once, below. OpenTelemetry
    # logs each attempt to export spans. `tracing.stop` says whether the last one failed.
    for name in ("kazoo_ips.couch.http_client", "opentelemetry"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        with _audited():
            command()
    except BadSetting as error:
        fail(str(error))
    except (DatastoreForbidden, DatastoreLoginRefused) as error:
        fail(f"CouchDB refuses {error}")
    except DatastoreUnreachable as error:
        why = f": {error}" if str(error) else ""
        fail(f"CouchDB does not answer at the address in COUCHDB_URL{why}")
    except KazooIPsError as error:
        refused = [text for kind, text in _REFUSED.items() if isinstance(error, kind)]
        fail(refused[0] if refused else str(error) or type(error).__name__)
    except OSError as error:
        _cannot_write(error)


_REFUSED = {
    InvalidCredentials: "the service needs a valid token: run kazoo-ips login, or give --token",
    TokenRestricted: "the token is restricted, and does not permit this",
    Forbidden: "the service does not permit this to the account of the token",
}
"""The texts of errors that only a service at a URL raises, the most specific first."""


def _cannot_write(error: OSError) -> NoReturn:
    # What is left in the buffer would fail again when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe
        sys.exit(1)
    fail(f"cannot write the output: {error_texts.of_os_error(error)}")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, because all ids and names in CouchDB are UTF-8.

    Names of files may have any bytes.
    """
    for before, argument in pairwise(arguments):
        if not is_utf_8(argument) and before != "--from" and not argument.startswith("--from="):
            fail(f"an argument is not UTF-8: {argument}")


def is_utf_8(text: str) -> bool:
    """Whether a text of the command line or of a terminal was UTF-8.

    Python replaces each byte that is not UTF-8 by a lone surrogate.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


@contextmanager
def _audited() -> Iterator[None]:
    """Write the audit lines of the command that runs in this context, with its name and user.

    Make its span as well, if the environment asks for spans.
    """
    try:
        used = Settings.load(os.environ)
    except BadSetting:  # the command reports it, if it needs the settings
        used = Settings()
    program, *arguments = sys.argv
    name = [Path(program).name]
    for word in arguments[:2] if name == ["sup"] else arguments[:1]:
        name += re.findall("^[a-z][a-z_-]*$", word)
    user = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    tracing.start()
    try:
        with (
            request_context.command(" ".join(name), user or _user_name()) as work,
            logs.command_log(used.log_format, used.syslog),
            tracing.span(work, work.command),
        ):
            yield
    finally:
        tracing.stop()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in some containers
        return str(os.getuid())


def request_id() -> str:
    """Return the request id of this command, which its documents and audit lines have."""
    work = request_context.CURRENT.get()
    return work.request_id if work and work.by == "command" else uuid4().hex


_NOT_REPORTED = (DatastoreUnreachable, InvalidCredentials, Forbidden, RemoteFailure)
"""Errors that do not depend on what the command does. `run` prints them."""


class reported:
    """A context that prints an error as Kazoo does, and exits with status 1.

    :param failure: the text before the colon and the reason
    """

    def __init__(self, failure: str) -> None:
        self._failure = failure

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if isinstance(error, KazooIPsError) and not isinstance(error, _NOT_REPORTED):
            fail(f"{self._failure}: {_reason(error)}")


_ALREADY_ASSIGNED = (AlreadyAssigned.message, AssignedToAnother.message)
"""The beginnings of texts for which Kazoo's command prints a token."""


_TOKENS: dict[type[KazooIPsError], str] = {
    LimitReached: "limit_reached",
    ReservationLimitReached: "limit_reached",
    ReservationExpired: "reservation_expired",
    InsufficientIPs: "insufficient_ips",
}
"""The errors that are printed as in the reply of the API, with their texts."""


def _reason(error: KazooIPsError) -> str:
    if isinstance(error, ValidationFailed):
        path, rules = next(iter(error.errors.items()))
        text = next(iter(rules.values()))["message"]
        if not path.startswith("ips."):
            return json.dumps(error.errors)
        return "already_assigned" if text.startswith(_ALREADY_ASSIGNED) else str(text)
    token = next((token for kind, token in _TOKENS.items() if isinstance(error, kind)), None)
    if token:
        return f"{token}: {error}"
    if isinstance(error, IPAssigned | IPReserved | IPStatusUnknown):
        return error.reason
    return "conflict" if isinstance(error, Conflict) else "not_found"


def settings() -> Settings:
    """Return the settings of the environment, for a command that needs CouchDB.

    The command ends if it was given the URL of a service.

    :raises BadSetting: a setting has an invalid value
    """
    service = target.chosen()
    if service:
        command = click.get_current_context().command_path
        fail(f"'{command}' works on CouchDB only, not at {service.url}")
    return Settings.load(os.environ)


def backend(*, as_administrator: bool = False) -> Backend:
    """Return the services of this process, or those at the URL that the command was given.

    Creating them sends no request.

    :param as_administrator: whether those of this process use COUCHDB_ADMIN_URL, if it is set
    """
    service = target.chosen()
    if service:
        return remote.connect(service)
    return administrator() if as_administrator else services()


def services() -> Instance:
    """Return the services of this process. Creating them sends no request to CouchDB.

    A command that needs only what `Backend` has calls `backend` instead.
    """
    return _build(settings())


def administrator() -> Instance:
    """Return the services with the user of COUCHDB_ADMIN_URL, if it is set."""
    return _build(settings().as_administrator())


def _build(settings: Settings) -> Instance:
    instance = app.build(settings)
    context = click.get_current_context(silent=True)
    if context:  # a process of the service would do this work in its background thread
        context.call_on_close(instance.background.work)
    return instance


def say(*lines: str, err: bool = False) -> None:
    """Print lines, with every character escaped that a terminal may act on.

    :param err: whether they go to standard error
    """
    click.echo("\n".join(map(printable, lines)), err=err)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    columns: Mapping[str, int], lines: list[list[str]], *, plain: bool = False
) -> None:
    """Print a table: on a terminal with colours, elsewhere in the form that Kazoo prints.

    :param columns: the minimum width of each column, in characters, by the column's header
    :param plain: whether to print Kazoo's form on a terminal too
    """
    if not plain and terminal.shows(sys.stdout):
        terminal.print_table(list(columns), lines)
        return
    table = _Table(columns)
    table.widen(lines)
    table.print_head()
    table.print_lines(lines)
    table.print_end()


def print_long_table(
    columns: Mapping[str, int], read: Callable[[], Iterator[list[str]]], *, plain: bool = False
) -> bool:
    """Print a table of any length as `print_table` does, in bounded memory.

    A long table is read twice, because the widths of the columns depend on all lines, and has
    Kazoo's form on a terminal too.

    :param read: reads the lines from the start
    :returns: False if there are no lines, and nothing was printed
    """
    lines = read()
    first = list(islice(lines, _TABLE_CHUNK))
    if len(first) < _TABLE_CHUNK:
        if first:
            print_table(columns, first, plain=plain)
        return bool(first)
    table = _Table(columns)
    table.widen(chain(first, lines))
    table.print_head()
    rest = read()
    while chunk := list(islice(rest, _TABLE_CHUNK)):
        table.print_lines(chunk)
    table.print_end()
    return True


class _Table:
    """A table in the form that Kazoo prints."""

    def __init__(self, columns: Mapping[str, int]) -> None:
        self._columns = list(columns)
        self._widths = [max(least, len(header)) for header, least in columns.items()]

    def widen(self, lines: Iterable[Sequence[str]]) -> None:
        """Make the columns wide enough for these lines."""
        for line in lines:
            for index, cell in enumerate(line):
                if len(cell) > self._widths[index] or not cell.isascii() or not cell.isprintable():
                    self._widths[index] = max(self._widths[index], len(printable(cell)))

    def print_head(self) -> None:
        """Print the headers."""
        say(self._rule("-"), self._row(self._columns), self._rule("="))

    def print_lines(self, lines: Iterable[Sequence[str]]) -> None:
        """Print lines."""
        say(*(self._row([printable(cell) for cell in line]) for line in lines))

    def print_end(self) -> None:
        """Print the rule below the last line."""
        say(self._rule("-"))

    def _rule(self, sign: str) -> str:
        return "+" + "+".join(sign * (width + 2) for width in self._widths) + "+"

    def _row(self, cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return "| " + " | ".join(padded) + " |"


def fail(message: str, *more: str) -> NoReturn:
    """Print an error message, perhaps with more lines, and exit with status 1."""
    say(message, *more, err=True)
    sys.exit(1)
