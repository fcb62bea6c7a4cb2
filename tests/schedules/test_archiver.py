"""The archiver loses no event and repeats none, with any concurrent client, also if it is killed.

The archiver is one client of the schedules. Other clients write several addresses, write as Kazoo
does, compact the pool and set the clock back. The tests run a sample
of the orders. They repeat those with different outcomes, with a kill at each request of the
archiver.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from unittest.mock import patch
from urllib.parse import unquote
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Document
from kazoo_ips.errors import Conflict, DatastoreError, ValidationFailed
from kazoo_ips.model import GREGORIAN_EPOCH, AssignIPs, CreateIP, Outcome, ReleaseIPs
from kazoo_ips.model.commands import TransferIPs
from kazoo_ips.model.history import HistoryEvent, HistoryEventKind
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.history_documents import id_prefix
from tests.schedules.operations import Operation, read_pool
from tests.schedules.scheduler import (
    Choice,
    Client,
    Clock,
    Phase,
    Request,
    Run,
    execute,
    explore,
    read_schedule,
    sleeping,
)
from tests.schedules.scheduler import gated as gated_connections
from tests.schedules.world import ACCOUNTS, COPIES, PAST_LEASE, PATCHED
from tests.simulation.archive import broken_chains, effective

ORDERS = int(os.environ.get("SCHEDULES_AT_MOST", "16"))
"""The number of orders of each scenario. The first one with each outcome of the operations is
repeated about twenty times, with a kill of the archiver."""
ARCHIVER = 0
"""The number of the client that archives."""
ROUNDS, SETTLED = 4, 7
"""Number of rounds of the archiver that runs beside other clients, and of its successor."""
SET_BACK = 400.0
"""Seconds by which the operator sets the clock back."""
READS = re.compile("/_view/|^_(bulk_get|find|all_docs|changes)$")
"""Paths of requests that read, although the method of some is POST."""
KINDS = {"assigns": "assigned", "releases": "released", "gives": "transferred"}


@dataclass(frozen=True)
class Scenario:
    """The operations that run beside the archiver, and the pool in which they start.

    :param start: the account of each address, as in `a:X b:-`
    :param operations: as in `X releases ab`; those of `Kazoo` write documents past the service
    """

    start: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.start}, {', '.join(self.operations)}"


SCENARIOS = [
    Scenario("a:X b:X", ("Kazoo releases b", "X releases ab", "operator compacts")),
    Scenario("a:- b:-", ("X assigns ab", "Y assigns b", "operator compacts")),
    Scenario("a:X b:-", ("X gives a", "Kazoo assigns b", "Kazoo releases ab")),
]


@dataclass
class Written:
    """An operation, and what is known of its outcome.

    :param done: whether it was acknowledged; None without a reply
    :param revisions: those that Kazoo has written, by address
    """

    operation: Operation
    request_id: str = field(default_factory=lambda: uuid4().hex)
    done: bool | None = None
    revisions: dict[str, str] = field(default_factory=dict)


class World:
    """Databases with accounts X and Y. Each run has addresses of its own."""

    def __init__(self, settings: Settings) -> None:
        self.clock = Clock()
        self._settings = settings
        self._letters: dict[str, str] = {}
        self._runs = 0
        self.services = composition.build(settings.as_administrator(), clock=self.clock)
        operator = self.services.accounts.create("Operator", "operator.example.com")
        self.ids = {
            name: self.services.accounts.create(name, f"{name}.example.com", operator.id).id
            for name in ACCOUNTS
        }
        self._couch = composition.connect(settings.as_administrator())
        self._pool = self._couch.database("dedicated_ips")
        copies = {account_database(self.ids[name]): shown for name, shown in COPIES.items()}
        self._names = {"dedicated_ips": "pool", "kazoo_ips": "records", **copies}

    def process(self) -> Instance:
        """Return the services of another process."""
        pause = sleeping(self.clock)
        return composition.build(self._settings, clock=self.clock, pause=pause)

    def begin(self, scenario: Scenario) -> dict[str, str]:
        """Add new addresses, whose events are not archived yet. Return them by letter."""
        self._runs += 1
        self.clock.now = math.ceil(self.clock.now / 1000) * 1000.0 + 1000
        pool = read_pool(scenario.start)
        made = {letter: f"2001:db8:{self._runs:x}::{letter}" for letter, _ in sorted(pool)}
        self._letters = {address: letter for letter, address in made.items()}
        commands = [CreateIP(address, "z", "h.example.com") for address in made.values()]
        self.services.bulk_additions.create_all(commands, uuid4().hex)
        for name, account_id in self.ids.items():
            owned = tuple(made[letter] for letter, owner in sorted(pool) if owner == name)
            if owned:
                self.services.ips.assign_all(AssignIPs(account_id, owned), uuid4().hex)
        return made

    # Clients.

    def archive(self, rounds: int) -> None:
        """Run the archiver of a new process."""
        background = self.process().background
        for _ in range(rounds):
            with suppress(DatastoreError):
                background.archive()
            self.clock.now += 1

    def carry_out(self, services: Instance, made: dict[str, str], written: Written) -> None:
        """Carry out an operation, and what the worker defers until after its reply."""
        operation = written.operation
        addresses = [made[letter] for letter in operation.what if letter in made]
        if operation.by == "Kazoo":
            self._write_by_hand(addresses, written)
        elif operation.verb == "compacts":
            self._pool._resource.post("_compact", headers={"Content-Type": "application/json"})
            self.clock.now -= SET_BACK
        else:
            self._request(services, tuple(addresses), written)
            services.background.work()

    def _request(self, services: Instance, addresses: tuple[str, ...], written: Written) -> None:
        account_id = self.ids[written.operation.by]
        try:
            match written.operation.verb:
                case "assigns":
                    services.ips.assign_all(AssignIPs(account_id, addresses), written.request_id)
                case "releases":
                    services.ips.release_all(ReleaseIPs(account_id, addresses), written.request_id)
                case "gives":
                    [other] = set(self.ids.values()) - {account_id}
                    command = TransferIPs(addresses, account_id, other)
                    services.transfers.transfer(command, written.request_id)
            written.done = True
        except (Conflict, ValidationFailed):
            written.done = False

    def _write_by_hand(self, addresses: list[str], written: Written) -> None:
        """Write documents as a Kazoo node does, which knows no trail."""
        for address in addresses:
            document = self._pool.get(address)
            document["pvt_modified"] = int(self.clock.now) + GREGORIAN_EPOCH
            if written.operation.verb == "releases":
                if document.pop("pvt_assigned_to", None) is None:
                    continue
                document["pvt_status"] = "available"
            elif document["pvt_status"] == "available":
                document |= {"pvt_status": "assigned", "pvt_assigned_to": self.ids["Y"]}
            else:
                continue
            result = self._pool.put(document)
            if result.outcome is Outcome.DONE:
                written.revisions[address] = str(result.revision)

    def finish(self, living: Sequence[Instance]) -> None:
        """Run the background work of the next minutes, and archive all remaining events."""
        self.clock.now += PAST_LEASE
        for services in living:
            services.background.work()
            services.background.check_due(math.inf)
        self.process().background.recover()
        self.archive(SETTLED)

    # The documents after a run.

    def archived(self) -> list[Document]:
        """Return the documents of the archive about the addresses of this run."""
        found: list[Document] = []
        for name in self._couch.databases():
            for address in self._letters if name.startswith("kazoo_ips_history_") else ():
                prefix = id_prefix(address)
                found += self._couch.database(name).range(prefix, f"{prefix}\uffff")
        return found

    def pool(self) -> dict[str, Document]:
        """Return the documents of the addresses of this run."""
        return self._pool.look_up(list(self._letters))[0]

    # Schedules.

    def describe(self, method: str, target: str, body: bytes | None) -> Request | None:
        """Return what a request reads or writes; None if no schedule stops it."""
        database, *path = target.split("?", maxsplit=1)[0].strip("/").split("/")
        full = unquote(database).removeprefix(self._settings.prefix)
        is_archive = full.startswith("kazoo_ips_history_")
        name = "archive" if is_archive else self._names.get(full)
        document = unquote("/".join(path))
        if name is None or not document or re.fullmatch("[0-9a-f]{32}|place-settings", document):
            return None
        content = json.loads(body) if body else {}
        listed = [*content.get("docs", ()), *({"_id": key} for key in content.get("keys", ()))]
        ids = {str(each.get("_id", each.get("id", ""))) for each in listed}
        if not document.startswith("_"):
            ids = {document}
        shown = sorted(filter(None, map(self._letter, ids)))
        label = re.sub("[0-9a-f]{32,}", "…", self._letter(document) or document)
        writes = method not in ("GET", "HEAD") and not READS.search(document)
        text = f"{method} {name}/{label} {' '.join(shown)}"
        return Request(text.rstrip(), name, frozenset(ids) or None, writes)

    def _letter(self, document_id: str) -> str:
        for address, letter in self._letters.items():
            if document_id == address or document_id.startswith(id_prefix(address)):
                return letter
        return ""


@contextmanager
def world(settings: Settings) -> Iterator[World]:
    """Create databases and a world on them, whose requests the scheduler controls."""
    own = replace(settings.as_administrator(), prefix=f"{settings.prefix}{uuid4().hex[:6]}-")
    databases = composition.databases(own)
    databases.create()
    box: list[World] = []

    def describe(method: str, target: str, body: bytes | None) -> Request | None:
        return box[0].describe(method, target, body) if box else None

    try:
        with patch(PATCHED, gated_connections(describe)):
            box.append(World(own))
            yield box[0]
    finally:
        databases.delete()


@dataclass
class Played:
    """A run and its violations, one line each."""

    run: Run
    written: list[Written]
    violations: list[str]

    @property
    def outcome(self) -> tuple[tuple[bool | None, int], ...]:
        """Which operations were done, and how many documents Kazoo has written."""
        return tuple((each.done, len(each.revisions)) for each in self.written)

    def __str__(self) -> str:
        replies = [f"{each.operation}: {each.done} {each.revisions}" for each in self.written]
        return "\n".join([*self.violations, *(f"    {s}" for s in self.run.steps), *replies])


def play(world: World, scenario: Scenario, schedule: Sequence[Choice]) -> Played:
    """Run one schedule on new addresses, and check the archive afterwards."""
    made = world.begin(scenario)
    written = [Written(Operation.read(text)) for text in scenario.operations]
    processes = [world.process() for _ in written]

    def clients() -> list[Client]:
        others = [
            Client(str(each.operation), partial(world.carry_out, services, made, each))
            for services, each in zip(processes, written, strict=True)
        ]
        return [Client("archiver", partial(world.archive, ROUNDS)), *others]

    started: list[Client] = []
    phase = Phase(lambda: started.extend(clients()) or started)
    run = execute(world.clock, [phase], schedule)
    violations = [f"{each.name}: {each.result!r}" for each in started if each.result]
    world.finish([p for p, c in zip(processes, started[1:], strict=True) if not c.killed])
    events = effective(world.archived())
    violations += misrecorded(events, written, made)
    violations += broken_chains(_bridged(events), world.pool())
    return Played(run, written, violations)


def misrecorded(
    events: Sequence[HistoryEvent], written: Sequence[Written], made: dict[str, str]
) -> Iterator[str]:
    """Yield the operations whose events are wrong.

    A done operation has one event for each change. A refused one has none.
    """
    for each in written:
        if each.operation.by == "Kazoo":
            found = Counter(e.revision for e in events if e.revision in each.revisions.values())
            if sorted(found.elements()) != sorted(each.revisions.values()):
                yield f"{each.operation}: wrote {each.revisions}, and the archive has {found}"
        elif each.done is not None and each.operation.verb in KINDS:
            kind = KINDS[each.operation.verb]
            own = [(e.event, e.address) for e in events if e.request_id == each.request_id]
            expected = [(kind, made[letter]) for letter in each.operation.what if each.done]
            if sorted(own) != sorted(expected):
                yield f"{each.operation}: done is {each.done}, and the archive has {own}"


def _bridged(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """Return the events of addresses. A gap gets the states of the events before and after it."""
    bridged = list(events)
    for at, event in enumerate(events):
        if event.event == HistoryEventKind.UNKNOWN:
            before = bridged[at - 1].after
            known = (e for e in events[at + 1 :] if e.event != HistoryEventKind.UNKNOWN)
            bridged[at] = replace(event, before=before, after=next(known).before)
    return bridged


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_each_change_is_archived_once_wherever_the_archiver_is_killed(
    settings: Settings, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    runs: list[Played] = []
    with world(settings) as made:

        def go(schedule: Sequence[Choice]) -> Run:
            runs.append(play(made, scenario, schedule))
            return runs[-1].run

        if "SCHEDULE" in os.environ:
            go(read_schedule(os.environ["SCHEDULE"]))
            print(f"\n{runs[0]}")
        else:
            outcomes = set()
            for order in explore(go, preemptions=2, at_most=ORDERS):
                if (outcome := runs[-1].outcome) not in outcomes:
                    outcomes.add(outcome)
                    for schedule in _kills(order):
                        go(schedule)
            assert len(outcomes) > 1, "the sample has one outcome only"
    failed = [each for each in runs if each.violations]
    request.node.user_properties.append(("schedules", len(runs)))
    if failed:
        shortest = min(failed, key=lambda each: len(each.run.taken))
        pytest.fail(
            f"{len(failed)} of {len(runs)} schedules failed. The shortest:\n{shortest}\n"
            f"To repeat it: SCHEDULE='{shortest.run.schedule}' "
            f".venv/bin/pytest -n0 -s '{request.node.nodeid}'",
            pytrace=False,
        )


def _kills(order: Run) -> Iterator[list[Choice]]:
    """Yield the order up to each request of the archiver, which is then killed there."""
    for at, choice in enumerate(order.taken):
        for fault in order.faults[at] if choice.client == ARCHIVER else ():
            if fault.startswith("killed"):
                yield [*order.taken[:at], Choice(ARCHIVER, fault)]
