"""Questions about the history while CouchDB updates the index of its views."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import GREGORIAN_EPOCH, trail_events
from kazoo_ips.model.timelines import ListEvents
from tests.api.own_application import create_own_application
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy
from tests.history_timeline import ALICE, NEW_YEAR, Timeline, random_timeline

ADDRESSES = ["192.0.2.1", "2001:db8::1"]
START, NOW = NEW_YEAR - 864_000, NEW_YEAR + 8_640_000


@pytest.fixture
def two(proxy: FaultProxy, settings: Settings) -> Iterator[tuple[Instance, Instance, Timeline]]:
    """Services that use the database directly, services that use the proxy, and the timeline."""
    with create_own_application(settings) as made:
        own = made.settings.as_administrator()
        line = random_timeline(1, ADDRESSES, 60, START)

        def services(url: str) -> Instance:
            own_settings = replace(own, couchdb_url=url)
            return composition.build(own_settings, clock=lambda: NOW - GREGORIAN_EPOCH)

        direct = services(own.couchdb_url)
        direct.archive.append(line.events)
        yield direct, services(proxy.url), line


def test_one_address_needs_no_index(
    two: tuple[Instance, Instance, Timeline], proxy: FaultProxy
) -> None:
    direct, proxied, line = two
    late = proxy.rule(faults.cut, "GET", r"_design/history/_view/", times=None)
    for address in line.truth:
        for at in {event.at + d for event in line.events for d in (-1, 0)}:
            expected = direct.history.holder(address, at)
            assert proxied.history.holder(address, at) == expected, (address, at)
        for query in (
            ListEvents(address=address, limit=7),
            ListEvents(address=address, since=NEW_YEAR - 100_000, until=NEW_YEAR + 100_000),
            ListEvents(address=address, after=direct.history.of_address(
                ListEvents(address=address, limit=5)).after),
        ):  # fmt: skip
            assert proxied.history.of_address(query) == direct.history.of_address(query)
    # The service does not query the view each time. After a broken connection it tries twice.
    years = 2
    assert 0 < len(late.met) <= 2 * 2 * years


def test_an_event_that_was_taken_back_is_left_out_without_an_index(
    two: tuple[Instance, Instance, Timeline], proxy: FaultProxy
) -> None:
    direct, proxied, line = two
    event = next(e for e in reversed(line.events) if e.address == ADDRESSES[0])
    direct.archive.append([trail_events.retraction(event, NOW)])
    proxy.rule(faults.cut, "GET", r"_design/history/_view/", times=None)
    query = ListEvents(address=ADDRESSES[0], limit=None)
    found = proxied.history.of_address(query)
    assert event.id not in {each.id for each in found.items}
    assert found == direct.history.of_address(query)


def test_lines_of_a_year_without_a_database_are_404(
    proxied_app: TestApp, proxy: FaultProxy, operator: Member
) -> None:
    # The service's user is no administrator, so it may not create the database.
    proxy.rule(faults.forbid, "PUT", "kazoo_ips_history_2031$", times=None)
    line = {"type": "event", "year": 2031, "document": {"_id": "1", "event": "assigned"}}
    reply = proxied_app.post_json(
        "/v2/ips/restore", {"data": {"lines": [line]}}, headers=operator.headers, status=404
    )
    assert reply.json["message"] == "bad_identifier"
    assert reply.json["data"]["cause"] == "2031"


def test_the_events_of_an_account_need_the_index(
    two: tuple[Instance, Instance, Timeline], proxy: FaultProxy
) -> None:
    _, proxied, _ = two
    proxy.rule(faults.cut, "GET", r"_design/history/_view/by_account", times=None)
    with pytest.raises(DatastoreUnreachable):
        proxied.history.events(ListEvents(account_id=ALICE))
