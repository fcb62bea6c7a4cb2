"""The commands `setup`, `doctor` and `refresh`."""

import sys
from dataclasses import asdict

import click

from kazoo_ips import app
from kazoo_ips.cli import terminal
from kazoo_ips.cli.console import (
    administrator,
    json_option,
    print_json,
    print_table,
    say,
    services,
    settings,
)
from kazoo_ips.services.maintenance.findings import PROBLEMS, Finding


@click.command()
@click.option(
    "--guard/--no-guard", default=None,
    help="Install, or remove, the guard, with which CouchDB refuses invalid documents.",
)  # fmt: skip
@json_option
def setup(guard: bool | None, as_json: bool) -> None:
    """Create missing databases, design documents and the signing key.

    Uses COUCHDB_ADMIN_URL if it is set.
    """
    databases = app.databases(settings())
    created = []
    for name in databases.create():
        created.append(name)
        if not as_json:
            say(f"created {name}")
    changed = guard is not None and databases.guard(guard)
    done = ("installed" if guard else "removed") if changed else None
    if done and not as_json:
        say(f"{done} the guard")
    administrator().auth.ensure_key()
    if as_json:
        print_json({"created": created, "guard": done})


@click.command()
@click.option("--repair", is_flag=True, help="Repair the problems that can be repaired.")
@click.option(
    "--changed", is_flag=True,
    help="Examine only the addresses that have changed since the last examination.",
)  # fmt: skip
@json_option
def doctor(*, repair: bool, changed: bool, as_json: bool) -> None:
    """Find problems in the pool, in the accounts' copies and in the databases of the history.

    The exit status is 0 if there is no problem, or all are repaired, and 1 otherwise. If the
    command is killed, the next examination continues where it was, and prints its findings too. An
    address with a status that this release does not know is skipped.
    """
    instance = services()
    service = instance.doctor
    last = instance.status.last_doctor() if changed else None
    after = last.examined if last else None
    name = "kazoo-ips doctor --repair" if repair else "kazoo-ips doctor"
    with terminal.progress("examined", service.size()) as advance:
        if after is None:
            findings = list(instance.examinations.run(name, repair=repair, seen=advance))
        else:
            findings = list(service.examine(repair=repair, seen=advance, after=after))
    if after is not None and all(finding.repaired for finding in findings):
        # The next examination of changes must find problems again that are not repaired.
        instance.status.advance_doctor(service.examined)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif findings:
        cells = [[f.problem, f.address, f.account_id or "", _repair(f)] for f in findings]
        print_table({"Problem": 14, "IP": 15, "Account": 32, "Repair": 8}, cells)
    else:
        say("nothing found")
    problems = app.history_years(settings()).problems()
    for problem in problems:
        say(f"history: {problem}", err=True)
    for status, count in instance.lists.unknown_statuses().items():
        say(f"skipped: {count} with the unknown status {status}", err=True)
    sys.exit(0 if all(finding.repaired for finding in findings) and not problems else 1)


def _repair(finding: Finding) -> str:
    return "repaired" if finding.repaired else PROBLEMS[finding.problem]


@click.command()
@json_option
def refresh(as_json: bool) -> None:
    """Update databases, design documents and the accounts' copies."""
    app.databases(settings()).create()
    total, done = services().copies.refresh()
    with terminal.progress("copies", total) as advance:
        for count in done:
            advance(count)
    if as_json:
        print_json({"copies": total})
