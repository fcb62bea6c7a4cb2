"""The commands `setup`, `doctor` and `refresh`."""

import sys
from dataclasses import asdict

import click

from kazoo_ips import app
from kazoo_ips.cli.console import (
    administrator,
    print_json,
    print_table,
    say,
    services,
    settings,
)
from kazoo_ips.services.maintenance.doctor import PROBLEMS, Finding


@click.command()
@click.option(
    "--guard/--no-guard", default=None,
    help="Install, or remove, the guard, with which CouchDB refuses invalid documents.",
)  # fmt: skip
def setup(guard: bool | None) -> None:
    """Create missing databases, design documents and the signing key.

    Uses COUCHDB_ADMIN_URL if it is set.
    """
    databases = app.databases(settings())
    for name in databases.create():
        say(f"created {name}")
    if guard is not None and databases.guard(guard):
        say("installed the guard" if guard else "removed the guard")
    administrator().auth.ensure_key()


@click.command()
@click.option("--repair", is_flag=True, help="Repair the problems that can be repaired.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(repair: bool, as_json: bool) -> None:
    """Find problems in the pool and in the accounts' copies.

    The exit status is 0 if there is no problem, or all are repaired, and 1 otherwise. An address
    with a status that this release does not know is skipped.
    """
    instance = services()
    service = instance.doctor
    with click.progressbar(length=service.size(), label="examined", file=sys.stderr) as bar:
        findings = list(service.examine(repair=repair, seen=bar.update))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif findings:
        cells = [[f.problem, f.address, f.account_id or "", _repair(f)] for f in findings]
        print_table({"Problem": 14, "IP": 15, "Account": 32, "Repair": 8}, cells)
    else:
        say("nothing found")
    for status, count in instance.lists.unknown_statuses().items():
        say(f"skipped: {count} with the unknown status {status}", err=True)
    sys.exit(0 if all(finding.repaired for finding in findings) else 1)


def _repair(finding: Finding) -> str:
    return "repaired" if finding.repaired else PROBLEMS[finding.problem]


@click.command()
def refresh() -> None:
    """Update databases, design documents and the accounts' copies."""
    app.databases(settings()).create()
    total, done = services().copies.refresh()
    with click.progressbar(length=total, label="copies", file=sys.stderr) as bar:
        for count in done:
            bar.update(count)
