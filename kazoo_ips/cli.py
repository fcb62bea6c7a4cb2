"""The operator's commands: `kazoo-ips …`, and the same as Kazoo's `sup` knows them.

Prints Kazoo's lines (`kazoo_ips_maintenance.erl`, `crossbar_maintenance.erl`); the exit status is
0 when it was done and 1 when not. Takes no decisions: every command is one call of a service.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import uuid4

import click

from kazoo_ips import addresses, app
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.errors import (
    Conflict,
    DatastoreUnreachable,
    IPAssigned,
    KazooIPsError,
    ValidationFailed,
)
from kazoo_ips.model import Account, AssignIP, CreateIP, DeleteIP, ReleaseIP, ReleaseIPs, Status
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services import Services
from kazoo_ips.services.doctor import PROBLEMS, Finding

_COLUMNS = {"IP": 15, "Status": 10, "Zone": 10, "Host": 30, "Account": 32}
"""Kazoo's column widths; here a longer value widens its column instead of being cut off."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kazoo_ips")
def cli() -> None:
    """Manage Kazoo's dedicated IP addresses and the account tree they belong to.

    Settings come from the environment; COUCHDB_URL names the database.
    """


@cli.command()
def setup() -> None:
    """Make the databases, design documents and signing key that are missing."""
    for name in app.databases(_settings()).create():
        click.echo(f"created {name}")
    _services().auth.ensure_key()


# The pool.


@cli.command()
@click.argument("ip")
@click.argument("zone")
@click.argument("host")
def add(ip: str, zone: str, host: str) -> None:
    """Add an address to the pool."""
    address = addresses.canonical(ip)
    if address is None or not zone or not host:
        _fail(f"unable to add IP {ip}: {'invalid_address' if address is None else 'invalid'}")
    with _reported(f"unable to add IP {ip}"):
        _services().pool.create(CreateIP(address, zone, host), uuid4().hex)
    click.echo(f"added IP {ip} to available dedicated ips")


@cli.command()
@click.argument("ip")
@click.argument("account")
def assign(ip: str, account: str) -> None:
    """Assign an address to an account."""
    services = _services()
    with _reported("unable to find account"):
        services.accounts.fetch(account)
    with _reported("unable to assign IP"):
        services.ips.assign(AssignIP(account, ip), uuid4().hex)
    click.echo(f"assigned IP {ip} to {account}")


@cli.command()
@click.argument("ip", required=False)
@click.option("--account", help="Release all that this account has, whether it exists or not.")
def release(ip: str | None, account: str | None) -> None:
    """Take an address back from whomever has it, or all of an account's."""
    if (ip is None) == (account is None):
        raise click.UsageError("either an address or --account")
    if ip is None:
        with _reported("unable to release IPs"):
            released = _services().ips.release_all(ReleaseIPs(account or "", None), uuid4().hex)
        click.echo(f"released {len(released)} IPs of {account}")
        return
    ips = _services().ips
    with _reported("unable to release IP"):
        # As Kazoo has it, there is nothing wrong with releasing it twice.
        if ips.fetch(ip).status is Status.ASSIGNED:
            ips.release(ReleaseIP(None, ip), uuid4().hex)
    click.echo(f"released IP {ip}")


@cli.command()
@click.argument("ip")
@click.option("--force", is_flag=True, help="Release it first when it is assigned.")
def delete(ip: str, force: bool) -> None:
    """Take an address out of the pool."""
    with _reported("unable to delete IP"):
        _services().pool.delete(DeleteIP(ip, force), uuid4().hex)
    click.echo(f"deleted IP {ip}")


@cli.command()
@click.argument("host", required=False)
def summary(host: str | None) -> None:
    """Show the pool, or one host's part of it, as a table."""
    with _reported(f"Unable to list IPs assigned to host {host or 'undefined'}"):
        lines = _services().lists.summary(host)
    if not lines:
        click.echo("No IPs found")
        return
    _print_table(
        _COLUMNS,
        [
            [ip.address, str(status), ip.zone, ip.host, ip.assigned_to or ""]
            for ip, status in lines
        ],
    )


@cli.command()
@click.option("--repair", is_flag=True, help="Put in order what can be.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(repair: bool, as_json: bool) -> None:
    """Look for whatever is wrong in the pool and the accounts' copies.

    Exit status 0 when nothing is, or everything was put in order; 1 otherwise.
    """
    service = _services().doctor
    with click.progressbar(length=service.extent(), label="examined", file=sys.stderr) as bar:
        findings = list(service.examine(repair=repair, seen=bar.update))
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    elif findings:
        cells = [[f.problem, f.address, f.account_id or "", _verdict(f)] for f in findings]
        _print_table({"Problem": 14, "IP": 15, "Account": 32, "Repair": 8}, cells)
    else:
        click.echo("nothing found")
    sys.exit(0 if all(finding.repaired for finding in findings) else 1)


def _verdict(finding: Finding) -> str:
    return "repaired" if finding.repaired else PROBLEMS[finding.problem]


@cli.command()
def refresh() -> None:
    """Bring databases and design documents up to date, and the accounts' copies with them."""
    app.databases(_settings()).create()
    total, done = _services().copies.refresh()
    with click.progressbar(length=total, label="copies", file=sys.stderr) as bar:
        for count in done:
            bar.update(count)


# The account tree, where no Kazoo keeps it.


@cli.group()
def account() -> None:
    """Manage the account tree."""


@account.command("create")
@click.argument("name")
@click.option("--realm", required=True, help="The account's SIP realm; no two have the same.")
@click.option("--parent", help="Id of the account above; the operator's if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def create_account(name: str, realm: str, parent: str | None, as_json: bool) -> None:
    """Make an account; the first one is the operator."""
    with _reported(f"failed to create '{name}'"):
        made = _services().accounts.create(name, realm, parent)
    if as_json:
        _print_json(_shown(made))
    else:
        _print_created(made)


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the accounts as JSON.")
def list_accounts(as_json: bool) -> None:
    """Show all accounts."""
    with _reported("unable to list accounts"):
        accounts = _services().accounts.list()
    if as_json:
        _print_json([_shown(a) for a in accounts])
        return
    for each in accounts:
        marks = [*(["operator"] if each.operator else []), *([] if each.enabled else ["disabled"])]
        click.echo(" ".join([each.id, each.realm, each.name, *marks]))


@account.command("show")
@click.argument("account_id")
def show_account(account_id: str) -> None:
    """Show an account, its API key included, as JSON."""
    with _reported("unable to find account"):
        _print_json(_shown(_services().accounts.fetch(account_id)))


@account.command("enable")
@click.argument("account_id")
def enable_account(account_id: str) -> None:
    """Let an account's logins and tokens work again."""
    with _reported("unable to enable account"):
        _services().accounts.set_enabled(account_id, True)
    click.echo(f"enabled account {account_id}")


@account.command("disable")
@click.argument("account_id")
def disable_account(account_id: str) -> None:
    """Stop an account's logins and tokens."""
    with _reported("unable to disable account"):
        _services().accounts.set_enabled(account_id, False)
    click.echo(f"disabled account {account_id}")


@cli.group()
def user() -> None:
    """Manage the users of accounts."""


@user.command("create")
@click.argument("account_id")
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the user as JSON.")
def create_user(account_id: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Add an admin user to an account; asks for the password."""
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    )
    with _reported(f"failed to create '{username}'"):
        made = _services().accounts.create_user(account_id, username, password)
    if as_json:
        _print_json({"id": made.id, "account_id": account_id, "username": made.username})
    else:
        click.echo(f"created new account admin user '{made.id}'")


@user.command("disable")
@click.argument("account_id")
@click.argument("username")
def disable_user(account_id: str, username: str) -> None:
    """Stop a user's logins and tokens."""
    with _reported("unable to disable user"):
        _services().accounts.disable_user(account_id, username)
    click.echo(f"disabled user {username}")


# sup

_CREATE_ACCOUNT = "create_account <name> <realm> <user> <password>"
_SUP = {
    "kazoo_ips_maintenance": {
        "add": (add, "add <ip> <zone> <host>", (3,)),
        "assign": (assign, "assign <ip> <account>", (2,)),
        "release": (release, "release <ip>", (1,)),
        "delete": (delete, "delete <ip>", (1,)),
        "summary": (summary, "summary [host]", (0, 1)),
        "refresh": (refresh, "refresh", (0,)),
    },
}


def sup_main(arguments: Sequence[str]) -> None:
    """`sup <module> <function> <argument>…`, as on a Kazoo node."""
    module, function, *rest = [*arguments, "", ""][: max(2, len(arguments))]
    if (module, function) == ("crossbar_maintenance", "create_account"):
        if len(rest) != 4:
            _fail(f"Please use: sup {module} {_CREATE_ACCOUNT}")
        _create_account_and_user(*rest)
        return
    if function not in _SUP.get(module, {}):
        known = [
            f"  sup {name} {usage}"
            for name, functions in _SUP.items()
            for _, usage, _ in functions.values()
        ]
        known.append(f"  sup crossbar_maintenance {_CREATE_ACCOUNT}")
        wanted = function not in ("", "--help", "-h") or module not in ("", "--help", "-h")
        click.echo("\n".join(["Please use:", *known]), err=wanted)
        sys.exit(1 if wanted else 0)
    command, usage, counts = _SUP[module][function]
    if len(rest) not in counts:
        _fail(f"Please use: sup {module} {usage}")
    command.main(["--", *rest], prog_name=f"sup {module} {function}", standalone_mode=False)


def _create_account_and_user(name: str, realm: str, username: str, password: str) -> None:
    accounts = _services().accounts
    with _reported(f"failed to create '{name}'"):
        made = accounts.create(name, realm)
        _print_created(made)
        admin = accounts.create_user(made.id, username, password)
    click.echo(f"created new account admin user '{admin.id}'")


# What they share.


def main() -> None:
    """`kazoo-ips`."""
    _run(lambda: cli.main(standalone_mode=True))


def sup() -> None:
    """`sup`."""
    _run(lambda: sup_main(sys.argv[1:]))


def _run(command: Callable[[], Any]) -> None:
    try:
        command()
    except BadSetting as error:
        _fail(str(error))
    except DatastoreUnreachable:
        _fail("CouchDB does not answer; COUCHDB_URL says where it is")
    except KazooIPsError as error:
        _fail(str(error) or type(error).__name__)


class _reported:
    """Prints what went wrong behind a colon, in Kazoo's words, and ends with status 1."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if isinstance(error, KazooIPsError) and not isinstance(error, DatastoreUnreachable):
            _fail(f"{self._what}: {_reason(error)}")


def _reason(error: KazooIPsError) -> str:
    if isinstance(error, ValidationFailed):
        # Only an assignment can break a rule of an address's state.
        of_state = next(iter(error.errors)).startswith("ips.")
        return "already_assigned" if of_state else json.dumps(error.errors)
    if isinstance(error, IPAssigned):
        return "assigned"
    return "conflict" if isinstance(error, Conflict) else "not_found"


def _settings() -> Settings:
    return Settings.load(os.environ)


def _services() -> Services:
    return app.build(_settings())


def _shown(account: Account) -> dict[str, Any]:
    return {k: v for k, v in asdict(account).items() if k != "signature_secret"}


def _print_created(account: Account) -> None:
    database = quote(account_database(account.id), safe="")
    click.echo(f"created new account '{account.id}' in db '{database}'")
    if account.operator:
        click.echo("updated master account id in system_config.accounts")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _print_table(columns: Mapping[str, int], lines: list[list[str]]) -> None:
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


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)
