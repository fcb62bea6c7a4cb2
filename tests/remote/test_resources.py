"""A model that is converted to a resource and back is equal, with every field."""

from dataclasses import fields

import pytest

from kazoo_ips.model.history import Author, HistoryEvent, PoolLevel, Source, State
from kazoo_ips.remote import resources
from kazoo_ips.services.history import json_objects

OLD, NEW = (
    State("assigned", "a" * 32, "us-east", "proxy1"),
    State("disabled", None, "eu", "proxy2"),
)
EVENT = HistoryEvent(
    id="e1", address="192.0.2.1", event="disabled", at=63_963_000_000, account_id="a" * 32,
    before=OLD, after=NEW, by=Author("b" * 32, "user", "disable", "root"), request_id="r",
    source=Source.KAZOO, certain=False, revision="3-c", retracts="e0", reason="blocklisted",
)  # fmt: skip
OF_ZONE = HistoryEvent(
    id="z1", address="", event="pool.low", at=63_963_000_000, account_id=None, before=None,
    after=None, by=Author(), request_id=None, level=PoolLevel("us-east", 3, 100, 5.0),
)  # fmt: skip


@pytest.mark.parametrize("event", [EVENT, OF_ZONE], ids=["of an address", "of a zone"])
def test_an_event_keeps_every_field(event: HistoryEvent) -> None:
    assert resources.event(json_objects.of_event(event)) == event


def test_the_events_of_the_test_have_every_field() -> None:
    for field in fields(HistoryEvent):
        assert any(getattr(event, field.name) != field.default for event in (EVENT, OF_ZONE))
