"""The feed of events: what the operator and an account see, in each form."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.api.subscriptions import Authority
from kazoo_ips.app import Instance
from kazoo_ips.errors import (
    DatastoreMissing,
    DatastoreUnreachable,
    Forbidden,
    InvalidCredentials,
    KazooIPsError,
    TokenRestricted,
)
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.services.history.times import iso_8601
from tests.api.events import ADDRESS, event
from tests.conftest import Member

POOL = "/v2/ips/changes"


def own(member: Member) -> str:
    """The account's feed."""
    return f"/v2/accounts/{member.id}/ips/changes"


@pytest.fixture
def since(api: TestApp, operator: Member) -> str:
    """The position of the end of the feed at the start of the test."""
    reply = api.get(POOL, {"since": "now"}, operator.headers)
    assert reply.json["data"] == []
    return str(reply.json["since"])


@pytest.fixture
def story(services: Instance, since: str, alice: Member, bob: Member) -> list[HistoryEvent]:
    """The events of an address: Alice gets it, it is transferred to Bob, and Bob releases it."""
    story = [
        event(None, alice.id, alice.id),
        event(alice.id, bob.id, alice.id, event="transferred"),
        event(bob.id, None),
    ]
    services.archive.append(story)
    return story


def test_the_operator_gets_every_event_in_order(
    api: TestApp, operator: Member, since: str, story: list[HistoryEvent]
) -> None:
    reply = api.get(POOL, {"since": since}, operator.headers)
    assert [each["id"] for each in reply.json["data"]] == [each.id for each in story]
    assert reply.json["more"] is False
    assert reply.json["data"][1] == {
        "id": story[1].id,
        "ip": ADDRESS,
        "event": "transferred",
        "at": story[1].at,
        "at_iso_8601": iso_8601(story[1].at),
        "account_id": story[1].account_id,
        "before": dict(story[1].before._asdict()),  # type: ignore[union-attr]
        "after": dict(story[1].after._asdict()),  # type: ignore[union-attr]
        "by": {"account_id": story[1].by.account_id, "user_id": story[1].by.user_id},
        "request_id": story[1].request_id,
        "source": "service",
        "certain": True,
    }
    again = api.get(POOL, {"since": reply.json["since"]}, operator.headers)
    assert again.json["data"] == []


def test_a_page_ends_at_its_limit_and_names_the_next(
    api: TestApp, operator: Member, since: str, story: list[HistoryEvent]
) -> None:
    ids: list[str] = []
    for _ in story:
        reply = api.get(POOL, {"since": since, "limit": "1"}, operator.headers)
        assert reply.headers["Link"] == f'<{POOL}?since={reply.json["since"]}>; rel="next"'
        ids += [each["id"] for each in reply.json["data"]]
        since = reply.json["since"]
    assert ids == [each.id for each in story]


def test_an_account_sees_its_own_events_and_nothing_of_others(
    api: TestApp, since: str, story: list[HistoryEvent], alice: Member, bob: Member
) -> None:
    seen = api.get(own(alice), {"since": since}, alice.headers)
    assert [each["id"] for each in seen.json["data"]] == [each.id for each in story[:2]]
    assert "after" not in seen.json["data"][1]
    assert seen.json["data"][1]["by"]["account_id"] == alice.id
    assert bob.id not in seen.text
    seen = api.get(own(bob), {"since": since}, bob.headers)
    assert [each["id"] for each in seen.json["data"]] == [each.id for each in story[1:]]
    assert [each["by"] for each in seen.json["data"]] == [{}, {}]
    for hidden in (alice.id, *(each.request_id for each in story), "kazoo-ips release"):
        assert str(hidden) not in seen.text.replace(bob.token, "")


def test_an_account_without_events_gets_none_and_goes_on(
    api: TestApp, since: str, story: list[HistoryEvent], child: Member, operator: Member
) -> None:
    reply = api.get(own(child), {"since": since}, child.headers)
    assert reply.json["data"] == []
    end = api.get(POOL, {"since": "now"}, operator.headers)
    assert reply.json["since"] == end.json["since"]


def test_the_pages_of_an_account_leave_nothing_out(
    api: TestApp, services: Instance, since: str, alice: Member, bob: Member
) -> None:
    story = [
        event(None, alice.id if n % 3 else bob.id, address=f"198.19.255.{n}") for n in range(60)
    ]
    services.archive.append(story)
    ids, more = [], True
    while more:
        reply = api.get(own(alice), {"since": since, "limit": "7"}, alice.headers)
        ids += [each["ip"] for each in reply.json["data"]]
        assert len(reply.json["data"]) <= 7
        since, more = reply.json["since"], reply.json["more"]
    assert ids == [each.address for each in story if each.account_id == alice.id]


def test_a_retraction_is_an_event_of_its_own(
    api: TestApp, services: Instance, since: str, alice: Member, operator: Member
) -> None:
    first = event(None, alice.id)
    services.archive.append([first, event(None, alice.id, event="retracted", retracts=first.id)])
    for path, headers in ((POOL, operator.headers), (own(alice), alice.headers)):
        reply = api.get(path, {"since": since}, headers)
        assert [each["event"] for each in reply.json["data"]] == ["assigned", "retracted"]
        assert reply.json["data"][1]["retracts"] == first.id


def test_cloud_events(
    api: TestApp, operator: Member, since: str, story: list[HistoryEvent]
) -> None:
    accept = {"Accept": "application/cloudevents-batch+json", **operator.headers}
    reply = api.get(POOL, {"since": since}, accept)
    assert reply.headers["Content-Type"] == "application/cloudevents-batch+json"
    first = json.loads(reply.body)[0]
    assert set(first) == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
    }  # fmt: skip
    assert first["specversion"] == "1.0"
    assert (first["id"], first["type"]) == (story[0].id, "kazoo_ips.ip.assigned")
    assert (first["source"], first["subject"]) == (f"/v2/ips/{ADDRESS}", ADDRESS)
    assert abs(time.time() - _unix(first["time"])) < 600
    assert first["data"]["ip"] == ADDRESS
    assert 'rel="next"' in reply.headers["Link"]


def _unix(text: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - only here

    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": ""}, "since"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"feed": "continuous"}, "feed"),
        ({"timeout": "51"}, "timeout"),
        ({"zone": "x"}, "zone"),
        ({"since": "yesterday", "feed": "eventsource"}, "since"),
        ({"since": "yesterday", "feed": "longpoll"}, "since"),
    ],
)
def test_an_invalid_query_is_refused(
    api: TestApp, operator: Member, query: dict[str, str], field: str
) -> None:
    reply = api.get(POOL, query, operator.headers, status=400)
    assert list(reply.json["data"]) == [field]


@pytest.mark.parametrize("feed", ["normal", "longpoll", "eventsource"])
def test_a_position_of_a_deleted_year_is_gone(api: TestApp, operator: Member, feed: str) -> None:
    reply = api.get(POOL, {"since": "2025.1", "feed": feed}, operator.headers, status=410)
    assert (reply.json["error"], reply.json["message"]) == ("410", "since_gone")


# Waiting, on a server that keeps no connections open.


def soon(act: Callable[[], object]) -> None:
    """Do something in another thread after a moment."""
    threading.Timer(0.7, act).start()


def test_a_long_poll_is_answered_by_the_next_event(
    api: TestApp, services: Instance, operator: Member, since: str, alice: Member
) -> None:
    soon(lambda: services.archive.append([event(None, alice.id)]))
    reply = api.get(POOL, {"since": since, "feed": "longpoll"}, operator.headers)
    assert len(reply.json["data"]) == 1
    assert reply.json["since"] != since


def test_a_long_poll_of_an_account_waits_for_its_own_event(
    api: TestApp, services: Instance, alice: Member, bob: Member
) -> None:
    other, mine = event(None, bob.id), event(None, alice.id)
    soon(lambda: services.archive.append([other]))
    threading.Timer(1.5, lambda: services.archive.append([mine])).start()
    query = {"since": "now", "feed": "longpoll"}
    reply = api.get(own(alice), query, alice.headers)
    assert [each["id"] for each in reply.json["data"]] == [mine.id]
    accept = {"Accept": "application/cloudevents-batch+json", **alice.headers}
    query |= {"since": "now", "timeout": "1"}
    assert json.loads(api.get(own(alice), query, accept).body) == []


def test_a_long_poll_ends_without_events(api: TestApp, operator: Member, since: str) -> None:
    query = {"since": since, "feed": "longpoll", "timeout": "1"}
    reply = api.get(POOL, query, operator.headers)
    assert (reply.json["data"], reply.json["since"]) == ([], since)


def test_a_head_request_does_not_wait(api: TestApp, operator: Member, since: str) -> None:
    for feed in ("longpoll", "eventsource"):
        started = time.monotonic()
        api.head(f"{POOL}?since={since}&feed={feed}", headers=operator.headers)
        assert time.monotonic() - started < 5


def test_a_stream_of_events(
    api: TestApp, operator: Member, since: str, story: list[HistoryEvent]
) -> None:
    query = {"since": since, "feed": "eventsource", "timeout": "1"}
    reply = api.get(POOL, query, operator.headers)
    assert reply.headers["Content-Type"] == "text/event-stream"
    blocks = [block.split("\n") for block in reply.text.split("\n\n") if "data: " in block]
    assert [block[1] for block in blocks] == [
        "event: assigned", "event: transferred", "event: released",
    ]  # fmt: skip
    after_first = blocks[0][0].removeprefix("id: ")
    query["since"] = "now"
    resumed = api.get(POOL, query, {"Last-Event-ID": after_first, **operator.headers})
    assert [line for line in resumed.text.split("\n") if line.startswith("event: ")] == [
        "event: transferred", "event: released",
    ]  # fmt: skip


def test_a_stream_can_be_asked_for_by_accept(api: TestApp, alice: Member) -> None:
    headers: dict[str, Any] = {"Accept": "text/event-stream", **alice.headers}
    reply = api.get(own(alice), {"since": "now", "timeout": "1"}, headers)
    assert reply.headers["Content-Type"] == "text/event-stream"


@pytest.mark.parametrize(
    ("error", "holds"),
    [
        (None, True),
        (DatastoreUnreachable("no answer"), True),
        (DatastoreMissing("no database"), True),
        (InvalidCredentials(), False),
        (TokenRestricted(), False),
        (Forbidden(), False),
    ],
)
def test_a_permission_holds_until_couchdb_says_otherwise(
    error: KazooIPsError | None, holds: bool
) -> None:
    def check() -> None:
        if error:
            raise error

    assert Authority(("token",), check).holds() is holds
