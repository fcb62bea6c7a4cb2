"""The command `secure`: an administrator gives the service's CouchDB user access."""

import json
import time

import click

from kazoo_ips import app
from kazoo_ips.cli import terminal
from kazoo_ips.cli.console import json_lines_option, say, settings
from kazoo_ips.config import BadSetting
from kazoo_ips.services.maintenance.database_access import DatabaseAccessService


@click.command()
@click.option("--dry-run", is_flag=True, help="Print the changes, and write nothing.")
@click.option("--new-password", is_flag=True, help="Change the password of an existing user.")
@click.option(
    "--watch", type=click.IntRange(1), metavar="SECONDS",
    help="Keep running, and check for new accounts at this interval.",
)  # fmt: skip
@json_lines_option
def secure(dry_run: bool, new_password: bool, watch: int | None, as_json: bool) -> None:
    """Make the service's CouchDB user a member of the databases.

    COUCHDB_URL names the user and its password. The user is created if it does not exist.
    COUCHDB_ADMIN_URL names an administrator. Existing members of the databases stay members.
    """
    if not settings().couchdb_admin_url:
        raise BadSetting("COUCHDB_ADMIN_URL: name and password of an administrator are needed")
    access = app.access(settings())
    access.check()
    change = access.ensure_user(new_password=new_password, dry_run=dry_run)
    if change:
        _print_change(None, change, dry_run=dry_run, as_json=as_json)
    checked = _add_member(access, set(), dry_run=dry_run, as_json=as_json)
    while watch:
        time.sleep(watch)
        checked |= _add_member(access, checked, dry_run=dry_run, as_json=as_json)


def _add_member(
    access: DatabaseAccessService, checked: set[str], *, dry_run: bool, as_json: bool
) -> set[str]:
    """Add the user to the databases that were not checked yet, and return their names."""
    new = [name for name in access.databases() if name not in checked]
    with terminal.progress("databases", len(new)) as advance:
        for name, change in access.add_member(new, advance, dry_run=dry_run):
            _print_change(name, change.value, dry_run=dry_run, as_json=as_json)
    return set(new)


def _print_change(database: str | None, change: str, *, dry_run: bool, as_json: bool) -> None:
    """Print a change of a database, or of the user if there is no database."""
    if as_json:
        say(json.dumps({"database": database, "change": change, "dry_run": dry_run}))
        return
    line = f"{database}: {change}" if database else change
    say(f"{line} (not done: --dry-run)" if dry_run else line)
