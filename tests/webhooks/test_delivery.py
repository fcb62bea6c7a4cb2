"""Events are delivered once each, in order, however receivers, senders and CouchDB behave."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from kazoo_ips import app as composition
from kazoo_ips.background.lease import LEASE
from kazoo_ips.errors import DatastoreUnreachable, SinceGone
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind
from kazoo_ips.model.webhooks import PAUSES, DeliveryResult, Webhook
from kazoo_ips.repositories.checkpoints import Checkpoint
from kazoo_ips.services.history.times import iso_8601
from kazoo_ips.services.webhooks.delivery import DeliveryState, TakenOver
from kazoo_ips.services.webhooks.shared_feed import SEGMENT, SharedFeed
from tests.webhooks.conftest import STATE, Events, World, event
from tests.webhooks.receivers import Receiver, answer, say


def secret_of(webhook: Webhook) -> str:
    return str(webhook.secrets[0].value)


def test_each_event_is_delivered_once_in_order_and_signed(world: World) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri)
        ids = world.events.add(3)
        world.first.run_until(lambda: len(receiver.received) == 3)
        more = world.events.add(SEGMENT * 2 + 5)
        world.first.run_until(lambda: len(receiver.received) == len(ids + more))
        world.first.run_for(0.3)
    assert receiver.ids() == ids + more
    for received in receiver.received[:3]:
        content = Verifier(secret_of(webhook)).verify(received.body, received.headers)
        assert content["id"] == received.headers["webhook-id"]
        assert received.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Verifier(secret_of(webhook)).verify(received.body + " ", received.headers)
    assert world.first.metric(
        "webhook_deliveries_total", scope="operator", result="success"
    ) == len(ids + more)


def test_a_new_webhook_gets_only_what_happens_from_then_on(world: World) -> None:
    world.events.add(5)
    with Receiver() as receiver:
        world.hook(receiver.uri)
        ids = world.events.add(1)
        world.first.run_until(lambda: receiver.received)
        world.first.run_for(0.2)
    assert receiver.ids() == ids


def test_after_failures_the_pauses_grow_and_nothing_is_lost(world: World) -> None:
    with Receiver(answer(500, "no")) as receiver:
        webhook = world.hook(receiver.uri)
        ids = world.events.add(3)
        for number, pause in enumerate((*PAUSES, PAUSES[-1]), 1):
            before = int(world.clock())
            world.first.run_until(lambda n=number: len(receiver.received) == n)  # type: ignore[misc]
            world.first.run_until(lambda n=number: world.progress(webhook).failures == n)  # type: ignore[misc]
            due = world.progress(webhook).next_attempt - GREGORIAN_EPOCH
            assert before + pause <= due <= world.clock() + pause
            world.first.run_for(0.1)
            assert len(receiver.received) == number  # it waits for the pause
            world.ahead += pause + 1
        receiver.behave = answer(200)
        world.first.run_until(lambda: len(receiver.received) == len(PAUSES) + 1 + 3)
    assert receiver.ids() == [ids[0]] * (len(PAUSES) + 1) + ids
    assert (world.progress(webhook).failures, world.progress(webhook).next_attempt) == (0, 0)


def test_a_receiver_that_was_away_for_a_month_gets_everything_in_order(world: World) -> None:
    with Receiver(answer(503)) as receiver:
        webhook = world.hook(receiver.uri)
        ids = []
        for _ in range(30):
            ids += world.events.add(10)
            world.first.run_for(0.02)
            world.ahead += 86_400
        refused = len(receiver.received)
        assert refused > 3
        receiver.behave = answer(200)
        world.ahead += 86_400
        world.process().run_until(lambda: len(receiver.received) == refused + len(ids))
    assert receiver.ids()[refused:] == ids
    assert world.progress(webhook).last_success


@pytest.mark.parametrize(
    "behave",
    [answer(302, "", "Location: http://127.0.0.1/"), answer(404), answer(500), answer(199),
     say(b"nonsense"), say(b"HTTP/1.1 200 OK\r\nA", b"x", pause=3)],
)  # fmt: skip
def test_only_2xx_is_a_success(world: World, behave: Any) -> None:
    with Receiver(behave) as receiver:
        webhook = world.hook(receiver.uri)
        world.events.add(1)
        world.first.run_until(lambda: receiver.received)
        world.first.run_until(lambda: world.first.webhooks.progress(webhook.id))
        assert world.progress(webhook).attempts[0].result is DeliveryResult.FAILURE


def test_410_disables_the_webhook_and_enabling_it_delivers_what_was_missed(world: World) -> None:
    with Receiver(answer(410)) as receiver:
        webhook = world.hook(receiver.uri)
        ids = world.events.add(2)
        find = world.first.webhooks.find
        world.first.run_until(lambda: not getattr(find(None, webhook.id), "enabled", True))
        ids += world.events.add(1)
        world.ahead += 86_400 * 3
        world.first.run_for(0.3)
        assert len(receiver.received) == 1
        status = world.first.service.fetch(None, webhook.id)
        assert status.webhook.disable_reason == "the receiver has replied 410 Gone"
        receiver.behave = answer(200)
        (enabled,) = world.first.service.enable_all(None)
        assert (enabled.webhook.enabled, enabled.webhook.disable_reason) == (True, None)
        world.first.run_until(lambda: len(receiver.received) == 4)
    assert receiver.ids()[1:] == ids


def test_a_webhook_that_a_client_has_disabled_waits_and_is_not_enabled_in_bulk(
    world: World,
) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri, enabled=False)
        ids = world.events.add(2)
        world.first.run_for(0.3)
        assert world.first.service.enable_all(None) == []
        assert receiver.connections == 0
        world.first.service.change(None, webhook.id, lambda w: replace(w, enabled=True))
        world.first.run_until(lambda: len(receiver.received) == 2)
    assert receiver.ids() == ids


def test_a_changed_uri_is_tried_at_once(world: World) -> None:
    with Receiver(answer(500)) as wrong, Receiver() as right:
        webhook = world.hook(wrong.uri)
        ids = world.events.add(1)
        world.first.run_until(lambda: world.first.webhooks.progress(webhook.id))
        world.first.service.change(None, webhook.id, lambda w: replace(w, uri=right.uri))
        world.first.run_until(lambda: right.received)
    assert right.ids() == ids


def test_a_rotation_signs_with_both_secrets_for_a_day(world: World) -> None:
    with Receiver() as receiver:
        old = world.hook(receiver.uri)
        new = world.first.service.rotate(None, old.id)
        assert secret_of(new) != secret_of(old)
        world.events.add(1)
        world.first.run_until(lambda: receiver.received)
        world.ahead += 86_401
        world.events.add(1)
        world.first.run_until(lambda: len(receiver.received) == 2)
    during, after = receiver.received
    assert len(during.headers["webhook-signature"].split()) == 2
    for each in (old, new):
        Verifier(secret_of(each)).verify(during.body, during.headers)
    assert len(after.headers["webhook-signature"].split()) == 1
    twice = world.first.service.rotate(None, old.id)
    assert [s.value for s in twice.secrets] != [s.value for s in new.secrets]
    assert len(twice.signing_secrets(int(world.clock()) + GREGORIAN_EPOCH)) == 2


def test_rotations_in_a_row_keep_the_secret_that_the_receiver_has(world: World) -> None:
    webhook = world.hook("http://127.0.0.1:1/")
    secrets = [secret_of(webhook)]
    for _ in range(2):
        webhook = world.first.service.rotate(None, webhook.id)
        secrets.insert(0, secret_of(webhook))
    now = int(world.clock()) + GREGORIAN_EPOCH
    assert webhook.signing_secrets(now) == secrets
    webhook = world.first.service.rotate(None, webhook.id)
    assert webhook.signing_secrets(now) == [secret_of(webhook), *secrets[:2]]


def test_a_replay_delivers_the_events_since_a_time_again(world: World) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri)
        start = int(world.clock()) + GREGORIAN_EPOCH - 1000
        ids = [world.events.add(1, at=start + n)[0] for n in range(5)]
        world.first.run_until(lambda: len(receiver.received) == 5)
        world.first.service.replay(None, webhook.id, start + 3)
        world.first.run_until(lambda: len(receiver.received) == 7)
        ids += world.events.add(1)
        world.first.run_until(lambda: len(receiver.received) == 8)
        world.first.run_for(0.2)
        late = world.events.add(1, at=start)  # the archive got this event after the replay
        world.first.run_until(lambda: len(receiver.received) == 9)
    assert receiver.ids() == [*ids[:5], *ids[3:], *late]


def test_a_replay_since_a_time_in_the_future_leaves_out_only_what_was_before(world: World) -> None:
    with Receiver(answer(500)) as receiver:
        webhook = world.hook(receiver.uri)
        world.events.add(1, at=int(world.clock()) + GREGORIAN_EPOCH - 10)
        world.first.run_until(lambda: world.first.webhooks.progress(webhook.id))
        receiver.behave = answer(200)
        world.first.service.replay(None, webhook.id, 99_000_000_000)
        ids = world.events.add(1, at=int(world.clock()) + GREGORIAN_EPOCH + 5)
        world.first.run_until(lambda: len(receiver.received) == 2)
    assert receiver.ids()[1:] == ids


def test_a_replay_to_a_later_time_leaves_out_an_event_that_is_always_refused(world: World) -> None:
    with Receiver(answer(400)) as receiver:
        webhook = world.hook(receiver.uri)
        start = int(world.clock()) + GREGORIAN_EPOCH - 1000
        ids = [world.events.add(1, at=start + n)[0] for n in range(3)]
        world.first.run_until(lambda: world.first.webhooks.progress(webhook.id))
        receiver.behave = answer(200)
        world.first.service.replay(None, webhook.id, start + 1)
        world.first.run_until(lambda: len(receiver.received) == 3)
    assert receiver.ids() == ids


# What a receiver may see


def delivered(world: World, webhook: Webhook, events: Sequence[HistoryEvent]) -> list[Any]:
    """Deliver events to a webhook's receiver; return the events as it gets them."""
    world.events.all += events
    end = str(len(world.events.all))

    def is_done() -> bool:
        state = world.first.sender._states.get(webhook.id)
        return state is not None and state.idle and state.progress.since == end

    with Receiver() as receiver:
        world.first.service.change(
            webhook.account_id, webhook.id, lambda w: replace(w, uri=receiver.uri)
        )
        world.first.run_until(is_done)
        return [json.loads(each.body) for each in receiver.received]


def tree(world: World) -> tuple[str, str, str]:
    """A parent, its child, and a stranger."""
    composition.databases(world.settings).create()
    service = world.first.deliverer._accounts
    operator = service.create("Operator", "operator.example.com")
    parent = service.create("Parent", "parent.example.com", operator.id)
    child = service.create("Child", "child.example.com", parent.id)
    other = service.create("Other", "other.example.com", operator.id)
    return parent.id, child.id, other.id


def test_an_account_gets_its_own_events_and_no_name_of_another(world: World) -> None:
    parent, child, other = "p" * 32, "c" * 32, "o" * 32
    webhook = world.hook("http://127.0.0.1:1/", parent)
    own = event(parent, by=Author(other, "user", "command", "root"))
    taken = event(
        other, event="transferred", before=STATE._replace(status="assigned", account_id=parent),
    )  # fmt: skip
    nobodys = event(None, event="created", before=None, after=STATE)
    found = delivered(world, webhook, [own, event(other), taken, nobodys, event(child)])
    assert [each["id"] for each in found] == [own.id, taken.id]
    assert found[0]["account_id"] == found[0]["after"]["account_id"] == parent
    assert (found[0]["by"], found[1]["by"]) == ({}, {})
    assert found[1]["before"]["account_id"] == parent
    for hidden in ("account_id", "after", "request_id"):
        assert hidden not in found[1]
    assert other not in json.dumps(found)


def test_include_subaccounts_is_for_all_accounts_below_and_no_other(
    world: World, settings: Any
) -> None:
    parent, child, other = tree(world)
    webhook = world.hook("http://127.0.0.1:1/", parent, include_subaccounts=True)
    events = [event(parent), event(child), event(other), event("f" * 32)]
    found = delivered(world, webhook, events)
    assert [each["account_id"] for each in found] == [parent, child]
    below = world.hook("http://127.0.0.1:1/", child, include_subaccounts=True)
    assert [each["account_id"] for each in delivered(world, below, events)] == [child]


def test_the_operator_gets_everything_with_all_names(world: World) -> None:
    webhook = world.hook("http://127.0.0.1:1/")
    events = [event("a" * 32), event(None, event="created", before=None, after=STATE)]
    found = delivered(world, webhook, events)
    assert [each["id"] for each in found] == [each.id for each in events]
    assert found[0] == {
        "id": events[0].id,
        "ip": "192.0.2.1",
        "event": "assigned",
        "at": events[0].at,
        "at_iso_8601": iso_8601(events[0].at),
        "account_id": "a" * 32,
        "before": {"status": "available", "zone": "us-east", "host": "proxy1.example.com"},
        "after": {"status": "assigned", "account_id": "a" * 32, "zone": "us-east",
                  "host": "proxy1.example.com"},
        "by": {"account_id": "a" * 32, "user_id": "user"},
        "request_id": "request",
        "source": "service",
        "certain": True,
    }  # fmt: skip


FILTERS = [
    ({"hook": "ips_released"}, ["released", "retracted"]),
    ({"hook": "all", "events": ("created", "deleted")}, ["created", "deleted", "retracted"]),
    ({"hook": "ips_unknown"}, ["unknown", "retracted"]),
    ({"hook": "ips_pool_low"}, ["retracted", "pool.low"]),
    ({"hook": "all", "zones": ("eu",)}, ["unknown"]),
    ({"hook": "all", "zones": ("eu", "us-east")}, [kind.value for kind in HistoryEventKind]),
]


@pytest.mark.parametrize(("members", "kinds"), FILTERS)
def test_hook_events_and_zones_choose(
    world: World, members: dict[str, Any], kinds: list[str]
) -> None:
    webhook = world.hook("http://127.0.0.1:1/", **members)
    events = [
        event(event=kind, **({"before": None, "after": None} if kind == "unknown" else {}))
        for kind in HistoryEventKind
    ]
    assert [each["event"] for each in delivered(world, webhook, events)] == kinds


def test_custom_data_is_added_to_the_event_as_in_kazoo(world: World) -> None:
    webhook = world.hook("http://127.0.0.1:1/", custom_data={"site": "b", "source": "mine"})
    (found,) = delivered(world, webhook, [event()])
    assert (found["site"], found["source"]) == ("b", "mine")


@pytest.mark.parametrize("query", ["", "?key=a%20b"])
def test_a_get_has_the_event_in_the_query_which_is_signed(world: World, query: str) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri + query, http_verb="get")
        world.events.add(1, account="a" * 32)
        world.first.run_until(lambda: receiver.received)
    (received,) = receiver.received
    method, target, _ = received.line.split()
    path, _, sent = target.partition("?")
    assert (method, path, received.body) == ("GET", "/hook", "")
    assert sent.startswith(f"{query[1:]}&id=" if query else "id=")
    assert "after%5Bstatus%5D=assigned" in sent
    Verifier(secret_of(webhook)).verify(sent, received.headers, json_parse=False)


@pytest.mark.parametrize("verb", ["post", "put"])
def test_a_form_has_the_members_as_fields(world: World, verb: str) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri, format="form-data", http_verb=verb)
        world.events.add(1)
        world.first.run_until(lambda: receiver.received)
    (received,) = receiver.received
    assert received.line == f"{verb.upper()} /hook HTTP/1.1"
    assert received.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "&certain=true" in received.body
    assert "account_id" not in received.body.partition("&before")[0]
    Verifier(secret_of(webhook)).verify(received.body, received.headers, json_parse=False)


@pytest.mark.parametrize("identifier", ["a\r\nX-Evil: 1", "é", "x" * 500, "192.0.2.1-3-0a"])
def test_any_id_of_an_event_can_be_sent(world: World, identifier: str) -> None:
    with Receiver() as receiver:
        world.hook(receiver.uri)
        world.events.all.append(event(id=identifier))
        world.first.run_until(lambda: receiver.received)
    (received,) = receiver.received
    assert json.loads(received.body)["id"] == identifier
    assert "." not in received.headers["webhook-id"]
    assert "x-evil" not in received.headers


# Senders that die, and their successors


def test_a_sender_that_dies_between_delivery_and_checkpoint_repeats_one_delivery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = world.process()
    put = dying.webhooks.put_progress
    with Receiver() as receiver:
        world.hook(receiver.uri)
        ids = world.events.add(4)
        written: list[Any] = []

        def die(progress: Any) -> Any:
            written.append(progress)
            if len(written) == 2:
                raise DatastoreUnreachable("died here")
            return put(progress)

        monkeypatch.setattr(dying.webhooks, "put_progress", die)
        dying.run_until(lambda: len(written) == 2)
        monkeypatch.setattr(Checkpoint, "is_held_by_another", lambda *_: False)  # as if dead
        world.process().run_until(lambda: len(receiver.received) == 5)
    assert receiver.ids() == [ids[0], ids[1], ids[1], ids[2], ids[3]]


def test_two_senders_at_once_deliver_everything_and_new_events_in_order(world: World) -> None:
    """The order does not depend on the lease: here both senders have it all the time."""
    one, two = world.process(), world.process()
    one.sender._lease.hold = two.sender._lease.hold = lambda: True  # type: ignore[method-assign]
    with Receiver() as receiver:
        world.hook(receiver.uri)
        ids = world.events.add(40)
        end = time.monotonic() + 20
        while set(receiver.ids()) != set(ids):
            assert time.monotonic() < end
            one.sender.step()
            two.sender.step()
            time.sleep(0.01)
    assert list(dict.fromkeys(receiver.ids())) == ids


def test_a_sender_with_an_old_progress_repeats_one_delivery_and_stops(world: World) -> None:
    one, two = world.first, world.process()
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri)
        ids = world.events.add(3)
        old = DeliveryState(webhook=webhook, progress=one.deliverer.resume(webhook, None))
        after = one.deliverer.turn(old, limit=1, seconds=10)
        assert after.progress.delivered == (ids[0],)
        with pytest.raises(TakenOver):
            two.deliverer.turn(old, limit=20, seconds=10)
        one.deliverer.turn(after, limit=20, seconds=10)
    assert receiver.ids() == [ids[0], ids[0], ids[1], ids[2]]


def test_only_the_holder_of_the_lease_sends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "is_held_by_another", lambda self, now: now < self.until)
    one, two = world.first, world.process()
    with Receiver() as receiver:
        world.hook(receiver.uri)
        assert one.sender.step()
        ids = world.events.add(3)
        for _ in range(20):
            assert not two.sender.step()
            time.sleep(0.01)
        one.run_until(lambda: len(receiver.received) == 3)
        assert two.metric("webhook_deliveries_total", scope="operator", result="success") == 0
        world.ahead += LEASE + 6  # the first sender does not renew its lease
        ids += world.events.add(1)
        two.run_until(lambda: len(receiver.received) == 4)
        assert not one.sender.step()
    assert receiver.ids() == ids


def test_a_feed_that_fails_is_read_again(world: World) -> None:
    with Receiver() as receiver:
        world.hook(receiver.uri)
        world.first.sender.step()
        world.events.error = DatastoreUnreachable("down")
        ids = world.events.add(2)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            try:
                world.first.sender.step()
            except DatastoreUnreachable:
                time.sleep(0.02)
        world.events.error = None
        world.first.run_until(lambda: len(receiver.received) == 2)
    assert receiver.ids() == ids


def test_a_position_that_is_gone_goes_on_with_what_is_there(world: World) -> None:
    """A year was deleted. No remaining event is lost, and no old event is delivered again."""
    with Receiver() as receiver:
        world.hook(receiver.uri)
        day = 86_400
        first = world.events.add(1, at=64_000_000_000)
        second = world.events.add(1, at=64_000_000_000 + 2 * day)
        world.first.run_until(lambda: len(receiver.received) == 2)
        world.first.run_for(0.2)
        read = world.events.changed

        def changed(since: str, limit: int) -> Any:
            if since not in ("0", "now") and int(since) <= 2:
                raise SinceGone
            return read(since, limit)

        world.events.changed = changed  # type: ignore[method-assign]
        third = world.events.add(1, at=64_000_000_000 + 2 * day - 100)
        world.first.run_until(lambda: third[0] in receiver.ids())
    assert receiver.ids()[:2] == first + second
    assert first[0] not in receiver.ids()[2:]


def test_a_feed_that_was_created_again_is_read_from_its_beginning(world: World) -> None:
    with Receiver() as receiver:
        world.hook(receiver.uri)
        ids = world.events.add(3)
        world.first.run_until(lambda: len(receiver.received) == 3)
        world.events.name, world.events.all = "second", world.events.all[2:]
        ids += world.events.add(1)
        world.process().run_until(lambda: ids[-1] in receiver.ids())
    assert receiver.ids()[:3] == ids[:3]


# Many webhooks.


def test_fifty_webhooks_are_not_delayed_by_dead_and_hanging_receivers(world: World) -> None:
    """Four receivers accept connections and never reply. One is of the operator's webhook."""
    hanging = [Receiver(say(b"", pause=30)) for _ in range(4)]
    with Receiver() as good, hanging[0], hanging[1], hanging[2], hanging[3]:
        for number in range(50):
            world.hook(good.uri, f"{number:032}", name=str(number))
        for receiver in hanging:
            world.hook(receiver.uri, "dead" * 8)
        world.first.run_for(0.5)
        accounts = [f"{n:032}" for n in range(50)]
        for round_ in range(3):
            for account in (*accounts, "dead" * 8):
                world.events.add(1, account=account)
            started = time.monotonic()
            world.first.run_until(lambda r=round_: len(good.received) == 50 * (r + 1), 15)  # type: ignore[misc]
            assert time.monotonic() - started < 8
        assert sum(each.connections for each in hanging) >= 4


def test_idle_webhooks_share_their_reads_of_the_feed(world: World) -> None:
    with Receiver() as receiver:
        for number in range(30):
            world.hook(receiver.uri, f"{number:032}")
            world.events.add(1)  # so that their positions differ
        world.first.run_for(1.5)
        world.events.reads = 0
        world.first.run_for(0.5)
        assert world.events.reads < 25  # one read for each round, not one for each webhook
        ids = world.events.add(1, account=f"{7:032}")
        world.first.run_until(lambda: receiver.received)
    assert receiver.ids() == ids


def test_a_deleted_webhook_ends_and_its_progress_is_removed(world: World) -> None:
    with Receiver() as receiver:
        webhook = world.hook(receiver.uri)
        world.events.add(1)
        world.first.run_until(lambda: world.first.webhooks.progress(webhook.id))
        world.first.service.delete(None, webhook.id)
        world.first.run_until(lambda: not world.first.webhooks.progress(webhook.id))
        world.events.add(1)
        world.first.run_for(0.3)
        assert len(receiver.received) == 1


def test_the_gauges_show_the_lag_and_what_fails_by_scope(world: World) -> None:
    with Receiver(answer(500)) as bad, Receiver() as good:
        world.hook(bad.uri, "a" * 32)
        world.hook(good.uri)
        world.events.add(1, account="a" * 32)
        world.first.run_until(lambda: bad.received and good.received)
        world.ahead += 4
        world.first.run_for(0.2)
    metric = world.first.metric
    assert 4 <= metric("webhook_lag_seconds", scope="account") < 20
    assert metric("webhook_lag_seconds", scope="operator") == 0
    assert metric("webhooks_enabled", scope="account") == 1
    assert metric("webhooks_failing", scope="account") == 1
    assert metric("webhooks_failing", scope="operator") == 0
    assert metric("webhook_deliveries_total", scope="account", result="failure") >= 1
    assert metric("webhook_rounds_total") > 1


def test_a_shared_position_has_the_same_events_after_it() -> None:
    """Two positions without events between them become one, and no event is skipped."""
    events = Events()
    feed = SharedFeed(events)
    spellings = {"00": "0", "0": "0"}
    read = events.changed
    events.changed = lambda since, limit: _respelt(read(spellings.get(since, since), limit), since)  # type: ignore[method-assign]
    assert feed.read("0").end == "0"
    assert feed.read("00").end == "0"
    events.all.append(event())
    assert [e.id for e in feed.read("00").events] == [events.all[0].id]
    feed.look()
    assert not feed.is_end("0")
    assert feed.read("0").events == feed.read("00").events


def test_a_position_after_the_shared_one_is_not_moved_back() -> None:
    events = Events()
    feed = SharedFeed(events)
    assert feed.read("0").end == "0"
    events.add(1)
    assert feed.read("1").end == "1"


def _respelt(result: Any, since: str) -> Any:
    return (result[1] and result[0]) or since, result[1], result[2]


class SlowEvents(Events):
    """A feed that does not return events after one position until the test allows it."""

    def __init__(self, position: str) -> None:
        super().__init__()
        self.position = position
        self.asked, self.go = threading.Event(), threading.Event()

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        found = super().changed(since, limit)
        if since == self.position:
            self.asked.set()
            assert self.go.wait(10)
        return found


def test_a_read_that_takes_long_delays_no_other_thread() -> None:
    events = SlowEvents("1")
    ids = events.add(3)
    feed = SharedFeed(events)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(feed.read, "1")
        assert events.asked.wait(10)
        try:
            other = threads.submit(feed.read, "2").result(timeout=5)
        finally:
            events.go.set()
        assert [each.id for each in other.events] == ids[2:]
        assert [each.id for each in slow.result().events] == ids[1:]


def test_what_was_read_from_a_feed_that_is_gone_is_not_kept() -> None:
    events = SlowEvents("0")
    old = events.add()
    feed = SharedFeed(events)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(feed.read, "0")
        assert events.asked.wait(10)
        events.all.clear()
        feed.forget()
        events.go.set()
        assert [each.id for each in reading.result().events] == old
    new = events.add()
    assert [each.id for each in feed.read("0").events] == new


def test_a_slow_read_is_not_moved_past_an_event_that_others_have_read_meanwhile() -> None:
    events = SlowEvents("0")
    feed = SharedFeed(events)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(feed.read, "0")
        assert events.asked.wait(10)  # no event followed
        ids = events.add()
        assert feed.read("1").end == "1"
        events.go.set()
        end = reading.result().end
    assert [each.id for each in feed.read(end).events] == ids
