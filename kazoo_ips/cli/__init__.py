"""The operator's commands: `kazoo-ips …`, and Kazoo's `sup kazoo_ips_maintenance …`.

They print the lines that Kazoo prints (`kazoo_ips_maintenance.erl`, `crossbar_maintenance.erl`).
The exit status is 0 on success and 1 on failure. Each command calls one service, which makes all
decisions.
"""

import sys

import click

from kazoo_ips.cli import (
    accounts,
    completion,
    database_access,
    exports,
    history,
    history_years,
    jobs,
    limits,
    login,
    maintenance,
    plots,
    pool,
    reservations,
    states,
    status,
    summaries,
)
from kazoo_ips.cli.console import Group, run
from kazoo_ips.cli.sup import sup_main


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kazoo_ips")
@click.option("--url", help="Work over the API of the service at this URL: https://host.")
@click.option("--token", help="The token for the service. KAZOO_IPS_TOKEN and `login` are safer.")
@click.option("--profile", help="Work over the API of the service of this profile.")
@click.option("--ca-file", type=click.Path(), help="A file of certificates to trust.")
def cli(**_options: str | None) -> None:
    """Manage Kazoo's dedicated IP addresses, accounts and users.

    The settings are environment variables. COUCHDB_URL is the URL of the database. With --url or
    a profile, the command works over the API of a service, from any machine.
    """


for command in (
    maintenance.setup,
    database_access.secure,
    pool.add,
    pool.assign,
    pool.release,
    pool.delete,
    states.drain,
    states.disable,
    states.enable,
    states.age,
    summaries.summary,
    limits.limit,
    reservations.reserve,
    plots.plot,
    status.status,
    exports.export,
    exports.import_,
    jobs.move,
    jobs.evacuate,
    jobs.transfer,
    jobs.jobs,
    jobs.job_stop,
    history.history,
    history.history_export,
    history_years.expire,
    maintenance.doctor,
    maintenance.refresh,
    accounts.account,
    accounts.user,
    login.login,
    login.logout,
    login.list_profiles,
    completion.completion,
):
    cli.add_command(command)


def main() -> None:
    """Run `kazoo-ips`."""
    # click guesses the name from how Python was started, which tests do in other ways.
    run(lambda: cli.main(prog_name="kazoo-ips"))


def sup() -> None:
    """Run `sup`."""
    run(lambda: sup_main(sys.argv[1:]))
