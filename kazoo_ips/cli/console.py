"""The parts that all commands use: the services, output, and error messages."""

import json
import logging
import os
import pwd
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import click

from kazoo_ips import app
from kazoo_ips.app import Instance
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.errors import (
    Conflict,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreUnreachable,
    IPAssigned,
    IPStatusUnknown,
    KazooIPsError,
    UnknownStatus,
    Unusable,
    ValidationFailed,
)
from kazoo_ips.model.names import printable
from kazoo_ips.observability import logs, request_context, tracing


def run(command: Callable[[], Any]) -> None:
    """Run a command. An error is printed in one line, and the exit status is 1."""
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
    except DatastoreUnreachable:
        fail("CouchDB does not answer at the address in COUCHDB_URL")
    except KazooIPsError as error:
        fail(str(error) or type(error).__name__)


@contextmanager
def _audited() -> Iterator[None]:
    """Write the audit lines of the command that runs in this context, with its name and user.

    Make its span as well, if the environment asks for spans.
    """
    try:
        used = settings()
    except BadSetting:  # the command reports it, if it needs the settings
        used = Settings()
    program, *arguments = sys.argv
    name = [Path(program).name]
    for word in arguments[:2] if name == ["sup"] else arguments[:1]:
        name += re.findall("^[a-z_]+$", word)
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


class reported:
    """A context that prints an error as Kazoo does, and exits with status 1.

    :param failure: the text before the colon and the reason
    """

    def __init__(self, failure: str) -> None:
        self._failure = failure

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if isinstance(error, KazooIPsError) and not isinstance(error, DatastoreUnreachable):
            fail(f"{self._failure}: {_reason(error)}")


def _reason(error: KazooIPsError) -> str:
    if isinstance(error, ValidationFailed):
        path, rules = next(iter(error.errors.items()))
        text = next(iter(rules.values()))["message"]
        if text.startswith((UnknownStatus.message, Unusable.message)):
            return str(text)
        # An error under `ips.` comes from an assignment only.
        return "already_assigned" if path.startswith("ips.") else json.dumps(error.errors)
    if isinstance(error, IPAssigned | IPStatusUnknown):
        return error.reason
    return "conflict" if isinstance(error, Conflict) else "not_found"


def settings() -> Settings:
    """Return the settings of the environment.

    :raises BadSetting: a setting has an invalid value
    """
    return Settings.load(os.environ)


def services() -> Instance:
    """Return the services. They send nothing to CouchDB yet."""
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


def print_table(columns: Mapping[str, int], lines: list[list[str]]) -> None:
    """Print a table in the form that Kazoo prints.

    :param columns: the minimum width of each column, in characters, by the column's header
    """
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [
        max(least, *(len(line[i]) for line in cells)) for i, least in enumerate(columns.values())
    ]

    def rule(sign: str) -> str:
        return "+" + "+".join(sign * (width + 2) for width in widths) + "+"

    def row(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    body = [row(line) for line in cells]
    say(rule("-"), row(list(columns)), rule("="), *body, rule("-"))


def fail(message: str, *more: str) -> NoReturn:
    """Print an error message, perhaps with more lines, and exit with status 1."""
    say(message, *more, err=True)
    sys.exit(1)
