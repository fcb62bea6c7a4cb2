"""Crossbar is asked to reconcile each account whose addresses changed, until it has done so."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.background.consumer import Consumer
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.history import HistoryEventKind as Kind
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.outbound.crossbar import Crossbar
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.records import Records
from kazoo_ips.services.kazoo import reconciliation
from kazoo_ips.services.kazoo.reconciliation import GATHER, STUCK_AFTER, Reconciliation
from tests.bus import crossbar as answers
from tests.bus.crossbar import Answer, FakeCrossbar, answer
from tests.bus.events import AT, EventList, assigned, event, state
from tests.conftest import Member


class World:
    """Processes with the consumer for Crossbar, a feed and a clock."""

    def __init__(self, couch: Couch, services: Instance, server: FakeCrossbar) -> None:
        self.time = AT
        self.feed = EventList()
        self.metrics = Metrics()
        self._couch, self._services, self._server = couch, services, server
        self._name = f"test-{uuid4().hex}"
        self.reconciliation, self.consumer = self.process()

    def process(self) -> tuple[Reconciliation, Consumer]:
        """Another process."""
        made = Reconciliation(
            Crossbar(self._server.url, timeout=0.5),
            self._services.accounts,
            self._services.auth,
            now=lambda: self.time,
            token_lifetime=3600,
            counts=self.metrics,
        )
        consumer = Consumer(
            self._name,
            self.feed,
            Checkpoints(Records(self._couch)),
            made,
            now=lambda: self.time,
            metrics=self.metrics.consumer(self._name),
            pending=made,
        )
        return made, consumer

    def dies(self) -> None:
        """Let this process die, and start another one."""
        self.reconciliation, self.consumer = self.process()

    def run(self, seconds: int) -> None:
        """Let time pass."""
        for _ in range(seconds):
            self.consumer.step()
            self.time += 1

    def happens(self, *events: HistoryEvent) -> None:
        """Add events to the feed."""
        self.feed.events += events

    def counted(self, result: str) -> float:
        """The number of reconciliations with a result."""
        name = "kazoo_ips_reconciliations_total"
        return self.metrics._own.get_sample_value(name, {"result": result}) or 0

    @property
    def stuck(self) -> float:
        """The number of accounts that are stuck."""
        return self.metrics._own.get_sample_value("kazoo_ips_reconciliations_stuck") or 0


@pytest.fixture
def world(couch: Couch, services: Instance, server: FakeCrossbar, operator: Member) -> World:
    """A world in which the operator exists and the consumer has started."""
    assert operator
    made = World(couch, services, server)
    made.run(1)
    return made


def test_many_changes_of_an_account_are_one_request_with_the_operator_s_token(
    world: World, server: FakeCrossbar, services: Instance, operator: Member, alice: Member
) -> None:
    world.happens(*(assigned(alice.id, at=world.time) for _ in range(300)))
    world.run(2)
    world.happens(event(Kind.RELEASED, state(alice.id), state(), account_id=alice.id))
    world.run(10)
    assert server.accounts == [alice.id]
    [request] = server.requests
    assert request.path == f"/v2/accounts/{alice.id}/services/reconciliation"
    caller = services.auth.authenticate(request.headers["x-auth-token"])
    assert caller.account.id == operator.id
    assert caller.account.operator
    assert world.counted("done") == 1
    # A later change is another request.
    world.happens(assigned(alice.id, at=world.time))
    world.run(GATHER + 2)
    assert server.accounts == [alice.id] * 2
    assert server.requests[1].headers["x-auth-token"] == request.headers["x-auth-token"]


def test_both_accounts_of_a_transfer_are_asked_for_and_none_without_a_change_of_owner(
    world: World, server: FakeCrossbar, alice: Member, bob: Member
) -> None:
    world.happens(event("transferred", state(alice.id), state(bob.id), account_id=bob.id))
    world.happens(event(Kind.CHANGED, state(alice.id), state(alice.id, "us-west")))
    world.happens(event(Kind.CREATED, None, state()), event(Kind.UNKNOWN, None, None))
    world.run(10)
    assert sorted(server.accounts) == sorted([alice.id, bob.id])


@pytest.mark.parametrize(
    ("failure", "result"),
    [
        (answer(500, b"crash"), "failed"),
        (answer(400, b"{}"), "refused"),
        (answer(403, b"{}"), "refused"),
        (answer(404, b"{}"), "refused"),
        (answer(302, b"", "Location: /elsewhere"), "refused"),
        (answer(200, b"<html>"), "refused"),
        (answer(401, b"{}"), "unauthorized"),
        (answer(429, b"{}"), "failed"),
        (answer(503, b""), "failed"),
        (answers.cut, "away"),
        (answers.hang_up, "away"),
        (answers.garbage, "away"),
        (answers.silence, "away"),
    ],
)
def test_a_request_that_fails_is_repeated_until_it_is_done(
    world: World, server: FakeCrossbar, alice: Member, failure: Answer, result: str
) -> None:
    server.default = failure
    world.happens(assigned(alice.id, at=world.time))
    world.run(GATHER + 4)
    assert world.counted(result) == 1
    world.dies()  # the accounts that are not reconciled yet are in the checkpoint
    server.default = answer(200)
    world.run(90)
    assert server.accounts[-1] == alice.id
    assert world.counted("done") == 1
    requests = len(server.requests)
    world.run(60)
    assert len(server.requests) == requests


def test_every_account_is_reconciled_after_crossbar_was_unavailable_for_a_day(
    world: World, server: FakeCrossbar, alice: Member, bob: Member
) -> None:
    server.stop_listening()
    world.happens(assigned(alice.id, at=world.time))
    world.run(60)
    world.time += 86_400
    world.happens(assigned(bob.id, at=world.time))
    world.run(60)
    assert world.reconciliation.oldest == AT + 1
    server.start_listening()
    world.run(90)
    assert sorted(server.accounts) == sorted([alice.id, bob.id])
    assert world.reconciliation.oldest is None


def test_an_account_that_crossbar_always_refuses_delays_no_other_and_is_reported(
    world: World, server: FakeCrossbar, alice: Member, bob: Member,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    server.by_account[alice.id] = answer(500, b"crash")
    world.happens(assigned(alice.id, at=world.time), assigned(bob.id, at=world.time))
    world.run(GATHER + 2)
    assert bob.id in server.accounts
    assert world.stuck == 0
    for _ in range(STUCK_AFTER):
        world.time += 3600
        world.run(2)
    assert world.counted("failed") >= STUCK_AFTER
    assert world.stuck == 1
    assert world.reconciliation.oldest is None
    assert f"account {alice.id}: Crossbar keeps refusing" in caplog.text
    # It is in the checkpoint, which has moved on. A restart neither forgets it nor repeats others.
    server.requests.clear()
    world.dies()
    world.run(3)
    assert server.accounts == [alice.id]
    assert world.stuck == 1
    server.by_account.clear()
    world.time += 3600
    world.run(3)
    assert world.stuck == 0
    assert world.counted("done") == 2


def test_an_account_whose_requests_never_end_delays_no_other(
    world: World, server: FakeCrossbar, alice: Member, bob: Member
) -> None:
    first, second = sorted([alice.id, bob.id])
    server.by_account[first] = answers.silence
    world.happens(assigned(first, at=world.time), assigned(second, at=world.time))
    world.run(20)
    assert server.accounts.count(second) == 1


def test_a_deleted_account_is_not_asked_for(world: World, server: FakeCrossbar) -> None:
    world.happens(assigned("ee" * 16, at=world.time))
    world.run(10)
    assert server.requests == []
    assert world.counted("gone") == 1
    assert world.reconciliation.oldest is None


def test_a_token_that_is_refused_is_replaced_at_once(
    world: World, server: FakeCrossbar, services: Instance, operator: Member, alice: Member
) -> None:
    world.happens(assigned(alice.id, at=world.time))
    world.run(10)
    refused = server.requests[0].headers["x-auth-token"]

    def check(client: object, request: answers.Request) -> None:
        is_old = request.headers["x-auth-token"] == refused
        answer(401 if is_old else 200)(client, request)  # type: ignore[arg-type]

    server.default = check
    services.accounts._accounts.change_account(operator.id, pvt_signature_secret=uuid4().hex)
    world.happens(assigned(alice.id, at=world.time))
    world.run(10)
    assert len(server.requests) == 3
    assert world.counted("unauthorized") == 0
    assert world.counted("done") == 2


def test_without_a_usable_operator_nothing_is_sent_and_nothing_lost(
    world: World, server: FakeCrossbar, services: Instance, operator: Member, alice: Member,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    services.accounts.set_enabled(operator.id, False)
    try:
        world.happens(assigned(alice.id, at=world.time))
        world.run(20)
    finally:
        services.accounts.set_enabled(operator.id, True)
    assert server.requests == []
    assert "no token for Crossbar" in caplog.text
    world.run(60)
    assert server.accounts == [alice.id]


def test_the_number_of_accounts_that_wait_is_limited_and_none_is_lost(
    world: World, server: FakeCrossbar, monkeypatch: pytest.MonkeyPatch,
    member: Callable[..., Member], operator: Member,
) -> None:  # fmt: skip
    monkeypatch.setattr(reconciliation, "MAX_WAITING", 2)
    monkeypatch.setattr("kazoo_ips.background.consumer._BATCH", 1)
    world.dies()
    accounts = [member(f"Waiting {n}", operator).id for n in range(4)]
    server.stop_listening()
    world.happens(*(assigned(account_id, at=world.time) for account_id in accounts))
    world.run(40)
    assert len(world.reconciliation.dump()) == 2
    server.start_listening()
    world.run(120)
    assert sorted(set(server.accounts)) == sorted(accounts)


def test_a_full_list_raises(world: World, alice: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "MAX_WAITING", 1)
    world.reconciliation.take([assigned(alice.id)])
    with pytest.raises(ReceiverUnavailable, match="1 accounts wait"):
        world.reconciliation.take([])
