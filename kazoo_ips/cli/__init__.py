"""The operator's commands: `kazoo-ips …`, and Kazoo's `sup kazoo_ips_maintenance …`.

They print the lines that Kazoo prints (`kazoo_ips_maintenance.erl`, `crossbar_maintenance.erl`).
The exit status is 0 on success and 1 on failure. Each command calls one service, which makes all
decisions.
"""

import sys

import click

from kazoo_ips.cli import accounts, database_access, maintenance, pool
from kazoo_ips.cli.console import run
from kazoo_ips.cli.sup import sup_main


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kazoo_ips")
def cli() -> None:
    """Manage Kazoo's dedicated IP addresses, accounts and users.

    The settings are environment variables. COUCHDB_URL is the URL of the database.
    """


for command in (
    maintenance.setup,
    database_access.secure,
    pool.add,
    pool.assign,
    pool.release,
    pool.delete,
    pool.summary,
    maintenance.doctor,
    maintenance.refresh,
    accounts.account,
    accounts.user,
):
    cli.add_command(command)


def main() -> None:
    """Run `kazoo-ips`."""
    run(cli.main)


def sup() -> None:
    """Run `sup`."""
    run(lambda: sup_main(sys.argv[1:]))
