"""Each kind of event reaches the history, the feed, webhooks, Kazoo's bus and billing.

One pool gets every change that the service, the background work and other programs can make. A new
kind of event fails here until one of these changes makes it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.model import (
    AllocateIPs,
    AssignIPs,
    ChangeIP,
    Changes,
    DisableIP,
    EnableIP,
    EndRest,
    EvacuateHost,
    MoveHost,
    Scope,
)
from kazoo_ips.model.commands import (
    AssignReserved,
    ExtendReservation,
    ReserveIPs,
    TransferIPs,
)
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.history import HistoryEventKind as Kind
from kazoo_ips.model.limits import Limits
from kazoo_ips.model.webhooks import hooks
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.outbound.crossbar import Crossbar
from kazoo_ips.services.kazoo.document_changes import DocumentChanges
from kazoo_ips.services.kazoo.reconciliation import Reconciliation
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.bus.crossbar import FakeCrossbar
from tests.history.conftest import IP, World
from tests.history.test_foreign_writes import compact, kazoo_assigns, kazoo_releases
from tests.webhooks.receivers import Receiver

OTHER = "192.0.2.2"
ZONE, HOST = Place(Scope.ZONE, "z"), Place(Scope.HOST, "h")
TIME_LIMIT = 60.0
"""Seconds within which a receiver gets all events."""


@dataclass
class Life:
    """A pool, and every change that can be made to it."""

    world: World

    @property
    def services(self) -> Instance:
        return self.world.services

    def steps(self) -> Iterator[tuple[str, Callable[[], object], list[str]]]:
        """Yield the name of each change, a function that makes it, and the kinds of its events."""
        world, x, y = self.world, self.world.account_id, self.world.other_id
        yield "addition", lambda: (world.create(), world.create(OTHER)), ["created"] * 2
        yield "assignment", world.assign, ["assigned"]
        yield "transfer", lambda: self._transfer(x, y), ["transferred"]
        yield "description", lambda: self._change(Changes(description="spare")), ["changed"]
        yield "another zone", lambda: self._change(Changes(zone="y")), ["changed"]
        yield "back", lambda: self._change(Changes(zone="z")), ["changed"]
        yield "out of service", self._disable, ["disabled"]
        yield "in service", self._enable, ["enabled"]
        yield "a limit", lambda: self.services.limits.set(x, Limits(5), uuid4().hex), []
        yield "a rest", lambda: self._place(ChangePlace(ZONE, aging_seconds=1000)), []
        yield "release", world.release, ["released"]
        yield "end of the rest", self._end_rest, ["aged"]
        yield "reservation", self._reserve, ["reserved"]
        yield "a longer one", self._extend, ["reserved"]
        yield "its end", self._cancel, ["released"]
        yield "another one", self._reserve, ["reserved"]
        yield "its assignment", self._assign_reserved, ["assigned"]
        yield "Kazoo", lambda: kazoo_releases(world, self._now()), ["released", "aged"]
        yield "end of its rest", self._end_rest, ["aged"]
        yield "no rest", lambda: self._place(ChangePlace(ZONE, aging_seconds=0)), []
        yield "a gap", self._leave_gap, ["unknown", "changed"]
        yield "allocation", self._allocate_all, ["assigned", "assigned"]
        yield "a low zone", self.services.low_zones.check, ["pool.low"]
        yield "release of all", lambda: (world.release(), world.release(OTHER)), ["released"] * 2
        yield "enough again", self.services.low_zones.check, ["pool.recovered"]
        yield "drain", self._drain, ["disabled"] * 2
        yield "end of the drain", self._end_drain, ["enabled"] * 2
        yield "move", lambda: self._job(MoveHost("h", "g")), ["changed"] * 2
        yield "another place", lambda: self._change(Changes(host="f")), ["changed"]
        yield "assignment there", world.assign, ["assigned"]
        yield "evacuation", lambda: self._job(EvacuateHost("f")), ["assigned", "changed"]
        yield "deletion", lambda: world.delete(force=True), ["released", "deleted"]
        yield "a withdrawn write", self._retract, ["retracted"]

    def _now(self) -> int:
        return int(self.world.pool.get(IP)["pvt_modified"]) + 1

    def _transfer(self, before: str, after: str) -> None:
        self.services.transfers.transfer(TransferIPs((IP,), before, after), uuid4().hex)

    def _change(self, changes: Changes) -> None:
        command = ChangeIP(IP, changes, if_match=("*",))
        self.services.address_changes.change(command, uuid4().hex)

    def _disable(self) -> None:
        self.services.operator_changes.disable(DisableIP(IP, "listed"), uuid4().hex)

    def _enable(self) -> None:
        self.services.operator_changes.enable(EnableIP(IP), uuid4().hex)

    def _end_rest(self) -> None:
        self.services.operator_changes.end_rest(EndRest(IP, "needed"), uuid4().hex)

    def _place(self, command: ChangePlace) -> None:
        self.services.places.change(command, uuid4().hex)

    def _reserve(self) -> None:
        wanted = ReserveIPs(AssignIPs(self.world.account_id, (IP,)), 600)
        self.reserved = self.services.reservations.reserve(wanted, uuid4().hex)

    def _extend(self) -> None:
        command = ExtendReservation(self.world.account_id, self.reserved.id, 900)
        self.services.reservations.extend(command, uuid4().hex)

    def _cancel(self) -> None:
        account_id = self.world.account_id
        self.services.reservations.cancel(account_id, self.reserved.id, uuid4().hex)

    def _assign_reserved(self) -> None:
        command = AssignReserved(self.world.account_id, self.reserved.id)
        self.services.reservations.assign(command, uuid4().hex)

    def _leave_gap(self) -> None:
        """Write a document twice past the service. The database keeps only the second write."""
        kazoo_assigns(self.world, at=self._now())
        kazoo_releases(self.world, self._now())
        if os.environ.get("COUCHDB_URL"):
            compact(self.world)

    def _allocate_all(self) -> None:
        self.services.allocation.allocate(AllocateIPs(self.world.account_id, 2), uuid4().hex)

    def _drain(self) -> None:
        self._place(ChangePlace(HOST, enabled=False, reason="proxy goes"))

    def _end_drain(self) -> None:
        self._place(ChangePlace(HOST, enabled=True))

    def _job(self, command: MoveHost | EvacuateHost) -> None:
        job = self.services.jobs.create(command, uuid4().hex)
        while not job.has_ended:
            job = self.services.job_runner.step(job)
        assert not job.failed, job

    def _retract(self) -> None:
        """Retract an event, as the archiver does if the write of the event was withdrawn."""
        event = self.world.events(OTHER)[0]
        retraction = replace(event, id=f"{event.id}-r", event=Kind.RETRACTED, retracts=event.id)
        self.services.archive.append([replace(retraction, before=None, after=None)])


def bus(event: HistoryEvent) -> list[str]:
    """Return the changes that Kazoo's nodes are told: of the pool (-), of copies and of routes."""
    heard = []
    for message in DocumentChanges("1").messages(event):
        payload = json.loads(message.body)
        name = payload["Event-Name"].removeprefix("doc_")
        place = "routes" if payload["ID"] == "resource" else "copy"
        heard.append(f"{name} {place if 'Account-ID' in payload else 'pool'}")
    return heard


OF_OWNER = {"edited pool", "edited copy", "edited routes"}
HEARD: Mapping[str, set[str]] = {
    "created": {"created pool"},
    "assigned": {"edited pool", "created copy", "edited routes"},
    "released": {"edited pool", "deleted copy", "edited routes"},
    "transferred": {"edited pool", "deleted copy", "created copy", "edited routes"},
    "reserved": {"edited pool", "edited routes"},
    "changed": OF_OWNER,
    "disabled": OF_OWNER,
    "enabled": OF_OWNER,
    "aged": {"edited pool"},
    "deleted": {"deleted pool"},
    "unknown": {"edited pool"},
    "retracted": {"edited pool"},
    "pool.low": set(),
    "pool.recovered": set(),
}
"""The changes that Kazoo's nodes are told, by the kind of the event."""
BILLED = {"assigned", "released", "transferred"}
"""The kinds whose events change how many addresses an account has."""


def test_every_kind_of_event_reaches_every_receiver(world: World) -> None:
    with Receiver() as receiver, FakeCrossbar() as crossbar:
        settings = replace(
            world.settings, webhook_networks="127.0.0.0/8", crossbar_url=crossbar.url
        )
        process = composition.build(settings, clock=lambda: world.clock[0])
        process.webhooks.create(None, {"name": "all", "uri": receiver.uri, "hook": "all"})
        [billing] = process.consumers()
        billing.step()
        events = live(Life(world))
        kinds = {str(event.event) for event in events}
        assert kinds == {kind.value for kind in Kind}
        assert {f"ips_{kind.replace('.', '_')}" for kind in kinds} == {*hooks()} - {"all"}
        is_in_archive(world, events)
        bodies = delivered(world, process, receiver, len(events))
        assert [body["event"] for body in bodies] == [str(event.event) for event in events]
        assert [body["id"] for body in bodies] == [event.id for event in events]
        for _ in range(10):
            billing.step()
            world.clock[0] += 1
        assert set(crossbar.accounts) == {world.account_id, world.other_id}
        with_bill = {str(event.event) for event in events if billed(world, event, crossbar)}
        assert with_bill == BILLED
    found: dict[str, set[str]] = {}
    for event in events:
        found.setdefault(str(event.event), set()).update(bus(event))
    assert found == HEARD


def live(life: Life) -> list[HistoryEvent]:
    """Make all changes, and return the events of the feed."""
    services, since, events = life.services, "0", []
    for name, happen, kinds in life.steps():
        happen()
        life.world.archive()
        page = services.changes.read(since, 1000)
        since = page.since
        new = [entry.event for entry in page.entries]
        assert sorted(str(event.event) for event in new) == sorted(kinds), name
        events += new
    return events


def is_in_archive(world: World, events: list[HistoryEvent]) -> None:
    """Compare the events of the feed with the histories of the addresses."""
    for address in (IP, OTHER):
        stored = sorted(document["id"] for document in world.documents(address))
        assert stored == sorted(event.id for event in events if event.address == address)


def delivered(
    world: World, process: Instance, receiver: Receiver, count: int
) -> list[dict[str, Any]]:
    """Let the webhooks be delivered, and return what the receiver has got."""
    end = time.monotonic() + TIME_LIMIT
    while len(receiver.received) < count and time.monotonic() < end:
        process.webhook_sender.step()
        world.clock[0] += 1
        time.sleep(0.01)
    return [json.loads(each.body) for each in receiver.received]


def billed(world: World, event: HistoryEvent, crossbar: FakeCrossbar) -> set[str]:
    """Return the accounts that Crossbar is asked to reconcile after an event."""
    made = Reconciliation(
        Crossbar(crossbar.url),
        world.services.accounts,
        world.services.auth,
        now=lambda: event.at,
        token_lifetime=3600,
        counts=Metrics(),
    )
    made.take([event])
    return set(made.dump())
