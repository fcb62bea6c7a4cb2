"""The commands `move`, `evacuate`, `transfer`, `jobs` and `job-stop`."""

import json
import sys
import time
from typing import Any

import click

from kazoo_ips.cli.account_names import account_id, existing
from kazoo_ips.cli.backend import Backend
from kazoo_ips.cli.console import (
    backend,
    fail,
    json_lines_option,
    print_table,
    request_id,
    say,
)
from kazoo_ips.errors import (
    BadIdentifier,
    Conflict,
    JobExists,
    LimitReached,
    ValidationFailed,
)
from kazoo_ips.model import EvacuateHost, MoveHost, TransferIPs, names
from kazoo_ips.model.jobs import Job, JobItem, JobState
from kazoo_ips.services.history import times

_PAUSE = 1.0
"""Seconds between two reads of a job that another process does."""
_COLUMNS = {"Id": 32, "Kind": 8, "Host": 20, "State": 8, "Done": 6, "Total": 6, "Failed": 6}
_NO_ADDRESS = "no address is on the host"
_SHOWN = 20
"""Maximum number of addresses that a report lists as neither moved nor replaced."""

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
_NO_WAIT = click.option(
    "--no-wait", is_flag=True, help="Do not wait for the end: the service does the rest."
)


@click.command()
@click.argument("host")
@click.option("--to-host", help="The new host.")
@click.option("--to-zone", help="The new zone; by default each address keeps its own.")
@_DRY_RUN
@json_lines_option
@_NO_WAIT
def move(  # noqa: PLR0913 - each is one argument or option
    host: str,
    to_host: str | None,
    to_zone: str | None,
    *,
    dry_run: bool,
    as_json: bool,
    no_wait: bool,
) -> None:
    """Move all addresses of a host to another host or zone.

    Each account keeps its addresses. If the command is interrupted, the service continues the job;
    `kazoo-ips job-stop` stops it.
    """
    if to_host is None and to_zone is None:
        raise click.UsageError("--to-host, --to-zone or both are required")
    for name, value in (("host", to_host), ("zone", to_zone)):
        problem = None if value is None else names.problem(value)
        if problem:
            fail(f"unable to move: the {name} {problem}")
    instance, command = backend(), MoveHost(host, to_host, to_zone)
    if dry_run:
        counts = _checked(lambda: instance.plans.move(command).counts, _NO_ADDRESS)
        for (status, zone), count in sorted(counts.items()):
            line = {"zone": zone, "status": status, "addresses": count}
            say(json.dumps(line) if as_json else f"{zone}: {count} {status}")
        if not as_json:
            say(f"{sum(counts.values())} addresses would move")
        return
    _run(instance, command, as_json=as_json, no_wait=no_wait)


@click.command()
@click.argument("host")
@_DRY_RUN
@json_lines_option
@_NO_WAIT
def evacuate(host: str, *, dry_run: bool, as_json: bool, no_wait: bool) -> None:
    """Give each account on a host additional addresses of the same zone, on other hosts.

    The account keeps the old addresses until it releases them. With --dry-run, the command prints
    each address, its account and the address that the account would get.
    """
    instance, command = backend(), EvacuateHost(host)
    if not dry_run:
        _run(instance, command, as_json=as_json, no_wait=no_wait)
        return
    plan = _checked(lambda: instance.plans.evacuate(command, 0), _NO_ADDRESS)
    shown = 0
    for item in instance.plans.items(command):
        say(json.dumps(_item(item)) if as_json else _planned(item))
        shown += 1
    if shown < plan.total:
        say(f"these are {shown} of {plan.total} addresses", err=True)
    for zone in plan.zones:
        line = {"zone": zone.zone, "needed": zone.needed, "available": zone.available}
        text = f"{zone.zone}: {zone.needed} needed, {zone.available} available"
        short = f", {zone.shortfall} too few" if zone.shortfall else ""
        say(json.dumps({**line, "shortfall": zone.shortfall}) if as_json else text + short)


@click.command()
@click.argument("ips", nargs=-1, required=True, metavar="IP...")
@click.option("--from", "from_", required=True, help="The account that has them.")
@click.option("--to", required=True, help="The account that gets them: id, realm or name.")
@_DRY_RUN
@json_lines_option
def transfer(ips: tuple[str, ...], from_: str, to: str, *, dry_run: bool, as_json: bool) -> None:
    """Transfer addresses from an account to another one, all or none.

    No third account can get them in between. An account is an id, a realm or a name.
    """
    instance = backend()
    from_id = account_id(instance, from_, "unable to transfer IPs")
    to_id = existing(instance, to, "unable to find account").id
    command = TransferIPs(ips, from_id, to_id)
    try:
        done = instance.transfers.transfer(command, request_id(), dry_run=dry_run)
    except ValidationFailed as error:
        fail(
            "unable to transfer IPs", *(f"{ips[_index(p)]}: {_rule(r)}" for p, r in _rules(error))
        )
    except (Conflict, LimitReached) as error:
        fail(f"unable to transfer IPs: {error}")
    for ip in done:
        line = {"ip": ip.address, "from": from_id, "to": to_id, "dry_run": dry_run}
        would = "would transfer" if dry_run else "transferred"
        say(json.dumps(line) if as_json else f"{would} IP {ip.address} to {to_id}")


def _rules(error: ValidationFailed) -> list[tuple[str, Any]]:
    return [(path, rules) for path, rules in error.errors.items() if path.startswith("ips.")] or [
        ("ips.0", rules) for rules in error.errors.values()
    ]


def _index(path: str) -> int:
    return int(path.partition(".")[2])


def _rule(rules: Any) -> str:
    return str(next(iter(rules.values()))["message"])


@click.command()
@click.argument("job_id", required=False, metavar="[ID]")
@json_lines_option
def jobs(job_id: str | None, *, as_json: bool) -> None:
    """Show the jobs of the last 30 days, or one job with the addresses that it did not finish."""
    instance = backend()
    if job_id is None:
        found = instance.jobs.list()
        if as_json:
            for job in found:
                say(json.dumps(_job(job)))
        elif found:
            print_table(_COLUMNS, [_cells(job) for job in found])
        else:
            say("No jobs found")
        return
    job = _checked(lambda: instance.jobs.fetch(job_id))
    if as_json:
        say(json.dumps(_job(job)))
    else:
        _report(instance, job)


@click.command()
@click.argument("job_id", metavar="ID")
@json_lines_option
def job_stop(job_id: str, *, as_json: bool) -> None:
    """Stop a job. It finishes the addresses that it is changing now."""
    job = _checked(lambda: backend().jobs.stop(job_id))
    say(json.dumps(_job(job)) if as_json else f"job {job.id}: {job.state}")


def _run(
    instance: Backend, command: MoveHost | EvacuateHost, *, as_json: bool, no_wait: bool
) -> None:
    """Create a job, and execute it in this process, unless a process of the service does.

    At the URL of a service, wait until the service has executed it.
    """
    job = _checked(lambda: instance.jobs.create(command, request_id()), _NO_ADDRESS)
    if not no_wait:
        shown = not as_json and sys.stderr.isatty()
        while not job.has_ended:
            if not instance.job_thread.round():
                time.sleep(_PAUSE)
            job = instance.jobs.fetch(job.id)
            if shown:
                click.echo(f"\r{job.state}: {job.done} of {job.total} ", nl=False, err=True)
        if shown:
            click.echo("", err=True)
    if as_json:
        say(json.dumps(_job(job)))
    else:
        _report(instance, job)
    if job.has_ended and (job.failed or job.state is JobState.STOPPED):
        sys.exit(1)


def _report(instance: Backend, job: Job) -> None:
    say(f"job {job.id}: {job.kind} {job.host}: {job.state}, {job.done} of {job.total}")
    for result, count in sorted(job.counts.items()):
        say(f"{result}: {count}")
    for item in instance.jobs.items(job, _SHOWN, failed=True).items if job.failed else ():
        say(f"{item.address}: {item.result}")
    if job.failed > _SHOWN:
        say(f"and {job.failed - _SHOWN} more")


def _checked(do: Any, missing: str = "no job has the id") -> Any:
    """Return the result of a call, or print why it failed and exit with status 1.

    :param missing: the beginning of the message if nothing has the name or id that was given
    """
    try:
        return do()
    except JobExists as error:
        fail(f"job {error.job_id} works on the host")
    except BadIdentifier as error:
        fail(f"{missing} {error.cause}")


def _job(job: Job) -> dict[str, Any]:
    to = {"to_host": job.to_host, "to_zone": job.to_zone}
    return {
        "id": job.id,
        "kind": job.kind.value,
        "host": job.host,
        **{name: value for name, value in to.items() if value},
        "state": job.state.value,
        "created": times.iso_8601(job.created),
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "results": dict(sorted(job.counts.items())),
    }


def _cells(job: Job) -> list[str]:
    numbers = (job.done, job.total, job.failed)
    return [job.id, job.kind.value, job.host, job.state.value, *map(str, numbers)]


def _item(item: JobItem) -> dict[str, Any]:
    return {
        "ip": item.address,
        "zone": item.zone,
        "account_id": item.account_id,
        "replaced_by": item.replacement,
    }


def _planned(item: JobItem) -> str:
    return f"{item.address} of {item.account_id}: {item.replacement or 'none available'}"
