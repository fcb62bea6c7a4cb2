"""Jobs on all addresses of a host: moving and evacuating it, with the plan first, and progress."""

from typing import Any

from flask import g, request, url_for

from kazoo_ips.api import job_schemas, schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import forms
from kazoo_ips.console.pages import Confirmation, ask, done, is_partial, page, pages
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import EvacuateHost, MoveHost

_ITEMS = 50
"""Number of addresses of a job on a page."""


@pages.on("GET", "/jobs", who=Who.OPERATOR)
def list_jobs() -> str:
    """The jobs of the last weeks, the latest first."""
    template = "_jobs.html" if is_partial() else "jobs.html"
    return page(template, jobs=services().jobs.list())


@pages.on("GET", "/jobs/<job_id>", who=Who.OPERATOR)
def show_job(job_id: str) -> str:
    """One job: its progress, and its result for each address."""
    job = services().jobs.fetch(job_id)
    given = [(k, v) for k, v in forms.given() if k in ("start_key", "failed")]
    query = schemas.load_query((job_schemas.JobQuerySchema(),), given)
    failed = bool(query.get("failed"))
    found = services().jobs.items(job, _ITEMS, query.get("start_key", (0, 0)), failed=failed)
    accounts = {item.account_id for item in found.items if item.account_id}
    template = "job.html"
    if is_partial():
        template = "_job.html" if "progress" in request.args else "_job_items.html"
    return page(
        template,
        job=job,
        items=found.items,
        names=services().accounts.names(accounts),
        next_page=forms.next_page(found.after),
        failed=failed,
    )


@pages.on("POST", "/jobs/<job_id>/stop", who=Who.OPERATOR)
def stop_job(job_id: str) -> Any:
    """Stop a job between two of its parts."""
    job = services().jobs.stop(job_id, dry_run=write()["dry_run"])
    path = url_for("console.show_job", job_id=job.id)
    if not write()["dry_run"]:
        return done(path, "job_stopped")
    return ask(
        Confirmation(
            f"Stop the job on {job.host}",
            "Stop",
            path,
            notes=["Addresses that it has changed stay changed. It does not change the others."],
            danger=True,
        )
    )


@pages.on("POST", "/host/move", who=Who.OPERATOR)
def move_host() -> Any:
    """Move all addresses of a host to another host or zone."""
    host = request.form.get("name", "")
    given = {name: request.form.get(name, "").strip() for name in ("host", "zone")}
    command = job_schemas.load_move(host, {k: v for k, v in given.items() if v}, ())
    if not write()["dry_run"]:
        return _started(command)
    plan = services().plans.move(command)
    lines = [
        (
            f"{count} {status}",
            f"{zone}, {host}",
            f"{command.to_zone or zone}, {command.to_host or host}",
        )
        for (status, zone), count in sorted(plan.counts.items())
    ]
    return ask(
        Confirmation(
            f"Move {sum(plan.counts.values())} addresses of {host}",
            "Move",
            _path(host),
            lines,
            [
                "Each account keeps its addresses. Prepare the new host for calls first: calls go "
                "there as soon as an address has moved."
            ],
        )
    )


@pages.on("POST", "/host/evacuate", who=Who.OPERATOR)
def evacuate_host() -> Any:
    """Give each account on a host additional addresses on other hosts."""
    command = EvacuateHost(request.form.get("name", ""))
    if not command.host:
        raise ValidationFailed({"host": {"required": {"message": "Field is required"}}})
    if not write()["dry_run"]:
        return _started(command)
    plan = services().plans.evacuate(command, job_schemas.SHOWN)
    owners = services().accounts.names({i.account_id for i in plan.items if i.account_id})
    lines = [
        (item.address, owners.get(item.account_id or "", item.account_id or ""),
         f"also {item.replacement}" if item.replacement else "none is available")
        for item in plan.items
    ]  # fmt: skip
    zones = [
        f"{zone.zone}: {zone.needed} needed, {zone.available} available on other hosts"
        + (f", {zone.shortfall} cannot be replaced" if zone.shortfall else "")
        for zone in plan.zones
    ]
    return ask(
        Confirmation(
            f"Give additional addresses to the accounts on {command.host}",
            "Evacuate",
            _path(command.host),
            lines,
            [
                f"{plan.total} addresses get a replacement. Each account keeps its old addresses "
                "until it releases them.",
                *zones,
            ],
        )
    )


def _started(command: MoveHost | EvacuateHost) -> Any:
    job = services().jobs.create(command, g.request_id)
    return done(url_for("console.show_job", job_id=job.id), "job_started")


def _path(host: str) -> str:
    return url_for("console.show_host", name=host)
