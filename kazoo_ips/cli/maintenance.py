"""What is to be done before the first request, after an upgrade and now and then."""

import sys
from dataclasses import asdict

import click

from kazoo_ips import app
from kazoo_ips.cli.console import administrator, print_json, print_table, services, settings
from kazoo_ips.services.maintenance.doctor import PROBLEMS, Finding


@click.command()
@click.option(
    "--guard/--no-guard", default=None,
    help="Let CouchDB refuse what no address may become, whoever writes it.",
)  # fmt: skip
def setup(guard: bool | None) -> None:
    """Make the databases, design documents and signing key that are missing.

    Uses COUCHDB_ADMIN_URL where there is one.
    """
    databases = app.databases(settings())
    for name in databases.create():
        click.echo(f"created {name}")
    if guard is not None and databases.guard(guard):
        click.echo("the pool is guarded" if guard else "the pool is guarded no more")
    administrator().auth.ensure_key()


@click.command()
@click.option("--repair", is_flag=True, help="Put in order what can be.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(repair: bool, as_json: bool) -> None:
    """Look for whatever is wrong in the pool and the accounts' copies.

    Exit status 0 when nothing is, or everything was put in order; 1 otherwise. An address with
    a status that this release does not know is left alone.
    """
    built = services()
    service = built.doctor
    with click.progressbar(length=service.extent(), label="examined", file=sys.stderr) as bar:
        findings = list(service.examine(repair=repair, seen=bar.update))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif findings:
        cells = [[f.problem, f.address, f.account_id or "", _verdict(f)] for f in findings]
        print_table({"Problem": 14, "IP": 15, "Account": 32, "Repair": 8}, cells)
    else:
        click.echo("nothing found")
    for status, count in built.lists.unknown_statuses().items():
        click.echo(f"left alone: {count} of the unknown status {status}", err=True)
    sys.exit(0 if all(finding.repaired for finding in findings) else 1)


def _verdict(finding: Finding) -> str:
    return "repaired" if finding.repaired else PROBLEMS[finding.problem]


@click.command()
def refresh() -> None:
    """Bring databases and design documents up to date, and the accounts' copies with them."""
    app.databases(settings()).create()
    total, done = services().copies.refresh()
    with click.progressbar(length=total, label="copies", file=sys.stderr) as bar:
        for count in done:
            bar.update(count)
