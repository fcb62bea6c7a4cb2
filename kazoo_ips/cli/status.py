"""The command `status`: what runs where, and what is wrong."""

import sys
from collections.abc import Mapping
from typing import Any

import click

from kazoo_ips.cli.console import backend, print_json, print_table, reported, say
from kazoo_ips.services.history.times import iso_8601


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def status(*, as_json: bool) -> None:
    """Show what runs where: the service's workers, CouchDB, the background work, the doctor.

    The exit status is 0 if nothing is wrong, and 1 otherwise.
    """
    with reported("unable to read the status"):
        found = backend().status.as_json()
    if as_json:
        print_json(found)
    else:
        _print(found)
    sys.exit(1 if found["problems"] else 0)


def _print(found: Mapping[str, Any]) -> None:
    cluster = found["cluster"]
    nodes = f"{len(cluster['connected'])} nodes" if cluster["connected"] else "nodes not known"
    missing = f", not connected: {', '.join(cluster['missing'])}" if cluster["missing"] else ""
    quorum = {True: "has a quorum", False: "has no quorum", None: "quorum not known"}
    say(
        f"CouchDB {cluster['version']}: {nodes}{missing}, {cluster['replicas']} copies of each"
        f" document, {quorum[cluster['has_quorum']]}",
        "",
    )
    if found["workers"]:
        print_table(
            {"Worker": 20, "Process": 8, "Release": 8, "Since": 20},
            [
                [w["host"], str(w["pid"]), w["release"], iso_8601(w["started"]) or ""]
                for w in found["workers"]
            ],
        )
    print_table(
        {"Index": 30, "Behind": 12},
        [[f"{i['database']} {i['name']}", _pending(i["pending"])] for i in found["indexes"]],
    )
    if found["background"]:
        print_table(
            {"Background work": 20, "Done by": 10, "Behind": 12},
            [
                [f["name"], "a worker" if f["is_held"] else "nobody", _seconds(f["behind"])]
                for f in found["background"]
            ],
        )
    _print_doctor(found["doctor"])
    for problem in found["problems"]:
        say(f"wrong: {problem}")
    if not found["problems"]:
        say("nothing is wrong")


def _print_doctor(report: Mapping[str, Any] | None) -> None:
    if report is None:
        say("doctor: has not run yet")
        return
    counts = ", ".join(f"{count} {problem}" for problem, count in report["counts"].items())
    say(f"doctor: {iso_8601(report['ended'])}, by {report['by']}: {counts or 'nothing found'}")


def _pending(changes: int | None) -> str:
    return "not known" if changes is None else f"{changes} changes"


def _seconds(behind: int | None) -> str:
    return "" if behind is None else f"{behind} s"
