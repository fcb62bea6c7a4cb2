"""Every change of the pool has an audit line. Refused and undone writes have none."""

import io
import json
import logging
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips import cli
from kazoo_ips.api import examples
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import DatastoreUnreachable, IPsExist
from kazoo_ips.model import (
    GREGORIAN_EPOCH,
    AssignIP,
    AssignIPs,
    Attempt,
    ChangeIP,
    Changes,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    DisableIP,
    ReleaseIP,
    ReleaseIPs,
    Scope,
    TransferIPs,
)
from kazoo_ips.model.commands import EvacuateHost, ReserveIPs
from kazoo_ips.observability import audit, logs, request_context
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.pool.export_files import to_json
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.api.sample_webhooks import make_webhooks, remove_webhooks
from tests.api.test_dry_run import (
    ACCOUNT,
    ADDRESS,
    DONE_TO_ADDRESSES,
    DONE_TO_RESERVATIONS,
    DONE_TO_WEBHOOKS,
    FREE,
    IMPOSSIBLE,
    LIMITS,
    NEW,
    NEXT,
    OF_EXPORTS,
    PLACE,
    PLANNED,
    REFUSED,
    RESERVATION,
    RESERVED,
    TAKEN,
    Case,
    flat,
)
from tests.api.test_dry_run import writes as writes_of
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy
from tests.remote.test_same_commands import words
from tests.servers import Gunicorn
from tests.timing import eventually

Lines = Callable[[], list[dict[str, Any]]]
FAR = 4e9
"""A time in Unix seconds at which the owner of every transaction of these tests counts as dead."""


class _Lines(logging.Handler):
    """Keeps the fields of each line, as they are in the JSON log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = json.loads(logs.JSONFormatter().format(record))
        assert (line.pop("level"), "message" in line) == ("info", False)
        del line["time"]
        self.lines.append(line)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """A function that returns the audit lines since its last call, outside of any request."""
    handler, before = _Lines(), audit.log.level
    audit.log.addHandler(handler)
    audit.log.setLevel(logging.INFO)
    token = request_context.CURRENT.set(None)

    def take() -> list[dict[str, Any]]:
        taken, handler.lines = handler.lines, []
        return taken

    yield take
    request_context.CURRENT.reset(token)
    audit.log.removeHandler(handler)
    audit.log.setLevel(before)


@pytest.fixture
def log(couch: Couch) -> TransactionLog:
    """The transaction log, without the records that other tests have left."""
    log = TransactionLog(Records(couch))
    log.sweep(log.all())
    return log


@pytest.fixture
def send(
    api: TestApp,
    add: Callable[..., DedicatedIP],
    services: Instance,
    operator: Member,
    alice: Member,
    bob: Member,
    lines: Lines,
) -> Callable[..., Any]:
    """A function that sends a request of the operator for Alice's account, given its route.

    The pool has two available addresses, one of Alice, and one that is reserved for her. There is
    a planned job.
    """
    for address in (FREE, NEXT, TAKEN, RESERVED):
        add(address)
    services.ips.assign(AssignIP(alice.id, TAKEN), uuid4().hex)
    wanted = ReserveIPs(AssignIPs(alice.id, (RESERVED,)), 3600)
    services.reservations.reserve(wanted, uuid4().hex, attempt=Attempt("sample", 1))
    add("192.0.2.200", zone="elsewhere", host="proxy2.example.com")
    services.operator_changes.disable(DisableIP("192.0.2.200", "broken"), uuid4().hex)
    job = services.jobs.create(EvacuateHost("proxy2.example.com"), "began")
    names = {
        "<account_id>": alice.id, "<other_id>": bob.id, "<reservation_id>": RESERVATION,
        "<job_id>": job.id, "<zone>": PLACE["zone"], "<host>": PLACE["host"],
    }  # fmt: skip
    lines()

    def send(method: str, rule: str, case: Case, **query: str) -> Any:
        path, body = (
            rule.replace("<address:address>", case.address),
            json.dumps({"data": case.data}),
        )
        for name, value in names.items():
            path, body = path.replace(name, value), body.replace(name, value)
        return api.request(
            f"{path}?" + "&".join(f"{k}={v}" for k, v in {**case.query, **query}.items()),
            method=method,
            body=body.encode(),
            headers={**operator.headers, "X-Request-ID": "who-asks"},
            content_type="application/json",
            expect_errors=True,
        )

    return send


TRANSFER = {
    ("POST", "/v2/ips/transfer"): [
        Case({"ips": [TAKEN], "from": "<account_id>", "to": "<other_id>"}),
    ]
}
STOP = {("DELETE", "/v2/ips/jobs/<job_id>"): [Case({})]}
WRITES = DONE_TO_ADDRESSES | DONE_TO_RESERVATIONS | LIMITS | TRANSFER | PLANNED | STOP
"""All writes but those of webhooks."""
SETTINGS = {
    route: cases for route, cases in WRITES.items() if route[1].endswith(("zone>", "host>"))
}


def line(name: str, addresses: list[str], before: Any, after: Any, **more: str) -> dict[str, Any]:
    """Return the expected line about addresses, without the author of the change."""
    return {"audit": name, "addresses": addresses, "from": before, "to": after, **more}


def job_line(name: str, **more: str) -> dict[str, Any]:
    """Return the expected line about a job, without the author of the change."""
    return {"audit": name, "job_id": "<shown_id>", "to_host": None, "to_zone": None, **more}


OPEN, HERS = {"status": "available"}, {"status": "assigned", "assigned_to": "<account_id>"}
HELD, OUT = {"status": "reserved"}, {"status": "disabled"}
CREATED = line("created", [NEW], None, OPEN | PLACE)
DRAINED = {"enabled": False, "reason": "proxy goes"}
ZONE = {"enabled": True, "aging_seconds": 0, "when_empty": "wait", "low_percent": None}
NO_LIMITS: dict[str, Any] = {"max": None, "zones": {}, "descendants_max": None}

LINES: dict[tuple[str, str], list[list[dict[str, Any]]]] = {
    ("PUT", "/v2/ips"): [[CREATED], [CREATED]],
    ("POST", "/v2/ips/import"): [[CREATED]],
    ("PUT", ACCOUNT): [[CREATED], [CREATED]],
    ("POST", ACCOUNT): [
        [line("assigned", [FREE, NEXT], OPEN, HERS)],
        [line("assigned", [FREE, NEXT], OPEN, HERS)],
        [line("assigned", [RESERVED], HELD, HERS)],
    ],
    ("DELETE", ACCOUNT): [[line("released", [TAKEN], HERS, OPEN)]] * 2,
    ("POST", ADDRESS): [[line("assigned", [FREE], OPEN, HERS)]],
    ("DELETE", ADDRESS): [[line("released", [TAKEN], HERS, OPEN)]],
    ("PATCH", "/v2/ips/<address:address>"): [
        [
            line(
                "changed",
                [FREE],
                {**OPEN, **PLACE, "labels": ""},
                {**OPEN, **PLACE, "zone": "eu", "labels": "a:1"},
            )
        ],
        [
            line(
                "changed",
                [TAKEN],
                {**HERS, **PLACE, "description": ""},
                {**HERS, **PLACE, "description": "note"},
            )
        ],
        [line("disabled", [FREE], OPEN | PLACE, OUT | PLACE, reason="listed")],
        [line("disabled", [TAKEN], HERS | PLACE, HERS | PLACE, reason="listed")],
    ],
    ("DELETE", "/v2/ips/<address:address>"): [
        [line("deleted", [FREE], OPEN | PLACE, None)],
        [line("deleted", [TAKEN], HERS | PLACE, None)],
    ],
    ("PATCH", "/v2/ips/zones/<zone>"): [
        [
            {
                "audit": "place_changed",
                "zone": PLACE["zone"],
                "from": ZONE,
                "to": {**ZONE, "aging_seconds": 7, "when_empty": "oldest"},
            }
        ]
    ],
    ("PATCH", "/v2/ips/hosts/<host>"): [
        [
            {
                "audit": "place_changed",
                "host": PLACE["host"],
                "from": {"enabled": True},
                "to": DRAINED,
            },
            line("disabled", [FREE, NEXT], OPEN | PLACE, OUT | PLACE, reason="proxy goes"),
            line("disabled", [RESERVED], HELD | PLACE, OUT | PLACE, reason="proxy goes"),
        ]
    ],
    ("PUT", f"{ACCOUNT}/reservations"): [
        [line("reserved", [FREE, NEXT], OPEN, HELD | {"reserved_for": "<account_id>"})]
    ]
    * 2,
    ("PATCH", f"{ACCOUNT}/reservations/<reservation_id>"): [
        [
            line(
                "reserved",
                [RESERVED],
                {**HELD, **PLACE, "reserved_until": "<until>"},
                {**HELD, **PLACE, "reserved_until": "<shown_until>"},
            )
        ]
    ],
    ("DELETE", f"{ACCOUNT}/reservations/<reservation_id>"): [
        [line("released", [RESERVED], HELD | PLACE, OPEN | PLACE)]
    ],
    ("POST", f"{ACCOUNT}/limits"): [
        [
            {
                "audit": "limits_changed",
                "limited_account_id": "<account_id>",
                "from": NO_LIMITS,
                "to": {**NO_LIMITS, "max": 2, "zones": {"us-east": 1}},
            }
        ]
    ],
    ("POST", "/v2/ips/transfer"): [
        [line("transferred", [TAKEN], HERS, HERS | {"assigned_to": "<other_id>"})]
    ],
    ("POST", "/v2/ips/hosts/<host>/move"): [
        [job_line("job_started", kind="move", host=PLACE["host"], to_zone="eu")]
    ],
    ("POST", "/v2/ips/hosts/<host>/evacuate"): [
        [job_line("job_started", kind="evacuate", host=PLACE["host"])]
    ],
    ("DELETE", "/v2/ips/jobs/<job_id>"): [
        [
            job_line(
                "job_stopped",
                kind="evacuate",
                host="proxy2.example.com",
                original_request_id="began",
            )
        ]
    ],
}
"""The expected lines of each case of `WRITES`, without the author of the change."""


@pytest.mark.parametrize(("method", "rule", "case"), flat(WRITES))
def test_every_write_is_a_line(
    send: Callable[..., Any],
    lines: Lines,
    services: Instance,
    operator: Member,
    alice: Member,
    bob: Member,
    method: str,
    rule: str,
    case: Case,
) -> None:
    assert send(method, rule, case, dry_run="true").status_int < 300
    assert lines() == []
    until = services.ips.fetch(RESERVED).reserved_until
    reply = send(method, rule, case)
    assert reply.status_int < 300, reply.text
    written, shown = lines(), reply.json["data"]
    expected = json.dumps(LINES[method, rule][WRITES[method, rule].index(case)])
    names = {"<account_id>": alice.id, "<other_id>": bob.id, "<until>": str(until)}
    if isinstance(shown, dict):
        names |= {
            "<shown_id>": str(shown.get("id")),
            "<shown_until>": str(shown.get("expires_at")),
        }
    for name, value in names.items():
        expected = expected.replace(name, value)
    who = {
        "by": "account",
        "account_id": operator.id,
        "user_id": operator.user.id,
        "request_id": "who-asks",
    }
    for each in written:
        if "addresses" in each:
            each["addresses"].sort()
    assert written == [{**each, **who} for each in json.loads(expected)]


def test_a_write_that_changes_nothing_is_no_line(send: Callable[..., Any], lines: Lines) -> None:
    for (method, rule), cases in (STOP | SETTINGS).items():
        assert send(method, rule, cases[0]).status_int < 300
        assert lines() != []
        assert send(method, rule, cases[0]).status_int < 300
        assert lines() == []


WEBHOOK_LINES = {
    ("PUT", ""): "webhook_created",
    ("PATCH", ""): "webhook_changed",
    ("POST", "/<webhook:webhook_id>"): "webhook_changed",
    ("PATCH", "/<webhook:webhook_id>"): "webhook_changed",
    ("DELETE", "/<webhook:webhook_id>"): "webhook_deleted",
    ("POST", "/<webhook:webhook_id>/replay"): "webhook_replayed",
    ("POST", "/<webhook:webhook_id>/rotate"): "webhook_rotated",
}


@pytest.fixture
def webhooks(services: Instance, couch: Couch, alice: Member) -> Iterator[None]:
    """The sample webhooks."""
    make_webhooks(services, couch, alice.id)
    yield
    remove_webhooks(couch)


@pytest.mark.usefixtures("webhooks")
@pytest.mark.parametrize(("method", "rule", "case"), flat(DONE_TO_WEBHOOKS))
def test_every_change_of_a_webhook_is_a_line_without_secrets(
    send: Callable[..., Any],
    lines: Lines,
    operator: Member,
    alice: Member,
    method: str,
    rule: str,
    case: Case,
) -> None:
    lines()
    path = rule.replace("<webhook:webhook_id>", examples.WEBHOOK_ID)
    assert send(method, path, case, dry_run="true").status_int < 300
    assert lines() == []
    reply = send(method, path, case)
    assert reply.status_int < 300, reply.text
    [line] = lines()
    data = reply.json["data"]
    shown = data[0] if isinstance(data, list) else data
    assert line == {
        "audit": WEBHOOK_LINES[method, rule.partition("/webhooks")[2]],
        "webhook_id": shown["id"],
        "webhook_account_id": alice.id if "account_id" in rule else None,
        "uri": "https://receiver.example/ips",
        "hook": "all",
        "enabled": shown["enabled"],
        "by": "account",
        "account_id": operator.id,
        "user_id": operator.user.id,
        "request_id": "who-asks",
    }


def test_no_write_is_left_out(wsgi: Any) -> None:
    assert {*WRITES, *DONE_TO_WEBHOOKS, *OF_EXPORTS} == set(writes_of(wsgi)) - IMPOSSIBLE


_REFUSED = [each for each in flat(REFUSED) if "2001:DB8" not in each.id]
"""Refused writes, without the one that needs an address in another spelling."""


@pytest.mark.parametrize(("method", "rule", "case"), _REFUSED)
def test_what_is_refused_is_no_line(
    send: Callable[..., Any], lines: Lines, method: str, rule: str, case: Case
) -> None:
    assert send(method, rule, case).status_int >= 400
    assert lines() == []


def test_a_stored_reply_is_no_second_line(
    api: TestApp, add: Callable[..., DedicatedIP], alice: Member, lines: Lines
) -> None:
    add(FREE)
    lines()
    for _ in range(2):
        api.post_json(
            f"/v2/accounts/{alice.id}/ips",
            {"data": {"ips": [FREE]}},
            headers={**alice.headers, "Idempotency-Key": f"audit-{alice.id}"},
        )
    assert [(line["audit"], line["account_id"]) for line in lines()] == [("assigned", alice.id)]


# Faults.


@pytest.fixture
def worker(proxied_settings: Settings) -> Instance:
    """The services of a worker behind the proxy."""
    return composition.build(proxied_settings)


def kinds(audit_lines: list[dict[str, Any]]) -> list[tuple[str, list[str], bool]]:
    return [(line["audit"], line["addresses"], "recovered" in line) for line in audit_lines]


@pytest.mark.parametrize("count", [1, 2])
def test_a_lost_reply_of_a_write_that_is_done_is_one_line(
    proxy: FaultProxy,
    worker: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    lines: Lines,
    count: int,
) -> None:
    wanted = (FREE, NEXT)[:count]
    for address in wanted:
        add(address)
    lines()
    proxy.rule(faults.lose_reply, "PUT|POST", "-dedicated_ips/", times=1)
    worker.ips.assign_all(AssignIPs(alice.id, wanted), uuid4().hex)
    assert kinds(lines()) == [("assigned", list(wanted), False)]


def test_a_release_that_is_rolled_forward_later_is_one_line(
    proxy: FaultProxy,
    worker: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    lines: Lines,
) -> None:
    for address in (FREE, NEXT):
        add(address)
    worker.ips.assign_all(AssignIPs(alice.id, (FREE, NEXT)), uuid4().hex)
    lines()
    proxy.rule(faults.cut, "POST", "-dedicated_ips/_bulk_docs", first=2)
    worker.ips.release_all(ReleaseIPs(alice.id, (FREE, NEXT)), uuid4().hex)
    worker.background.work()
    audit_lines = [line for line in lines() if not line["audit"].startswith("copy_")]
    assert kinds(audit_lines) == [("released", [FREE, NEXT], False)]


def test_a_transfer_of_several_addresses_is_one_line(
    services: Instance, add: Callable[..., DedicatedIP], alice: Member, bob: Member, lines: Lines
) -> None:
    for address in (FREE, NEXT):
        add(address)
    services.ips.assign_all(AssignIPs(alice.id, (FREE, NEXT)), uuid4().hex)
    lines()
    services.transfers.transfer(TransferIPs((FREE, NEXT), alice.id, bob.id), "moves")
    [line] = lines()
    assert (line["audit"], line["addresses"]) == ("transferred", [FREE, NEXT])
    owners = [line[side]["assigned_to"] for side in ("from", "to")]
    assert (owners, line["request_id"]) == ([alice.id, bob.id], "moves")


def test_a_lost_reply_of_an_addition_or_a_deletion_is_one_line(
    proxy: FaultProxy, worker: Instance, pool: Database, lines: Lines
) -> None:
    proxy.rule(faults.lose_reply, "PUT|POST", "-dedicated_ips/", times=1)
    worker.pool.create(CreateIP(FREE, **PLACE), uuid4().hex)
    proxy.rule(faults.lose_reply, "PUT|POST", "-dedicated_ips/", times=1)
    worker.pool.delete(DeleteIP(FREE), uuid4().hex)
    assert kinds(lines()) == [("created", [FREE], False), ("deleted", [FREE], False)]


@pytest.mark.parametrize("count", [1, 2])
def test_an_assignment_that_is_undone_is_no_line(
    proxy: FaultProxy,
    worker: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    lines: Lines,
    count: int,
) -> None:
    for address in (FREE, NEXT):
        add(address)
    lines()
    proxy.rule(faults.cut, "PUT|POST", f"{alice.id[4:]}/")  # Alice's database refuses copies
    with pytest.raises(DatastoreUnreachable):
        worker.ips.assign_all(AssignIPs(alice.id, (FREE, NEXT)[:count]), uuid4().hex)
    assert lines() == []


def test_additions_that_are_undone_are_no_line(
    services: Instance, add: Callable[..., DedicatedIP], lines: Lines,
    proxy: FaultProxy, worker: Instance,
) -> None:  # fmt: skip
    """Another client adds one of the addresses after the service has looked for them in the
    pool."""

    def interfere(forward: faults.Forward) -> faults.Reply:
        add(FREE)
        return forward()

    proxy.rule(interfere, "POST", "-dedicated_ips/_bulk_docs", times=1)
    with pytest.raises(IPsExist):
        worker.bulk_additions.create_all([CreateIP(a, **PLACE) for a in (FREE, NEXT)], uuid4().hex)
    assert kinds(lines()) == [("created", [FREE], False)]


@pytest.mark.parametrize(
    ("action", "committed", "expected"),
    [
        (Action.ASSIGN, False, [("undone", [FREE, NEXT], False)]),
        (Action.ASSIGN, True, [("assigned", [FREE, NEXT], True)]),
        (Action.RELEASE, False, []),
        (Action.RELEASE, True, [("released", [FREE, NEXT], True)]),
    ],
)
def test_of_several_workers_one_writes_the_line_of_a_recovered_transaction(
    settings: Settings,
    log: TransactionLog,
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    lines: Lines,
    action: Action,
    committed: bool,
    expected: Any,
) -> None:
    for address in (FREE, NEXT):
        add(address)
    done = services.ips.assign_all(AssignIPs(alice.id, (FREE, NEXT)), "of-the-dead")
    services.background.work()  # deletes the record
    begun = log.begin(action, alice.id, "of-the-dead", done[0].modified, (FREE, NEXT))
    for document in pool.get_all((FREE, NEXT)).values():
        pool.put({**document, "pvt_transaction": begun.id})
    if committed:
        log.commit(begun, (FREE, NEXT))
    lines()
    others = [composition.build(settings, clock=lambda: FAR) for _ in range(4)]

    def recover(worker: Instance) -> None:
        request_context.begin("background-1", by="background")
        worker.background.recover()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(recover, worker) for worker in others]:
            future.result()
    assert eventually(lambda: not log.all())
    audit_lines = [line for line in lines() if not line["audit"].startswith("copy_")]
    assert kinds(audit_lines) == expected
    for line in audit_lines:
        assert (line["by"], line["original_request_id"]) == ("background", "of-the-dead")


def test_a_recovered_transaction_of_a_request_with_a_key_is_one_line(
    settings: Settings,
    log: TransactionLog,
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    lines: Lines,
) -> None:
    """Its record is kept, and is marked as finished."""
    add(FREE)
    done, key = services.ips.assign(AssignIP(alice.id, FREE), "of-the-dead"), uuid4().hex
    attempt, at = Attempt(key, 1), done.modified
    log.commit(log.begin(Action.ASSIGN, alice.id, "of-the-dead", at, (FREE,), attempt), (FREE,))
    lines()
    for _ in range(2):
        composition.build(settings, clock=lambda: done.modified).background.recover()
    assert kinds(lines()) == [("assigned", [FREE], True)]


def test_the_line_of_a_recovered_release_says_which_addresses_rest(
    settings: Settings,
    log: TransactionLog,
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    lines: Lines,
) -> None:
    add(FREE, zone="us-west")
    add(NEXT)
    services.places.set(ChangePlace(Place(Scope.ZONE, "us-west"), aging_seconds=10**6))
    done = services.ips.assign_all(AssignIPs(alice.id, (FREE, NEXT)), uuid4().hex)
    begun = log.begin(Action.RELEASE, alice.id, "of-the-dead", done[0].modified, (FREE, NEXT))
    for document in pool.get_all((FREE, NEXT)).values():
        pool.put({**document, "pvt_transaction": begun.id})
    log.commit(begun, (FREE, NEXT))
    lines()
    composition.build(settings, clock=lambda: FAR).background.recover()
    audit_lines = [line for line in lines() if not line["audit"].startswith("copy_")]
    after = {
        address: line["to"]["status"] for line in audit_lines for address in line["addresses"]
    }
    assert after == {FREE: "aging", NEXT: "available"}


@pytest.mark.parametrize("action", [Action.ASSIGN, Action.RESERVE, Action.TRANSFER])
def test_the_line_of_an_undone_write_says_what_was_undone(
    settings: Settings,
    log: TransactionLog,
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    bob: Member,
    lines: Lines,
    action: Action,
) -> None:
    add(FREE)
    undone, after = {"status": "assigned", "assigned_to": bob.id}, {"status": "available"}
    if action is Action.RESERVE:
        wanted = ReserveIPs(AssignIPs(bob.id, (FREE,)), 600)
        services.reservations.reserve(wanted, "of-the-dead")
        undone = {"status": "reserved", "reserved_for": bob.id}
    elif action is Action.TRANSFER:
        services.ips.assign(AssignIP(alice.id, FREE), uuid4().hex)
        services.transfers.transfer(TransferIPs((FREE,), alice.id, bob.id), "of-the-dead")
        after = {"status": "assigned", "assigned_to": alice.id}
    else:
        services.ips.assign(AssignIP(bob.id, FREE), "of-the-dead")
    services.background.work()  # deletes the record
    document = pool.get(FREE)
    at, from_id = document["pvt_modified"], alice.id if action is Action.TRANSFER else None
    begun = log.begin(action, bob.id, "of-the-dead", at, (FREE,), from_id=from_id)
    pool.put({**document, "pvt_transaction": begun.id})
    lines()
    composition.build(settings, clock=lambda: FAR).background.recover()
    [line] = [line for line in lines() if not line["audit"].startswith("copy_")]
    assert (line["audit"], line["from"], line["to"]) == ("undone", undone, after)


def test_a_later_attempt_says_that_a_line_may_repeat_an_earlier_one(
    services: Instance, add: Callable[..., DedicatedIP], alice: Member, lines: Lines
) -> None:
    attempts = [Attempt(uuid4().hex, number) for number in (1, 2)]
    own = uuid4().hex
    for attempt in attempts:
        services.pool.create(CreateIP(FREE, **PLACE), own, attempt=attempt)
    for attempt in attempts:
        services.ips.assign(AssignIP(alice.id, FREE), own, attempt=attempt)
    for attempt in attempts:
        services.ips.release(ReleaseIP(alice.id, FREE), own, attempt=attempt)
    for attempt in attempts:
        services.pool.delete(DeleteIP(FREE), own, attempt=attempt)
    names = ("created", "assigned", "released", "deleted")
    assert kinds(lines()) == [(name, [FREE], again) for name in names for again in (False, True)]


def test_a_later_attempt_at_a_change_says_that_its_line_may_repeat_an_earlier_one(
    services: Instance, add: Callable[..., DedicatedIP], lines: Lines
) -> None:
    add(FREE)
    lines()
    for number in (1, 2):
        attempt = Attempt("of-a-change", number)
        command = ChangeIP(FREE, Changes(zone="moved"))
        services.address_changes.change(command, "moves", attempt=attempt)
    assert kinds(lines()) == [("changed", [FREE], again) for again in (False, True)]


# The doctor, background repair, commands.


@pytest.fixture
def later(settings: Settings) -> Instance:
    """The services with a clock that is ahead, so that no document is recent."""
    return composition.build(settings, clock=lambda: FAR)


def _no_owner(pool: Database, copies: Database) -> None:
    document = pool.get(FREE)
    del document["pvt_assigned_to"]
    pool.put(document)
    copies.remove(FREE, copies.get(FREE)["_rev"])


def _available(pool: Database, copies: Database) -> None:
    document = pool.get(FREE)
    del document["pvt_assigned_to"]
    pool.put({**document, "pvt_status": "available"})


def _no_copy(pool: Database, copies: Database) -> None:
    copies.remove(FREE, copies.get(FREE)["_rev"])


def _stale_copy(pool: Database, copies: Database) -> None:
    copies.put({**copies.get(FREE), "pvt_modified": 1, "pvt_request_id": "old"})


def _conflict(pool: Database, copies: Database) -> None:
    document = pool.get(FREE)
    rival = {**document, "pvt_assigned_to": "b" * 32, "pvt_request_id": "rival", "pvt_modified": 1}
    generation = int(document["_rev"].split("-")[0])
    parent = f"{generation - 1}-{'0' * 32}"
    pool.graft({**rival, "_rev": f"{generation}-{'f' * 32}"}, parent=parent)


@pytest.mark.usefixtures("log")  # the doctor leaves addresses of pending transactions alone
@pytest.mark.parametrize(
    ("damage", "change"),
    [
        (_no_owner, "released"),
        (_available, "copy_removed"),
        (_no_copy, "copy_written"),
        (_stale_copy, "copy_written"),
        (_conflict, "conflict_resolved"),
    ],
)
def test_repairs_of_the_doctor_are_lines(
    later: Instance,
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    copies: Database,
    alice: Member,
    lines: Lines,
    damage: Callable[[Database, Database], None],
    change: str,
) -> None:
    add(FREE)
    services.ips.assign(AssignIP(alice.id, FREE), "her-request")
    damage(pool, copies)
    lines()
    list(later.doctor.examine())
    assert lines() == []
    with request_context.command("kazoo-ips doctor", "root"):
        list(later.doctor.examine(repair=True))
        [line] = lines()
    fields = (line["audit"], line["addresses"], line["command"], line["original_request_id"])
    assert fields == (change, [FREE], "kazoo-ips doctor", "her-request")
    list(later.doctor.examine(repair=True))
    assert lines() == []


def test_the_background_work_writes_lines_of_its_own(
    later: Instance,
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
    lines: Lines,
) -> None:
    add(FREE)
    services.ips.assign(AssignIP(alice.id, FREE), "her-request")
    copies.remove(FREE, copies.get(FREE)["_rev"])
    lines()
    request_context.begin("background-1", by="background")
    later.background._retries.schedule_check(FREE, alice.id)
    later.background.check_due(time.monotonic() + 60)
    assert lines() == [
        {
            "audit": "copy_written",
            "addresses": [FREE],
            "from": None,
            "to": {"status": "assigned", "assigned_to": alice.id},
            "by": "background",
            "request_id": "background-1",
            "original_request_id": "her-request",
        }
    ]


def test_a_restored_address_is_a_line(
    later: Instance, add: Callable[..., DedicatedIP], pool: Database, lines: Lines
) -> None:
    ip = add(FREE)
    ips = later.background._ips
    ips.withdraw(ip, ip)
    lines()
    assert later.ips.fetch(FREE).address == FREE
    [line] = lines()
    assert (line["audit"], line["from"]) == ("restored", None)
    assert line["to"] == {"status": "available", "zone": ip.zone, "host": ip.host}


@pytest.fixture
def command(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., list[dict[str, Any]]]:  # fmt: skip
    """A function that runs a command and returns the audit lines that it writes."""
    monkeypatch.setenv("COUCHDB_URL", settings.couchdb_url)
    monkeypatch.setenv("COUCHDB_ADMIN_URL", settings.couchdb_admin_url)
    monkeypatch.setenv("KAZOO_IPS_PREFIX", settings.prefix)
    monkeypatch.setenv("KAZOO_IPS_SYSLOG", str(tmp_path / "syslog"))

    def run(*arguments: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", list(arguments))
        capsys.readouterr()
        if arguments[0] == "sup":
            cli.sup()
        else:
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert not end.value.code
        output = capsys.readouterr().err.splitlines()
        return [
            json.loads(line) for line in output if line.startswith("{")
        ]  # stderr without the progress of the command

    return run


@pytest.mark.parametrize("sup", [False, True])
def test_commands_write_lines(
    command: Callable[..., list[dict[str, Any]]], pool: Database, alice: Member, sup: bool
) -> None:
    program = ("sup", "kazoo_ips_maintenance") if sup else ("/usr/bin/kazoo-ips",)
    audit_lines = [
        *command(*program, "add", FREE, *PLACE.values()),
        *command(*program, "assign", FREE, alice.id),
        *command(*program, "release", FREE),
        *command(*program, "release", FREE),  # it is available, so the command changes nothing
        *command(*program, "delete", FREE),
    ]
    names = {"add": "created", "assign": "assigned", "release": "released", "delete": "deleted"}
    assert [line["audit"] for line in audit_lines] == list(names.values())
    user = pwd.getpwuid(os.getuid()).pw_name
    for name, line in zip(names, audit_lines, strict=True):
        prefix = "sup kazoo_ips_maintenance" if sup else "kazoo-ips"
        assert line["command"] == f"{prefix} {name}"
        assert (line["by"], line["system_user"], line["addresses"]) == ("command", user, [FREE])
        assert line["request_id"].startswith("command-")
        assert "original_request_id" not in line
    assert audit.log.handlers == [] or not audit.log.propagate


OFF = NEXT
"""An address that is disabled before it is enabled."""
CHANGING: dict[tuple[str, ...], tuple[tuple[str, ...], list[str]]] = {
    ("add",): ((NEW, *PLACE.values()), ["created"]),
    ("assign",): ((FREE, "{alice}"), ["assigned"]),
    ("release",): ((TAKEN,), ["released"]),
    ("delete",): ((FREE,), ["deleted"]),
    ("transfer",): ((TAKEN, "--from", "{alice}", "--to", "{bob}"), ["transferred"]),
    ("drain",): (
        ("--host", PLACE["host"], "--reason", "x"),
        ["place_changed", "disabled", "disabled"],
    ),
    ("disable",): ((FREE, "--reason", "x"), ["disabled"]),
    ("enable",): ((OFF,), ["enabled"]),
    ("age",): (("--zone", PLACE["zone"], "--seconds", "60"), ["place_changed"]),
    ("limit",): (("{alice}", "--max", "5"), ["limits_changed"]),
    ("reserve", "create"): (("{alice}", FREE), ["reserved"]),
    ("reserve", "extend"): (("{alice}", RESERVATION, "--seconds", "7200"), ["reserved"]),
    ("reserve", "cancel"): (("{alice}", RESERVATION), ["released"]),
    ("reserve", "assign"): (("{alice}", RESERVATION), ["assigned"]),
    ("move",): ((PLACE["host"], "--to-zone", "eu", "--no-wait"), ["job_started"]),
    ("evacuate",): ((PLACE["host"], "--no-wait"), ["job_started"]),
    ("job-stop",): (("{job}",), ["job_stopped"]),
}
"""Every command that changes the pool: its arguments, and the expected lines."""
TESTED_APART = {("doctor",), ("refresh",), ("import",)}
CHANGING_NO_ADDRESS = {
    ("setup",), ("secure",), ("summary",), ("plot",), ("status",), ("export",), ("jobs",),
    ("history",), ("history-export",), ("history-expire",), ("reserve", "list"),
    ("account", "list"), ("account", "show"), ("account", "create"), ("account", "enable"),
    ("account", "disable"), ("user", "create"), ("user", "disable"), ("login",), ("logout",),
    ("profiles",), ("completion",),
}  # fmt: skip


def test_no_command_is_left_out() -> None:
    known = {*CHANGING, *TESTED_APART, *CHANGING_NO_ADDRESS}
    assert {path for path in words(cli.cli)} == known


@pytest.mark.usefixtures("send")
@pytest.mark.parametrize("name", CHANGING, ids=" ".join)
def test_every_command_that_changes_the_pool_writes_lines(
    command: Callable[..., list[dict[str, Any]]],
    services: Instance,
    lines: Lines,
    alice: Member,
    bob: Member,
    name: tuple[str, ...],
) -> None:
    arguments, names = CHANGING[name]
    if name == ("enable",):
        services.operator_changes.disable(DisableIP(OFF, "x"), uuid4().hex)
    [job] = services.jobs.list()
    given = {"{alice}": alice.id, "{bob}": bob.id, "{job}": job.id}
    lines()
    written = command("/usr/bin/kazoo-ips", *name, *(given.get(each, each) for each in arguments))
    assert sorted(line["audit"] for line in written) == sorted(names)
    user = pwd.getpwuid(os.getuid()).pw_name
    for line in written:
        assert (line["by"], line["system_user"]) == ("command", user)
        assert line["command"].startswith("kazoo-ips ")
        assert line["request_id"].startswith("command-")


@pytest.mark.usefixtures("send")
def test_an_import_of_an_export_writes_lines(
    command: Callable[..., list[dict[str, Any]]],
    services: Instance,
    alice: Member,
    tmp_path: Path,
) -> None:
    exported = tmp_path / "export.ndjson"
    lines_ = [to_json(line) for line in services.exports.lines(history=False)]
    # Addresses that no test has deleted, because an import does not restore deleted ones.
    exported.write_text("".join(f"{line}\n" for line in lines_).replace("192.0.2.", "100.64.77."))
    assert command("kazoo-ips", "import", "--dry-run", str(exported)) == []
    written = command("kazoo-ips", "import", str(exported))
    assert {line["audit"] for line in written} == {"imported"}
    hers = {"status": "assigned", "assigned_to": alice.id}
    assert [line["addresses"] for line in written if line["to"] == hers] == [["100.64.77.3"]]
    assert command("kazoo-ips", "import", str(exported)) == []


def test_an_import_writes_a_line_for_a_hundred_addresses_of_a_zone_and_a_host(
    command: Callable[..., list[dict[str, Any]]], pool: Database, tmp_path: Path
) -> None:
    rows = tmp_path / "pool.csv"
    rows.write_text(
        "ip,zone,host\n"
        + "".join(f"2001:db8:1111:2222:3333:4444:5555:{n:x},us-east,{HOST}\n" for n in range(250))
        + "".join(f"192.0.2.{n},us-west,{HOST}\n" for n in range(1, 51))
    )
    audit_lines = command("kazoo-ips", "add", "--from", str(rows))
    east = [line for line in audit_lines if line["to"]["zone"] == "us-east"]
    west = [line for line in audit_lines if line["to"]["zone"] == "us-west"]
    assert [len(line["addresses"]) for line in east] == [100, 100, 50]
    assert [line["part"] for line in east] == ["1/3", "2/3", "3/3"]
    assert [(len(line["addresses"]), "part" in line) for line in west] == [(50, False)]
    assert len({address for line in audit_lines for address in line["addresses"]}) == 300
    assert {line["command"] for line in audit_lines} == {"kazoo-ips add"}
    assert max(len(json.dumps(line)) for line in audit_lines) < 8192
    assert command("kazoo-ips", "add", "--from", str(rows)) == []


HOST = "proxy1.us-east.example.com"


def test_refresh_writes_a_line_for_copies(
    command: Callable[..., list[dict[str, Any]]],
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
) -> None:
    add(FREE)
    services.ips.assign(AssignIP(alice.id, FREE), uuid4().hex)
    _no_copy(copies, copies)
    [line] = command("kazoo-ips", "refresh")
    assert (line["audit"], line["addresses"]) == ("copy_written", [FREE])


def test_commands_write_audit_lines_to_the_system_log_if_there_is_one(
    command: Callable[..., list[dict[str, Any]]], pool: Database, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "syslog"))
        assert command("kazoo-ips", "add", FREE, *PLACE.values()) == []
        system.settimeout(10)
        prefix, _, line = system.recv(65536).decode().partition("kazoo-ips: ")
    assert (prefix, json.loads(line)["audit"]) == ("<14>", "created")


def test_a_system_s_log_that_takes_nothing_delays_no_command_and_loses_no_line(
    command: Callable[..., list[dict[str, Any]]],
    pool: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_MAX_WAIT", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "syslog"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"x" * 8192, str(tmp_path / "syslog"))
        [line] = command("kazoo-ips", "add", FREE, *PLACE.values())
    assert line["audit"] == "created"


# The form of the lines


def test_control_characters_in_names_break_no_line() -> None:
    host = "a\nb\r\u2028c\u0085\x1b[31m\u202ed"
    ip = DedicatedIP(FREE, "us-east", host, GREGORIAN_EPOCH, GREGORIAN_EPOCH, request_id="r")
    for form in ("json", "text"):
        text = written(form, lambda: audit.created([ip]))
        [line] = text.splitlines()
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["to"]["host"] == host


def written(form: str, call: Callable[[], object], level: str = "info") -> str:
    """What a call writes to the log."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers, root.level, audit.log.level
    token = request_context.CURRENT.set(None)
    logs.set_up(level, form, (), stream)
    try:
        call()
        return stream.getvalue()  # the lines that are written at once
    finally:
        root.handlers, audit.log.level = before[0], before[2]
        root.setLevel(before[1])
        logging.captureWarnings(False)
        request_context.CURRENT.reset(token)


def test_a_line_is_written_at_once_whatever_the_level_of_the_log() -> None:
    def change() -> None:
        request_context.begin("a-request").account_id = "a" * 32
        audit.assigned([FREE, NEXT], "b" * 32, "a-request")

    text = written("text", change, "error")
    who = f"by=account account_id={'a' * 32} request_id=a-request"
    to = f"from available to assigned {'b' * 32}"
    assert text[9:] == f"info    assigned {FREE}, {NEXT}: {to} {who}\n"


def test_a_killed_worker_has_written_its_lines(
    environment: dict[str, str], pool: Database, operator: Member, tmp_path: Path
) -> None:
    import urllib3  # noqa: PLC0415

    with Gunicorn(environment, tmp_path / "log", workers=1) as server:
        reply = urllib3.request(
            "PUT",
            f"{server.url}/v2/ips",
            headers=operator.headers,
            json={"data": {"ip": FREE, **PLACE}},
        )
        assert reply.status == 201
        text = (tmp_path / "log").read_text()
    [line] = [json.loads(each) for each in text.splitlines() if '"audit"' in each]
    assert (line["audit"], line["user_id"]) == ("created", operator.user.id)
