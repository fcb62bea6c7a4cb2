"""The messages for events of the history, and which of Kazoo's listeners they reach."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.history import HistoryEventKind as Kind
from kazoo_ips.services.kazoo.document_changes import DocumentChanges, encode
from tests.bus.events import AT, A, B, assigned, event, state
from tests.bus.rabbitmq import Listener, RabbitMQ

CHANGES = DocumentChanges("1.2.3")
OF_A = f"account%2Faa%2Faa%2F{'aa' * 14}"
OF_B = f"account%2Fbb%2Fbb%2F{'bb' * 14}"
ID = "192%2E0%2E2%2E1"


def keys(made: HistoryEvent) -> list[str]:
    """The routing keys of the messages for an event."""
    return [message.routing_key for message in CHANGES.messages(made)]


def payloads(made: HistoryEvent) -> list[dict[str, Any]]:
    """The payloads of the messages for an event."""
    return [json.loads(message.body) for message in CHANGES.messages(made)]


POOL = f"dedicated_ips.dedicated_ip.{ID}"
COPY_A, COPY_B = f"{OF_A}.dedicated_ip.{ID}", f"{OF_B}.dedicated_ip.{ID}"
ROUTES_A = f"doc_edited.{OF_A}.dedicated_ip.resource"
ROUTES_B = f"doc_edited.{OF_B}.dedicated_ip.resource"


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (event(Kind.CREATED, None, state()), [f"doc_created.{POOL}"]),
        (assigned(), [f"doc_edited.{POOL}", f"doc_created.{COPY_A}", ROUTES_A]),
        (
            event(Kind.RELEASED, state(A), state(), account_id=A),
            [f"doc_edited.{POOL}", f"doc_deleted.{COPY_A}", ROUTES_A],
        ),
        (
            event(Kind.CHANGED, state(A), state(A, "us-west")),
            [f"doc_edited.{POOL}", f"doc_edited.{COPY_A}", ROUTES_A],
        ),
        (event(Kind.CHANGED, state(), state(None, "us-west")), [f"doc_edited.{POOL}"]),
        (
            event("transferred", state(A), state(B), account_id=B),
            [
                f"doc_edited.{POOL}",
                f"doc_deleted.{COPY_A}",
                f"doc_created.{COPY_B}",
                ROUTES_A,
                ROUTES_B,
            ],
        ),
        (event(Kind.DELETED, state(), None), [f"doc_deleted.{POOL}"]),
        (
            event(Kind.DELETED, state(A), None),
            [f"doc_deleted.{POOL}", f"doc_deleted.{COPY_A}", ROUTES_A],
        ),
        # The states are not known.
        (
            event(Kind.ASSIGNED, None, None, account_id=A),
            [f"doc_edited.{POOL}", f"doc_created.{COPY_A}", ROUTES_A],
        ),
        (
            event(Kind.RELEASED, None, None, account_id=A),
            [f"doc_edited.{POOL}", f"doc_deleted.{COPY_A}", ROUTES_A],
        ),
        (event(Kind.UNKNOWN, None, None), [f"doc_edited.{POOL}"]),
        (event(Kind.RETRACTED, None, None, account_id=A), [f"doc_edited.{POOL}", ROUTES_A]),
    ],
    ids=lambda value: value.event if isinstance(value, HistoryEvent) else "",
)
def test_the_messages_of_an_event(made: HistoryEvent, wanted: list[str]) -> None:
    assert keys(made) == wanted
    for key, payload in zip(wanted, payloads(made), strict=True):
        assert key == ".".join(
            [payload["Event-Name"], payload["Database"], payload["Type"], encode(payload["ID"])]
        )


def test_the_payload_has_what_kazoo_requires_and_no_node_s_name() -> None:
    made = assigned(at=AT + 7)
    pool, copy, routes = payloads(made)
    node = pool["Node"]
    assert node.startswith("kazoo_ips@")
    common = {
        "Event-Category": "configuration",
        "App-Name": "kazoo_ips",
        "App-Version": "1.2.3",
        "Node": node,
        "Type": "dedicated_ip",
        "Is-Soft-Deleted": False,
        "Date-Modified": AT + 7,
    }
    ids = [payload.pop("Msg-ID") for payload in (pool, copy, routes)]
    assert len(set(ids)) == 3
    assert [payload["Msg-ID"] for payload in payloads(made)] == ids
    assert pool == {
        **common,
        "ID": "192.0.2.1",
        "Database": "dedicated_ips",
        "Event-Name": "doc_edited",
        "Rev": "2-abc",
    }
    assert copy == {
        **common,
        "ID": "192.0.2.1",
        "Database": OF_A,
        "Account-ID": A,
        "Event-Name": "doc_created",
        "Date-Created": AT + 7,
    }
    assert routes == {
        **common,
        "ID": "resource",
        "Database": OF_A,
        "Account-ID": A,
        "Event-Name": "doc_edited",
    }


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("192.0.2.1", "192%2E0%2E2%2E1"),
        ("2001:db8::1", "2001%3Adb8%3A%3A1"),
        ("a-b_c~d E", "a-b_c~d+E"),
        ("#*+%/é", "%23%2A%2B%25%2F%C3%A9"),
    ],
)
def test_a_word_of_a_routing_key_is_encoded_as_kazoo_does(text: str, encoded: str) -> None:
    assert encode(text) == encoded


# Which messages Kazoo's nodes receive. The bindings and the rule of the caches are those of
# Kazoo's source (kapi_conf.erl, kz_cache_conf_change.erl, stepswitch and webhooks_object.erl).

BINDINGS = {
    "documents": ["*.*.dedicated_ip.*"],
    "one address": [f"*.dedicated_ips.dedicated_ip.{ID}"],
    "stepswitch": ["*.*.resource.*", "*.*.number.*", "*.*.dedicated_ip.*"],
    "resources": ["*.*.resource.*"],
    "webhooks": [f"doc_{action}.*.*.*" for action in ("created", "edited", "deleted")],
}


def drops(payload: dict[str, Any], origin: tuple[str, ...]) -> bool:
    """Whether a change event drops the entry of a cache that has this origin."""
    database, kind, document = payload["Database"], payload["Type"], payload["ID"]
    return origin in {
        (database,), (database, kind), (database, document), ("type", kind, document),
        ("type", kind),
    }  # fmt: skip


@pytest.fixture
def listener(rabbitmq: RabbitMQ) -> Iterator[Listener]:
    """Queues bound as Kazoo's listeners bind theirs."""
    with Listener(rabbitmq, BINDINGS) as made:
        yield made


@pytest.mark.slow
def test_kazoo_s_listeners_hear_of_an_assignment(rabbitmq: RabbitMQ, listener: Listener) -> None:
    rabbitmq.broker().publish(CHANGES.messages(assigned()))
    heard = {name: [json.loads(body) for body in listener.bodies(name)] for name in BINDINGS}
    found = {name: [(p["Database"], p["ID"]) for p in each] for name, each in heard.items()}
    pool, copy, routes = ("dedicated_ips", "192.0.2.1"), (OF_A, "192.0.2.1"), (OF_A, "resource")
    assert found["documents"] == [pool, copy, routes]
    assert found["one address"] == [pool]
    assert found["stepswitch"] == [pool, copy, routes]
    assert found["webhooks"] == [pool, copy, routes]
    assert found["resources"] == []
    # The node's copies of both documents are dropped, and the routes of that account only.
    for origin in (pool, copy):
        assert any(drops(payload, origin) for payload in heard["documents"])
    assert any(drops(payload, (OF_A, "resource")) for payload in heard["stepswitch"])
    for other in ((OF_B, "resource"), ("system_config", "resource"), ("type", "resource")):
        assert not any(drops(payload, other) for payload in heard["stepswitch"])
    # What a webhook of the account with the action `doc_created` sends.
    assert [p["ID"] for p in heard["webhooks"] if p.get("Account-ID") == A
            and p["Event-Name"] == "doc_created"] == ["192.0.2.1"]  # fmt: skip


@pytest.mark.slow
def test_without_the_last_message_the_routes_stay(rabbitmq: RabbitMQ, listener: Listener) -> None:
    rabbitmq.broker().publish(CHANGES.messages(assigned())[:-1])
    heard = [json.loads(body) for body in listener.bodies("stepswitch")]
    assert not any(drops(payload, (OF_A, "resource")) for payload in heard)
