"""The service and a model of the five states agree for random sequences of changes.

Kazoo writes between them: its release makes any address available, and it assigns only what is
exactly `available`.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kazoo_ips.errors import InsufficientIPs, IPAssigned, ValidationFailed
from kazoo_ips.model import (
    AllocateIPs,
    ChangeIP,
    Changes,
    CreateIP,
    DeleteIP,
    DisableIP,
    EnableIP,
    EndRest,
    Scope,
)
from kazoo_ips.model.history import Source
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.history.conftest import World
from tests.strategies import runs

PLACES = {"192.0.2.1": ("z", "h"), "192.0.2.2": ("z", "g"), "192.0.2.3": ("y", "h")}
MOVES = "192.0.2.1"
"""The address that moves. Each zone and host has another address too, so it never disappears."""
PLACE = {("host", "h"), ("host", "g"), ("zone", "z"), ("zone", "y")}


@dataclass(frozen=True)
class Expected:
    """The expected state of one address.

    :param until: the end of its rest, in seconds of the model's clock
    :param mark: `ip`, `host` or `zone`, if it is disabled, or its release will disable it
    """

    status: str
    owner: str | None = None
    until: float = 0
    last: str | None = None
    mark: str | None = None


@dataclass
class Model:
    """The addresses, the drained places, and how long the addresses of a zone rest.

    :param places: the zone and the host of each address
    """

    now: float = 0
    ips: dict[str, Expected] = field(default_factory=dict)
    places: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(PLACES))
    drained: set[tuple[str, str]] = field(default_factory=set)
    rest: dict[str, int] = field(default_factory=dict)

    def addresses_of(self, place: tuple[str, str]) -> list[tuple[str, Expected]]:
        """Return the addresses of a zone or a host."""
        return [(a, ip) for a, ip in self.ips.items() if place[1] in self.places[a]]

    def drain(self, address: str) -> str | None:
        """Return the scope of the drain that applies to an address."""
        zone, host = self.places[address]
        if ("host", host) in self.drained:
            return "host"
        return "zone" if ("zone", zone) in self.drained else None

    def is_free(self, address: str, account: str) -> bool:
        """Return whether an account may have an address."""
        ip = self.ips[address]
        if ip.status in ("assigned", "disabled") or self.drain(address):
            return False
        return ip.until <= self.now or ip.last == account

    def put_down(self, address: str, until: float, last: str | None) -> None:
        """End the assignment of an address, or another state of it."""
        mark = self.ips[address].mark or self.drain(address)
        rests = until > self.now
        status = "disabled" if mark else "aging" if rests else "available"
        rest = (until, last) if rests else (0, None)
        self.ips[address] = Expected(status, None, *rest, mark)

    def move(self, address: str, zone: str, host: str) -> None:
        """Move an address. Its mark is that of the new place, unless it has one of its own."""
        self.places[address] = (zone, host)
        ip = self.ips[address]
        own = ip.mark if ip.mark == "ip" else None
        if ip.status == "assigned":
            self.ips[address] = replace(ip, mark=own)
        elif ip.mark != (own or self.drain(address)):
            self.ips[address] = replace(ip, mark=own)
            self.put_down(address, ip.until, ip.last)

    def release(self, address: str, at: float) -> None:
        """Release an address at a time."""
        rest = self.rest.get(self.places[address][0], 0)
        self.put_down(address, at + rest if rest else 0, self.ips[address].owner)


class StateMachine(RuleBasedStateMachine):
    """Compares the documents with the model after every change."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model(world.clock[0])
        self.accounts = {"a": world.account_id, "b": world.other_id}

    @property
    def services(self) -> Any:
        return self.world.services

    def do(self, action: Callable[[], object], *, possible: bool) -> None:
        """Do an action. The service has to refuse it if the model says that it is not possible."""
        if possible:
            action()
            return
        with pytest.raises((ValidationFailed, InsufficientIPs, IPAssigned)):
            action()

    @initialize()
    def begin(self) -> None:
        for scope, name in PLACE:
            enabled = ChangePlace(Place(Scope(scope), name), enabled=True)
            with suppress(Exception):
                self.services.places.change(enabled, uuid4().hex)
        for zone in ("z", "y"):
            with suppress(Exception):
                self.services.places.set(ChangePlace(Place(Scope.ZONE, zone), aging_seconds=0))
        for address, (zone, host) in PLACES.items():
            with suppress(Exception):
                self.services.pool.delete(DeleteIP(address, force=True), uuid4().hex)
            self.services.pool.create(CreateIP(address, zone, host), uuid4().hex)
            self.model.ips[address] = Expected("available")
        self.model.now = self.world.clock[0]
        self.archive()

    def archive(self) -> None:
        """Let the archiver handle all writes. It corrects the writes of Kazoo."""
        self.world.archive(seconds=4)
        self.model.now = self.world.clock[0]

    @rule(address=st.sampled_from([*PLACES]), account=st.sampled_from("ab"))
    def assign(self, address: str, account: str) -> None:
        possible = self.model.is_free(address, account)
        owner = self.accounts[account]
        self.do(lambda: self.world.assign(address, owner), possible=possible)
        if possible:
            self.model.ips[address] = Expected("assigned", account)

    @rule(account=st.sampled_from("ab"))
    def allocate_all(self, account: str) -> None:
        free = [a for a, ip in self.model.ips.items() if self.model.is_free(a, "-")]
        command = AllocateIPs(self.accounts[account], max(len(free), 1))
        self.do(
            lambda: self.services.allocation.allocate(command, uuid4().hex), possible=bool(free)
        )
        for address in free:
            self.model.ips[address] = Expected("assigned", account)

    @rule(address=st.sampled_from([*PLACES]))
    def release(self, address: str) -> None:
        possible = self.model.ips[address].status == "assigned"
        self.do(lambda: self.world.release(address), possible=possible)
        if possible:
            self.model.release(address, self.model.now)

    @rule(address=st.sampled_from([*PLACES]))
    def disable(self, address: str) -> None:
        self.services.operator_changes.disable(DisableIP(address, "listed"), uuid4().hex)
        ip = self.model.ips[address]
        status = "assigned" if ip.status == "assigned" else "disabled"
        self.model.ips[address] = replace(ip, status=status, mark="ip")

    @rule(address=st.sampled_from([*PLACES]))
    def enable(self, address: str) -> None:
        ip, drain = self.model.ips[address], self.model.drain(address)
        possible = ip.status == "assigned" or ip.mark is None or ip.mark != drain
        changes = self.services.operator_changes
        self.do(lambda: changes.enable(EnableIP(address), uuid4().hex), possible=possible)
        if possible and ip.mark:
            self._unmark(address)

    @rule(zone=st.sampled_from("zy"), host=st.sampled_from("hg"))
    def move(self, zone: str, host: str) -> None:
        if self.model.places[MOVES] == (zone, host):
            return
        command = ChangeIP(MOVES, Changes(zone, host), if_match=("*",))
        after = self.services.address_changes.change(command, uuid4().hex)
        assert (after.zone, after.host) == (zone, host)
        self.model.move(MOVES, zone, host)

    def _unmark(self, address: str) -> None:
        ip = self.model.ips[address] = replace(self.model.ips[address], mark=None)
        if ip.status != "assigned":
            self.model.put_down(address, ip.until, ip.last)

    @rule(place=st.sampled_from(sorted(PLACE)))
    def drain(self, place: tuple[str, str]) -> None:
        command = ChangePlace(Place(Scope(place[0]), place[1]), enabled=False, reason="goes")
        state = self.services.places.change(command, uuid4().hex)
        assert state.pending == 0
        self.model.drained.add(place)
        for address, ip in self.model.addresses_of(place):
            if ip.status not in ("assigned", "disabled"):
                self.model.ips[address] = replace(ip, status="disabled", mark=place[0])

    @rule(place=st.sampled_from(sorted(PLACE)))
    def end_drain(self, place: tuple[str, str]) -> None:
        command = ChangePlace(Place(Scope(place[0]), place[1]), enabled=True)
        self.services.places.change(command, uuid4().hex)
        if place not in self.model.drained:
            return
        self.model.drained.remove(place)
        for address, ip in self.model.addresses_of(place):
            if ip.status == "disabled" and ip.mark == place[0]:
                self._unmark(address)

    @rule(zone=st.sampled_from("zy"), seconds=st.sampled_from([0, 50, 500]))
    def let_rest(self, zone: str, seconds: int) -> None:
        command = ChangePlace(Place(Scope.ZONE, zone), aging_seconds=seconds)
        self.services.places.change(command, uuid4().hex)
        self.model.rest[zone] = seconds

    @rule(address=st.sampled_from([*PLACES]))
    def end_rest(self, address: str) -> None:
        ip = self.model.ips[address]
        command = EndRest(address, "asked")
        changes = self.services.operator_changes
        possible = ip.status == "aging"
        self.do(lambda: changes.end_rest(command, uuid4().hex), possible=possible)
        if possible:
            self.model.ips[address] = Expected("available")

    @rule(seconds=st.sampled_from([1, 60, 600]))
    def pass_time(self, seconds: int) -> None:
        self._keep(seconds)

    def _keep(self, seconds: int = 0) -> None:
        """Let the background work end the rests that are over, after its lease is free."""
        self.world.clock[0] += seconds + 40
        self.world.process().background.keep_states()
        self.model.now = self.world.clock[0]
        for address, ip in self.model.ips.items():
            if ip.status == "aging" and ip.until <= self.model.now:
                self.model.ips[address] = Expected("available")

    @rule(address=st.sampled_from([*PLACES]))
    def kazoo_releases(self, address: str) -> None:
        self.archive()
        ip = self.model.ips[address]
        modified = self.world.pool.get(address)["pvt_modified"]
        at = max(modified + 1, int(self.world.clock[0]) + 62_167_219_200)
        self.world.write(address, status="available", assigned_to=None, modified=at)
        self.archive()
        if ip.status == "assigned":
            self.model.release(address, at - 62_167_219_200)
        else:
            self.model.put_down(address, ip.until, ip.last)
        self._keep()

    @rule(address=st.sampled_from([*PLACES]), account=st.sampled_from("ab"))
    def kazoo_assigns(self, address: str, account: str) -> None:
        self.archive()
        document = self.world.pool.get(address)
        if document["pvt_status"] != "available":
            return
        owner, modified = self.accounts[account], document["pvt_modified"] + 1
        self.world.write(address, status="assigned", assigned_to=owner, modified=modified)
        self.archive()
        self.model.ips[address] = Expected("assigned", account)

    @invariant()
    def documents_are_as_in_the_model(self) -> None:
        for address, ip in self.model.ips.items():
            document = self.world.pool.get(address)
            assert document["pvt_status"] == ip.status, (address, document, ip)
            owner = document.get("pvt_assigned_to")
            assert owner == (self.accounts[ip.owner] if ip.owner else None)
            assert (document.get("pvt_disabled") or {}).get("scope") == ip.mark
            if ip.status == "aging":
                assert document["pvt_last_assigned_to"] == self.accounts[ip.last or ""]

    def teardown(self) -> None:
        """Each address's history leads without a gap to its present state."""
        self.archive()
        for address, ip in self.model.ips.items():
            events = self.world.events(address)
            assert Source.GAP not in {event.source for event in events}
            for before, after in pairwise(events):
                if before.after and after.before:
                    assert before.after[:2] == after.before[:2], (address, before, after)
            assert events[-1].after
            assert events[-1].after.status == ip.status


def test_documents_and_history_agree_with_a_model_of_the_states(world: World) -> None:
    run_state_machine_as_test(
        lambda: StateMachine(world),
        settings=runs(8, stateful_step_count=25),
    )
