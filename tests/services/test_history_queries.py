"""Questions about the history, compared with a timeline in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import GREGORIAN_EPOCH, AssignIP, CreateIP, DeleteIP, ReleaseIP
from kazoo_ips.model.history import Author, HistoryEvent
from kazoo_ips.model.timelines import GONE, ListEvents, Tenure, position
from kazoo_ips.repositories import history as repository
from kazoo_ips.repositories.history_documents import to_document
from tests.api.couchdb import Databases, kazoo_document
from tests.api.own_application import create_own_application
from tests.history_timeline import (
    ALICE,
    BOB,
    NEW_YEAR,
    RESELLER,
    Timeline,
    random_timeline,
    tenures,
)

ADDRESSES = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
DAY = 86_400
START = NEW_YEAR - 10 * DAY
NOW = NEW_YEAR + 100 * DAY


@dataclass
class Archived:
    """Services with a clock, on databases of their own."""

    services: Instance
    databases: Databases
    sent: list[str]
    now: int = NOW

    def keep(self, line: Timeline) -> None:
        """Archive the events of a timeline, and let the pool have its last states."""
        self.services.archive.append(line.events)
        documents = [
            kazoo_document(
                address, state.zone, state.host, state.account_id,
                pvt_created=START, pvt_modified=line.truth[address][-1][0],
                # As if this service had written the document, and the archive had the events of
                # its trail.
                pvt_written_generation=1,
            )
            for address, state in line.states.items()
            if state
        ]  # fmt: skip
        self.databases.put("dedicated_ips", *documents)

    def pages(self, query: ListEvents, size: int) -> list[list[HistoryEvent]]:
        """The pages of a list of events."""
        found, after = [], None
        read = self.services.history.of_address if query.address else self.services.history.events
        while True:
            page = read(replace(query, limit=size, after=after))
            found.append([*page.items])
            assert len(page.items) <= size
            assert len(found) < 500, "the pages do not end"
            after = page.after
            if after is None:
                return found

    def listed(self, query: ListEvents, size: int) -> list[HistoryEvent]:
        """The events of all pages."""
        return [event for page in self.pages(query, size) for event in page]

    def tenures(self, account_id: str, size: int) -> list[Tenure]:
        """The tenures of all pages."""
        found: list[Tenure] = []
        after = None
        while True:
            page = self.services.tenures.page(account_id, size, after)
            found += page.items
            assert len(page.items) <= size
            after = page.after
            if after is None:
                return found


@pytest.fixture
def archived(settings: Settings) -> Iterator[Archived]:
    """Services whose clock is some months after the timelines."""
    with create_own_application(settings) as made:
        sent: list[str] = []
        own = Archived(made.services, made.databases, sent)
        own.services = composition.build(
            made.settings.as_administrator(),
            clock=lambda: own.now - GREGORIAN_EPOCH,
            trace=lambda method, url: sent.append(f"{method} {url}"),
        )
        yield own


@pytest.fixture(params=["one read", "many reads"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of rows that are read at a time: the real one, or few, as if there were more
    events.
    """
    if request.param == "many reads":
        monkeypatch.setattr(repository, "_WINDOW", 2)
        monkeypatch.setattr(repository, "_CHUNK", 3)
        monkeypatch.setattr(repository, "_MOST_ROWS", 4)


def times_of(line: Timeline) -> list[int]:
    """The times at which answers can change, and their neighbours."""
    at = {event.at for event in line.events}
    return sorted({each + d for each in at for d in (-1, 0, 1)} | {NEW_YEAR - 1, NEW_YEAR, NOW})


# Holders


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("window")
def test_who_had_an_address_is_what_the_timeline_says(archived: Archived, seed: int) -> None:
    line = random_timeline(seed, ADDRESSES, 60, START)
    archived.keep(line)
    checked = 0
    for address in line.truth:
        for at in times_of(line):
            since, state, until = line.state_at(address, at)
            found = archived.services.history.holder(address, at)
            answer = (found.since, found.status, found.account_id, found.until, found.certain)
            expected = (
                (None, None, None, None, False)
                if since is None
                else (since, state.status, state.account_id, until, True)
                if state
                else (since, GONE, None, until, True)
            )
            if since is None:
                answer = (*answer[:3], None, answer[4])
            assert answer == expected, (address, at)
            checked += state is not None
    assert checked > 100


def test_the_answer_names_who_has_caused_it(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.now += 10
    made = line.assign("192.0.2.1", ALICE, Author(RESELLER, "user-1"))
    line.now += 10
    line.move("192.0.2.1", "eu-central")
    archived.keep(line)
    found = archived.services.history.holder("192.0.2.1", line.now + 5)
    assert (found.by, found.request_id, found.since) == (made.by, made.request_id, made.at)
    assert (found.until, found.certain) == (None, True)


def test_a_time_in_a_gap_is_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.now += 10
    line.assign("192.0.2.1", ALICE)
    line.now += 10
    gap = line.forget("192.0.2.1")
    line.states["192.0.2.1"] = line.states["192.0.2.1"]._replace(account_id=BOB)  # type: ignore[union-attr]
    line.now += 10
    line.release("192.0.2.1")
    archived.keep(line)
    holder = archived.services.history.holder
    before, during, after = (holder("192.0.2.1", gap.at + each) for each in (-1, 5, 10))
    # The missing write was made at some time before the service noticed the gap.
    assert (before.account_id, before.until, before.certain) == (ALICE, gap.at, False)
    assert (during.account_id, during.since, during.until) == (BOB, None, gap.at + 10)
    assert not during.certain
    assert (after.status, after.certain) == ("available", True)


def test_states_that_do_not_agree_are_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.now += 10
    line.assign("192.0.2.1", ALICE)
    # The history lacks a write of another program.
    line.states["192.0.2.1"] = line.states["192.0.2.1"]._replace(account_id=BOB)  # type: ignore[union-attr]
    line.now += 10
    line.release("192.0.2.1")
    archived.keep(line)
    found = archived.services.history.holder("192.0.2.1", START + 15)
    assert (found.account_id, found.certain) == (ALICE, False)


@pytest.mark.usefixtures("window")
def test_an_inferred_first_event_is_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.events[0] = replace(line.events[0], certain=False)
    archived.keep(line)
    assert not archived.services.history.holder("192.0.2.1", START + 5).certain


def test_a_document_of_kazoo_says_what_is_known(archived: Archived) -> None:
    document = kazoo_document(
        "192.0.2.1", owner=ALICE, pvt_created=START - 100, pvt_modified=START
    )
    archived.databases.put("dedicated_ips", document)
    holder = archived.services.history.holder
    found = holder("192.0.2.1", START)
    assert (found.status, found.account_id, found.since) == ("assigned", ALICE, START)
    assert not found.certain
    before = holder("192.0.2.1", START - 1)
    assert (before.status, before.until, before.certain) == ("available", START, False)
    events = archived.services.history.of_address(ListEvents(address="192.0.2.1")).items
    assert [(event.event, event.certain) for event in events] == [
        ("assigned", False), ("created", True),
    ]  # fmt: skip


@pytest.mark.parametrize("writes", [1, 2])
def test_a_write_of_kazoo_is_in_the_answer_before_it_is_archived(
    archived: Archived, writes: int
) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    archived.keep(line)
    for number in range(writes):
        archived.databases.change(
            "dedicated_ips", "192.0.2.1", pvt_status="assigned", pvt_assigned_to=BOB,
            pvt_modified=START + 100 + number - writes,
        )  # fmt: skip
    holder = archived.services.history.holder
    found, before = holder("192.0.2.1", START + 99), holder("192.0.2.1", START + 98)
    # Of several writes the document shows the last one only.
    assert (found.account_id, found.since, found.certain) == (BOB, START + 99, writes == 1)
    assert (before.status, before.until, before.certain) == (
        "available", START + 99, writes == 1,
    )  # fmt: skip


def test_a_document_without_a_sign_of_its_change_is_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    archived.services.archive.append(line.events)
    document = kazoo_document(
        "192.0.2.1", owner=ALICE, pvt_modified=START + 5, pvt_written_generation=1
    )
    archived.databases.put("dedicated_ips", document)
    found = archived.services.history.holder("192.0.2.1", START + 5)
    assert (found.account_id, found.since, found.certain) == (ALICE, START + 5, False)


def test_an_address_that_another_program_deleted_is_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.now += 10
    line.assign("192.0.2.1", ALICE)
    archived.services.archive.append(line.events)
    holder = archived.services.history.holder
    now, before = holder("192.0.2.1", NOW), holder("192.0.2.1", NOW - 1)
    assert (now.status, now.account_id, now.certain) == (GONE, None, False)
    assert (before.account_id, before.certain) == (ALICE, False)


@pytest.mark.parametrize("address", ["192.0.2.1", "nonsense", "192.0.2.0/28", ""])
def test_an_address_that_was_never_there_is_not_found(archived: Archived, address: str) -> None:
    with pytest.raises(IPNotFound):
        archived.services.history.holder(address, START)
    with pytest.raises(IPNotFound):
        archived.services.history.of_address(ListEvents(address=address))


def test_an_answer_about_the_last_year_takes_one_read_of_one_database(archived: Archived) -> None:
    line = random_timeline(1, ADDRESSES, 60, START)
    archived.keep(line)
    history, last = archived.services.history, line.listed()[0]
    history.holder(last.address, last.at)  # builds the indexes, and reads the retractions
    archived.sent.clear()
    found = history.holder(last.address, last.at)
    assert found.since == last.at
    views = [line for line in archived.sent if "/_view/" in line]
    assert len(views) == 1, archived.sent
    assert "kazoo_ips_history_2027" in views[0]
    assert len(archived.sent) <= 2, archived.sent


# Lists of events.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("window")
def test_lists_have_the_events_of_the_timeline(archived: Archived, seed: int) -> None:
    line, mix = random_timeline(seed, ADDRESSES, 50, START), Random(seed)
    for event in mix.sample(line.listed(), 2):
        if not any(e.at == event.at and e.address == event.address and e is not event
                   for e in line.events):  # fmt: skip
            line.retract(event)
    archived.keep(line)
    times = [*times_of(line), None]
    for _ in range(40):
        query = ListEvents(
            address=mix.choice([*ADDRESSES, None]),
            account_id=mix.choice([ALICE, BOB, None]),
            zone=mix.choice(["us-east", "eu-central", None]),
            since=mix.choice(times),
            until=mix.choice(times),
        )
        expected = [event for event in line.listed() if query.covers(event)]
        expected.sort(key=position, reverse=True)
        assert archived.listed(query, mix.choice([1, 2, 7, 50, 1000])) == expected, query


def test_many_events_of_the_same_second_are_on_pages(archived: Archived) -> None:
    line = Timeline(START)
    for number in range(1, 31):
        line.create(f"192.0.2.{number}")
    archived.services.archive.append(line.events)
    for query in (ListEvents(), ListEvents(zone="us-east")):
        found = archived.listed(query, 7)
        assert {event.address for event in found} == set(line.states)
        assert len(found) == 30


def test_the_position_of_an_event_is_its_key_in_the_views(archived: Archived) -> None:
    line = random_timeline(1, ADDRESSES, 10, START)
    archived.services.archive.append(line.events)
    for year in (2026, 2027):
        rows = archived.databases(
            "GET", f"kazoo_ips_history_{year}", "/_design/history/_view/by_address"
        )["rows"]
        keys = {row["value"][1] + row["value"][0]: row["key"][1:] for row in rows}
        for event in line.events:
            key = keys.get(event.address + event.id)
            assert key is None or (*key,) == position(event)
            assert position(event).id == to_document(event)["_id"]


# Events that the archive does not have yet


def test_an_acknowledged_change_is_in_every_answer_at_once(archived: Archived) -> None:
    services = archived.services
    services.pool.create(CreateIP("192.0.2.1", "us-east", "proxy1.example.com"), "r1")
    account = services.accounts.create("Alice", "alice.example.com").id

    def answer() -> tuple[object, ...]:
        archived.now += 1
        holder = services.history.holder("192.0.2.1", archived.now)
        first = services.history.of_address(ListEvents(address="192.0.2.1")).items[0]
        all_ = services.history.events(ListEvents()).items[0]
        own = services.history.events(ListEvents(account_id=account)).items
        tenures_ = services.tenures.page(account, 5, None).items
        assert first == all_
        return (
            holder.status, holder.account_id, holder.certain, first.event,
            own[0].event if own else None, [each.until for each in tenures_],
        )  # fmt: skip

    assert answer() == ("available", None, True, "created", None, [])
    services.ips.assign(AssignIP(account, "192.0.2.1"), "r2")
    assert answer() == ("assigned", account, True, "assigned", "assigned", [None])
    services.ips.release(ReleaseIP(account, "192.0.2.1"), "r3")
    released = archived.now
    assert answer() == ("available", None, True, "released", "released", [released])
    services.pool.delete(DeleteIP("192.0.2.1"), "r4")
    assert answer() == (GONE, None, True, "deleted", "released", [released])


def test_an_event_in_archive_and_trail_is_listed_once(archived: Archived) -> None:
    services = archived.services
    services.pool.create(CreateIP("192.0.2.1", "us-east", "proxy1.example.com"), "r1")
    account = services.accounts.create("Alice", "alice.example.com").id
    services.ips.assign(AssignIP(account, "192.0.2.1"), "r2")
    query = ListEvents(address="192.0.2.1")
    before = services.history.of_address(query).items
    assert len(before) == 2
    services.archive.append(before[::-1])
    assert services.history.of_address(query).items == before
    assert services.history.events(ListEvents()).items == before
    assert services.history.events(ListEvents(account_id=account)).items == before[:1]
    for size in (1, 2):
        assert archived.listed(query, size) == [*before]


# Tenures.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("size", [1, 3, 50])
def test_tenures_are_those_of_the_timeline(archived: Archived, seed: int, size: int) -> None:
    line = random_timeline(seed, ADDRESSES, 60, START)
    archived.keep(line)
    for account_id in (ALICE, BOB):
        found = archived.tenures(account_id, size)
        expected = [*tenures(line, account_id)]
        assert [(t.address, t.since, t.until) for t in found] == expected
        assert [*archived.services.tenures.all(account_id)] == found
        assert all(t.certain for t in found)


def test_tenures_without_a_beginning_come_last(archived: Archived) -> None:
    line = Timeline(START)
    for number in range(1, 7):
        line.create(f"192.0.2.{number}")
        line.assign(f"192.0.2.{number}", ALICE)
    line.now = NEW_YEAR + 10
    for number in (1, 2, 3):
        line.release(f"192.0.2.{number}")
    line.now += 10
    line.assign("192.0.2.3", ALICE)
    line.move("192.0.2.4", "eu-central")
    archived.keep(line)
    # The year of the first beginnings is deleted.
    archived.databases("DELETE", "kazoo_ips_history_2026")
    expected = [("192.0.2.3", line.now, None, True)]
    expected += [(f"192.0.2.{n}", None, NEW_YEAR + 10, False) for n in (3, 2, 1)]
    held = {(f"192.0.2.{n}", None, None, False) for n in (4, 5, 6)}
    for size in (1, 2, 50):
        found = [(t.address, t.since, t.until, t.certain) for t in archived.tenures(ALICE, size)]
        assert found[:4] == expected
        assert len(found) == 7
        assert {*found[4:]} == held


@pytest.mark.parametrize("size", [1, 50])
def test_a_tenure_that_ended_in_a_gap_is_not_certain(archived: Archived, size: int) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.assign("192.0.2.1", ALICE)
    line.now += 10
    gap = line.forget("192.0.2.1")
    line.events[-1] = replace(gap, before=None, account_id=None)
    line.states["192.0.2.1"] = line.states["192.0.2.1"]._replace(account_id=BOB)  # type: ignore[union-attr]
    line.now += 10
    line.release("192.0.2.1")
    line.assign("192.0.2.1", ALICE)
    line.now += 10
    line.release("192.0.2.1")
    line.assign("192.0.2.1", BOB)
    archived.keep(line)
    found = [(t.since, t.until, t.certain) for t in archived.tenures(ALICE, size)]
    assert found == [(START + 20, START + 30, True), (START, gap.at, False)]


def test_a_tenure_that_another_program_ended_is_not_certain(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.assign("192.0.2.1", ALICE)
    archived.keep(line)
    archived.databases.change("dedicated_ips", "192.0.2.1", pvt_assigned_to=BOB)
    [found] = archived.tenures(ALICE, 50)
    assert (found.since, found.until, found.certain) == (START, None, False)


def test_a_tenure_names_nobody_of_another_account(archived: Archived) -> None:
    line = Timeline(START)
    line.create("192.0.2.1")
    line.assign("192.0.2.1", ALICE, Author(ALICE, "alice-user"))
    line.now += 10
    line.release("192.0.2.1", Author(RESELLER, "reseller-user"))
    line.assign("192.0.2.1", BOB, Author(BOB, "bob-user"))
    archived.keep(line)
    [found] = archived.tenures(ALICE, 10)
    assert found.assigned_by == Author(ALICE, "alice-user")
    assert found.assign_request_id == line.events[1].request_id
    assert (found.released_by, found.release_request_id) == (Author(), None)
    assert not any(word in repr(found) for word in ("reseller", RESELLER, "bob", BOB))
