"""Every fault at every write of every request: the reply, and the documents after it.

The expected values are the table in `table.py`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp, TestResponse

from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.assigning.recovery import LEASE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import Clock
from tests.faults.proxy import Fault, FaultProxy, Request
from tests.faults.table import FAULTS, TABLE, Line

HOST = "proxy1.example.com"
ZONE = "faults"


@dataclass(frozen=True)
class Operation:
    """One kind of request.

    :param before: the number of addresses in the pool before it
    :param assigned: whether these are assigned to the account
    :param count: the number of addresses of the request
    :param wanted: their state afterwards: `assigned`, `available` or `absent`
    """

    before: int
    assigned: bool
    count: int
    wanted: str
    send: Callable[["Scene"], TestResponse]
    key: bool = False

    @property
    def writes(self) -> tuple[str, ...]:
        """The writes of the request, in their order."""
        if self.key:
            return ("key taken", "reply kept")
        if not self.assigned and (self.wanted == "absent" or self.before == 0):
            return ("pool",)
        if self.count == 1:
            return ("pool", "copy")
        if self.wanted == "available":
            return ("record", "mark", "commit", "pool", "copy")
        return ("record", "pool", "copy", "commit")

    def find(self, write: str) -> tuple[Callable[["Request"], bool], int]:
        """Return the test for requests that are this write, and its number among equal ones."""
        if write == "pool" and "mark" in self.writes:
            return _is_pool, 2
        return WRITES[write]


@dataclass
class Scene:
    """The environment of one case."""

    api: TestApp
    account: Member
    operator: Member
    addresses: list[str]
    request_id: str
    key: str | None

    @property
    def path(self) -> str:
        return f"/v2/accounts/{self.account.id}/ips"

    def headers(self, who: Member) -> dict[str, str]:
        named = {**who.headers, "X-Request-ID": self.request_id}
        return {**named, "Idempotency-Key": self.key} if self.key else named

    def as_account(self, method: str, path: str, data: object = None) -> TestResponse:
        return self._send(method, self.path + path, data, self.account)

    def as_operator(self, method: str, path: str, data: object = None) -> TestResponse:
        return self._send(method, "/v2/ips" + path, data, self.operator)

    def _send(self, method: str, path: str, data: object, who: Member) -> TestResponse:
        body = {"params": {"data": data}} if data is not None else {}
        send = {"POST": self.api.post_json, "PUT": self.api.put_json, "DELETE": None}[method]
        if send is None:
            send = self.api.delete_json if body else self.api.delete
        return send(path, **body, headers=self.headers(who), status="*")


def _create(scene: Scene) -> TestResponse:
    data = {"ip": scene.addresses[0], "zone": ZONE, "host": HOST}
    return scene.as_operator("PUT", "", data)


def _create_many(scene: Scene) -> TestResponse:
    ips = [{"ip": address, "zone": ZONE, "host": HOST} for address in scene.addresses]
    return scene.as_operator("PUT", "", {"ips": ips})


def _delete(scene: Scene) -> TestResponse:
    return scene.as_operator("DELETE", f"/{scene.addresses[0]}")


def _delete_by_force(scene: Scene) -> TestResponse:
    return scene.as_operator("DELETE", f"/{scene.addresses[0]}?force=true")


def _assign_one(scene: Scene) -> TestResponse:
    return scene.as_account("POST", f"/{scene.addresses[0]}", {})


def _assign_many(scene: Scene) -> TestResponse:
    return scene.as_account("POST", "", {"ips": scene.addresses})


def _allocate(quantity: int) -> Callable[[Scene], TestResponse]:
    return lambda scene: scene.as_account("POST", "", {"quantity": quantity, "zone": ZONE})


def _release_one(scene: Scene) -> TestResponse:
    return scene.as_account("DELETE", f"/{scene.addresses[0]}")


def _release_many(scene: Scene) -> TestResponse:
    return scene.as_account("DELETE", "", {"ips": scene.addresses})


def _release_all(scene: Scene) -> TestResponse:
    return scene.as_account("DELETE", "")


OPERATIONS = {
    "create": Operation(0, False, 1, "available", _create),
    "create many": Operation(0, False, 3, "available", _create_many),
    "delete": Operation(1, False, 1, "absent", _delete),
    "delete by force": Operation(1, True, 1, "absent", _delete_by_force),
    "assign one": Operation(1, False, 1, "assigned", _assign_one),
    "assign many": Operation(3, False, 3, "assigned", _assign_many),
    "allocate 1": Operation(3, False, 1, "assigned", _allocate(1)),
    "allocate 3": Operation(7, False, 3, "assigned", _allocate(3)),
    "release one": Operation(1, True, 1, "available", _release_one),
    "release many": Operation(3, True, 3, "available", _release_many),
    "release all": Operation(3, True, 3, "available", _release_all),
    "assign one, with a key": Operation(1, False, 1, "assigned", _assign_one, key=True),
}


def test_the_table_has_every_fault_at_every_write_of_every_request_once() -> None:
    cases = sorted(case for line in TABLE for case in line.cases)
    assert cases == sorted(
        (name, write, fault)
        for name, operation in OPERATIONS.items()
        for write in operation.writes
        for fault in FAULTS
    )


class World:
    """The databases of the service, used without the proxy."""

    def __init__(self, couch: Couch, account_id: str) -> None:
        self.pool = couch.database("dedicated_ips")
        self.copies = couch.database(account_database(account_id))
        self.records = couch.database("kazoo_ips")
        self.account_id = account_id
        self._cases = 0

    @contextmanager
    def addresses(self, operation: Operation) -> Iterator[list[str]]:
        """Create the addresses of a case, in the state that it needs."""
        self._cases += 1
        count = max(operation.before, operation.count)
        made = [f"2001:db8:{self._cases:x}::{n:x}" for n in range(1, count + 1)]
        documents = [self._document(address, operation.assigned) for address in made]
        if operation.before:
            # On a cluster a view reads one replica of each shard: all replicas must have them.
            self.pool.put_all(documents, w=self.pool.replicas)
        if operation.assigned:
            self.copies.put_all(documents)
        try:
            yield made
        finally:
            for database in (self.pool, self.copies):
                found = database.get_all(made).values()
                database.put_all([{**document, "_deleted": True} for document in found])

    def _document(self, address: str, assigned: bool) -> dict[str, Any]:
        owner = {"pvt_assigned_to": self.account_id} if assigned else {}
        return {
            "_id": address,
            "pvt_vsn": "1",
            "pvt_type": "dedicated_ip",
            "pvt_status": "assigned" if assigned else "available",
            "pvt_zone": ZONE,
            "pvt_host": HOST,
            "pvt_created": 63_900_000_000,
            "pvt_modified": 63_900_000_000,
            **owner,
        }

    def state(self, operation: Operation, addresses: list[str]) -> str:
        """Return whether the request is done, not done, or done in part."""
        found = self.pool.get_all(addresses)
        assert not any("_conflicts" in document for document in found.values())
        ours = {
            address
            for address, document in found.items()
            if document.get("pvt_assigned_to") == self.account_id
            and document["pvt_status"] == "assigned"
        }
        free = {a for a, d in found.items() if d["pvt_status"] == "available"}
        assert ours | free == set(found), found
        copies = self.copies.get_all(addresses)
        for address in ours & set(copies):
            assert _content(copies[address]) == _content(found[address])
        wanted = {"assigned": len(ours), "available": len(free), "absent": None}
        missing = len(addresses) - len(found)
        if operation.before == 0:
            pool = {0: "done", operation.count: "not done"}.get(missing, "done in part")
        elif operation.wanted == "absent":
            pool = "done" if missing else "not done"
        elif missing:
            pool = "withdrawn"
        else:
            kept = {"assigned": ours, "available": free}[operation.wanted]
            pool = {operation.count: "done", 0: "not done"}.get(len(kept), f"{wanted} in part")
        if ours - set(copies):
            pool += ", no copy"
        if set(copies) - ours:
            pool += ", copy left"
        return pool

    def transactions(self, request_id: str) -> int:
        """The unfinished records of the request."""
        records = self.records.range("transaction-", "transaction-\uffff")
        return sum(r["request_id"] == request_id and not r["finished"] for r in records)


def _content(document: dict[str, Any]) -> dict[str, Any]:
    of_the_pool = (
        "_rev", "_conflicts", "pvt_trail", "pvt_transaction", "pvt_written_generation",
    )  # fmt: skip
    return {name: value for name, value in document.items() if name not in of_the_pool}


def _is_pool(request: Request) -> bool:
    return request.path.split("/")[1].endswith("-dedicated_ips") and _is_write(request)


def _is_copy(request: Request) -> bool:
    return request.path.split("/")[1].endswith("-account") and _is_write(request)


def _is_write(request: Request) -> bool:
    return request.method in ("PUT", "DELETE") or request.path.endswith("/_bulk_docs")


def _record(kind: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and f"-kazoo_ips/{kind}-" in request.path


WRITES: dict[str, tuple[Callable[[Request], bool], int]] = {
    "pool": (_is_pool, 1),
    "copy": (_is_copy, 1),
    "mark": (_is_pool, 1),
    "record": (_record("transaction"), 1),
    "commit": (_record("transaction"), 2),
    "key taken": (_record("reply"), 1),
    "reply kept": (_record("reply"), 2),
}


def make_fault(name: str, proxy: FaultProxy, gate: threading.Event) -> Fault:
    return {
        "202": faults.answer_202,
        "lost": faults.lose_reply,
        "500 after": faults.error_afterwards,
        "late": faults.late(gate),
        "cut": faults.cut,
        "500": faults.error_without_type,
        "502": faults.bad_gateway,
        "409": faults.conflict_chunked,
        "away": proxy.stop_at_request,
    }[name]


@dataclass
class Played:
    """The result of one case."""

    reply: str
    then: str
    finally_: str


class Stage:
    """Runs cases: an application behind the proxy, and the database without it."""

    def __init__(self, api: TestApp, proxy: FaultProxy, world: World, clock: Clock) -> None:
        self.api = api
        self.proxy = proxy
        self.world = world
        self.clock = clock

    def run_background_work(self) -> None:
        """Do the background work of a worker, two minutes later."""
        background = self.api.app.extensions["kazoo_ips"].background
        self.clock.ahead = LEASE + 80
        background.work()
        background.recover()
        background.check_due(now=1e12)
        self.clock.ahead = 0

    def play(
        self,
        scene: Scene,
        operation: Operation,
        write: str,
        fault: str,
        gate: threading.Event | None = None,
    ) -> Played:
        """Send the request with a fault at one of its writes."""
        gate = gate or threading.Event()
        when, first = operation.find(write)
        rule = self.proxy.rule(make_fault(fault, self.proxy, gate), when=when, first=first)
        try:
            answer = operation.send(scene)
            assert len(rule.met) == 1, "no request had the fault"
            self.proxy.start_listening()
            then = self.world.state(operation, scene.addresses)
        finally:
            gate.set()  # delayed requests are sent now
        assert self.proxy.wait_until_idle()
        self.proxy.clear()
        self.run_background_work()
        if self.world.transactions(scene.request_id):
            # On a cluster the list of records may lag in one round, but not in the next one.
            time.sleep(0.5)
            self.run_background_work()
        finally_ = self.world.state(operation, scene.addresses)
        assert self.world.transactions(scene.request_id) == 0
        reply = f"{answer.status_int} {answer.json.get('message', '')}".strip()
        return Played(reply, then, finally_)


@pytest.fixture(scope="module")
def world(couch: Couch, alice: Member) -> World:
    return World(couch, alice.id)


@pytest.fixture
def stage(
    proxied_app: TestApp, proxy: FaultProxy, world: World, clock: Clock, operator: Member
) -> Iterator[Stage]:
    yield Stage(proxied_app, proxy, world, clock)
    clock.ahead = 0


SECOND = ("202", "lost", "late", "cut", "409", "away")


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", ["202", "late"])
@pytest.mark.parametrize("name", ["assign one", "assign many", "release one", "release many"])
def test_a_second_fault_during_recovery_loses_nothing(
    stage: Stage, alice: Member, operator: Member, name: str, first: str, second: str
) -> None:
    """The write after a 202 is the withdrawal. The write after a lost write is the fence."""
    operation = OPERATIONS[name]
    gate = threading.Event()
    with stage.world.addresses(operation) as addresses:
        stage.proxy.rule(
            make_fault(second, stage.proxy, gate), when=WRITES["pool"][0], first=2, times=1
        )
        scene = Scene(stage.api, alice, operator, addresses, uuid4().hex, None)
        write = "mark" if "mark" in operation.writes else "pool"
        played = stage.play(scene, operation, write, first, gate)
        assert played.finally_ in ("done", "not done")
        if operation.count > 1 or not played.reply.startswith("503"):
            assert played.reply.startswith("2") == (played.finally_ == "done")


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("name", ["assign one", "assign many", "allocate 3"])
def test_a_roll_back_that_meets_a_fault_is_repeated(
    stage: Stage, alice: Member, operator: Member, name: str, second: str
) -> None:
    operation = OPERATIONS[name]
    gate = threading.Event()
    with stage.world.addresses(operation) as addresses:
        stage.proxy.rule(
            make_fault(second, stage.proxy, gate), when=WRITES["pool"][0], first=2, times=1
        )
        scene = Scene(stage.api, alice, operator, addresses, uuid4().hex, None)
        played = stage.play(scene, operation, "copy", "cut", gate)
        assert played.reply.startswith("503")
        assert played.finally_ == "not done" or (
            operation.count == 1 and played.finally_ == "done"
        )


@pytest.mark.parametrize("line", TABLE, ids=str)
def test_a_fault_has_the_effect_in_the_table(
    stage: Stage, alice: Member, operator: Member, line: Line
) -> None:
    operation = OPERATIONS[line.request]
    for fault in line.faults:
        with stage.world.addresses(operation) as addresses:
            key = uuid4().hex if operation.key else None
            scene = Scene(stage.api, alice, operator, addresses, uuid4().hex, key)
            played = stage.play(scene, operation, line.write, fault)
            assert (fault, played) == (fault, Played(line.reply, line.then, line.finally_))
            if key:
                stage.clock.ahead = LEASE + 80
                scene.request_id = uuid4().hex
                again = operation.send(scene)
                stage.clock.ahead = 0
                assert again.status_int == 200
                assert stage.world.state(operation, addresses) == "done"
