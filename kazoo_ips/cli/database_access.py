"""Letting the service into CouchDB as a plain member: an administrator's command."""

import sys
import time

import click

from kazoo_ips import app
from kazoo_ips.cli.console import settings
from kazoo_ips.config import BadSetting
from kazoo_ips.services.maintenance.database_access import DatabaseAccessService


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--new-password", is_flag=True, help="Give a user that is there this password.")
@click.option(
    "--watch", type=click.IntRange(1), metavar="SECONDS",
    help="Go on, and look so often for accounts that are new.",
)  # fmt: skip
def secure(dry_run: bool, new_password: bool, watch: int | None) -> None:
    """Let the service into CouchDB as a member.

    COUCHDB_URL names the service's user and password, which is made if missing;
    COUCHDB_ADMIN_URL an administrator. Whoever may use a database still may.
    """
    if not settings().couchdb_admin_url:
        raise BadSetting("COUCHDB_ADMIN_URL: name and password of an administrator are needed")
    access = app.access(settings())
    access.check()
    done = access.ensure_user(new_password=new_password, dry_run=dry_run)
    if done:
        _say(done, dry_run)
    known = _let_in(access, set(), dry_run)
    while watch:
        time.sleep(watch)
        known |= _let_in(access, known, dry_run)


def _let_in(access: DatabaseAccessService, known: set[str], dry_run: bool) -> set[str]:
    """Look at the databases that are not known yet; returns them."""
    new = [name for name in access.databases() if name not in known]
    with click.progressbar(length=len(new), label="databases", file=sys.stderr) as bar:
        for name, change in access.let_in(new, bar.update, dry_run=dry_run):
            _say(f"{name}: {change.value}", dry_run)
    return set(new)


def _say(line: str, dry_run: bool) -> None:
    click.echo(f"{line} (not done: --dry-run)" if dry_run else line)
