"""Hosts moved and evacuated by jobs, changes of an address, transfers, and labels."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP, DedicatedIP
from tests.conftest import Member
from tests.console.browsing import Browser, confirmed, message_of

HOST, OTHER = "proxy1.example.com", "proxy2.example.com"


def work(services: Instance) -> None:
    """Do the background work of jobs, as a running service does."""
    for _ in range(100):
        jobs = services.job_runner.unfinished()
        if not jobs:
            return
        for job in jobs:
            services.job_runner.step(job)
    raise AssertionError("a job does not end")


def test_a_host_is_moved_after_its_plan(
    owner: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    for n in (1, 2):
        add(f"192.0.2.{n}", host=HOST)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    form = owner.open(f"/console/host?name={HOST}").forms["move"]
    form["host"] = OTHER
    preview = form.submit()
    assert "1 assigned" in preview.text
    assert "1 available" in preview.text
    assert not services.job_runner.unfinished()
    started = confirmed(preview)
    assert message_of(started) == "The job is under way."
    path = started.location.partition("?")[0]
    again = form.submit(status=409)
    assert "Another job works on this host" in again.text
    work(services)
    page = owner.open(path)
    assert "2 of 2" in page.html.find(id="progress").get_text()
    assert {services.ips.fetch(f"192.0.2.{n}").host for n in (1, 2)} == {OTHER}
    assert path.rpartition("/")[2] in owner.open("/console/jobs").text
    part = owner.get(f"{path}?progress=1", headers={"HX-Request": "true"})
    assert part.text.lstrip().startswith("<div id=")


def test_an_evacuation_shows_who_gets_what_and_can_be_stopped(
    owner: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.1", host=HOST)
    add("192.0.2.2", host=OTHER)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    preview = owner.open(f"/console/host?name={HOST}").forms["evacuate"].submit()
    assert "also 192.0.2.2" in preview.text
    assert "Alice" in preview.text
    job = confirmed(preview).follow()
    assert "and stops" in message_of(confirmed(job.forms["stop"].submit()))
    work(services)
    assert services.jobs.list()[0].has_ended


def test_an_address_is_changed_and_found_by_its_label(
    owner: Browser, hers: Browser, services: Instance, alice: Member,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    add()
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    form = owner.open("/console/addresses/192.0.2.1").forms["change"]
    form["host"], form["description"] = OTHER, "<b>old</b>"
    form["labels"] = "carrier:example, rack:7"
    preview = form.submit()
    assert "&lt;b&gt;old" in preview.text
    assert services.ips.fetch("192.0.2.1").host != OTHER
    assert message_of(confirmed(preview)) == "The address was changed."
    page = owner.open("/console/addresses/192.0.2.1")
    assert page.forms["change"]["labels"].value == "carrier:example, rack:7"
    assert "192.0.2.1" in owner.open("/console/search?q=rack:7").text
    assert "192.0.2.1" in owner.open("/console/addresses?label=rack:7").text
    form = page.forms["change"]
    form["labels"], form["description"] = "rack:8", ""
    confirmed(form.submit())
    assert services.ips.fetch("192.0.2.1").labels == (("rack", "8"),)
    form["labels"] = "nothing"
    assert "key:value" in form.submit(status=400).text
    assert "rack" not in hers.open("/console/addresses/192.0.2.1").html.find("dl").get_text()


def test_an_address_is_transferred(
    owner: Browser, services: Instance, alice: Member, bob: Member,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    add()
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    form = owner.open("/console/addresses/192.0.2.1").forms["transfer"]
    form["account"] = bob.id
    preview = form.submit()
    assert services.ips.fetch("192.0.2.1").assigned_to == alice.id
    assert message_of(confirmed(preview)) == "Transferred."
    assert services.ips.fetch("192.0.2.1").assigned_to == bob.id


def test_an_unknown_job_is_404(owner: Browser, pool: Any) -> None:
    owner.open("/console/jobs/nothing", status=404)
    owner.send("/console/jobs/nothing/stop", 404)
    owner.send("/console/host/evacuate", 400)
