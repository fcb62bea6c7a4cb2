"""The command `history-expire`: deletes the years of the history that are not to be kept."""

import json

import click

from kazoo_ips import app
from kazoo_ips.cli.console import json_lines_option, say, settings


@click.command("history-expire")
@click.option("--dry-run", is_flag=True, help="Print the years, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_lines_option
def expire(dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the years of the history that are not to be kept.

    KAZOO_IPS_HISTORY_YEARS is the number of past years to keep. Uses COUCHDB_ADMIN_URL if it is
    set: only an administrator can delete a database.
    """
    used = settings()
    if not used.history_years:
        say("all years are kept: KAZOO_IPS_HISTORY_YEARS is 0", err=as_json)
        return
    retention = app.retention(used)
    for year in retention.expired():
        if not dry_run and not (yes or click.confirm(f"Delete the history of {year}?", err=True)):
            continue
        if not dry_run:
            retention.delete(year)
        if as_json:
            say(json.dumps({"year": year, "deleted": not dry_run}))
        else:
            say(f"{year}: not deleted: --dry-run" if dry_run else f"{year}: deleted")
