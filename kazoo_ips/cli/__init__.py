"""The operator's commands: `kazoo-ips …`, and the same as Kazoo's `sup` knows them.

Prints Kazoo's lines (`kazoo_ips_maintenance.erl`, `crossbar_maintenance.erl`); the exit status is
0 when it was done and 1 when not. Takes no decisions: every command is one call of a service.
"""

import sys

import click

from kazoo_ips.cli import accounts, database_access, maintenance, pool
from kazoo_ips.cli.console import run
from kazoo_ips.cli.sup import sup_main


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kazoo_ips")
def cli() -> None:
    """Manage Kazoo's dedicated IP addresses and the account tree they belong to.

    Settings come from the environment; COUCHDB_URL names the database.
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
    """`kazoo-ips`."""
    run(cli.main)


def sup() -> None:
    """`sup`."""
    run(lambda: sup_main(sys.argv[1:]))
