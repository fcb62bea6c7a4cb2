"""What all commands share: the services at hand, output, and how a failure is told."""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

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
    ValidationFailed,
)


def run(command: Callable[[], Any]) -> None:
    """Carry out a command; what goes wrong is told in one line, and the status is 1."""
    # What CouchDB refuses is told below, once.
    logging.getLogger("kazoo_ips.couch.http_client").addHandler(logging.NullHandler())
    try:
        command()
    except BadSetting as error:
        fail(str(error))
    except (DatastoreForbidden, DatastoreLoginRefused) as error:
        fail(f"CouchDB refuses {error}")
    except DatastoreUnreachable:
        fail("CouchDB does not answer; COUCHDB_URL says where it is")
    except KazooIPsError as error:
        fail(str(error) or type(error).__name__)


class reported:
    """Prints what went wrong behind a colon, in Kazoo's words, and ends with status 1."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if isinstance(error, KazooIPsError) and not isinstance(error, DatastoreUnreachable):
            fail(f"{self._what}: {_reason(error)}")


def _reason(error: KazooIPsError) -> str:
    if isinstance(error, ValidationFailed):
        path, rules = next(iter(error.errors.items()))
        text = next(iter(rules.values()))["message"]
        if text.startswith(UnknownStatus.message):
            return str(text)
        # Only an assignment can break another rule of an address's state.
        return "already_assigned" if path.startswith("ips.") else json.dumps(error.errors)
    if isinstance(error, IPAssigned | IPStatusUnknown):
        return error.reason
    return "conflict" if isinstance(error, Conflict) else "not_found"


def settings() -> Settings:
    """The settings of the environment.

    :raises BadSetting: one of them cannot be used
    """
    return Settings.load(os.environ)


def services() -> Instance:
    """The services of these settings. Sends nothing yet."""
    return _built(settings())


def administrator() -> Instance:
    """The same by the administrator's hand, where COUCHDB_ADMIN_URL names one."""
    return _built(settings().as_administrator())


def _built(settings: Settings) -> Instance:
    built = app.build(settings)
    context = click.get_current_context(silent=True)
    if context:  # what a worker's housekeeping does a second later
        context.call_on_close(built.background.work)
    return built


def print_json(value: Any) -> None:
    """Print a value for programs to read."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Mapping[str, int], lines: list[list[str]]) -> None:
    """Print a table as Kazoo does.

    :param columns: the least width of each
    """
    widths = [
        max(least, *(len(line[i]) for line in lines)) for i, least in enumerate(columns.values())
    ]

    def rule(sign: str) -> str:
        return "+" + "+".join(sign * (width + 2) for width in widths) + "+"

    def row(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    body = [row(line) for line in lines]
    click.echo("\n".join([rule("-"), row(list(columns)), rule("="), *body, rule("-")]))


def fail(message: str) -> NoReturn:
    """Say what went wrong and end with status 1."""
    click.echo(message, err=True)
    sys.exit(1)
