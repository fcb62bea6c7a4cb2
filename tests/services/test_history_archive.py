"""The archive keeps each event once and as it was; the feed has each event, in order."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import (
    DatastoreForbidden,
    DatastoreUnreachable,
    HistoryMissing,
    SinceGone,
    ValidationFailed,
)
from kazoo_ips.model import GREGORIAN_EPOCH, Outcome, Written
from kazoo_ips.model.history import (
    Author,
    HistoryEvent,
    HistoryEventKind,
    PoolLevel,
    Source,
    State,
)
from kazoo_ips.repositories.event_feed import EventFeed
from kazoo_ips.repositories.history_archive import HistoryArchive
from kazoo_ips.repositories.history_documents import from_document, id_prefix, to_document
from kazoo_ips.repositories.history_years import HistoryYears

ALICE = "a" * 32
FREE = State("available", None, "us-east", "proxy1.example.com")
TAKEN = State("assigned", ALICE, "us-east", "proxy1.example.com")
NEW_YEAR = 63_965_980_800
"""The beginning of 2027, in Gregorian seconds."""
YEAR = 366 * 86_400


def event(number: int = 1, at: int = NEW_YEAR - 1000, **more: Any) -> HistoryEvent:
    """An event of an address, with an id of its own."""
    made = HistoryEvent(
        f"192.0.2.1-{number:06}-{uuid4().hex[:8]}", "192.0.2.1", HistoryEventKind.ASSIGNED, at,
        ALICE, FREE, TAKEN, Author(ALICE, "b" * 32), "request", revision=f"{number}-abc",
    )  # fmt: skip
    return replace(made, **more)


class Archive:
    """An archive with databases and a clock of its own."""

    def __init__(self, settings: Settings) -> None:
        self.now = NEW_YEAR - 1000
        self.missing = 0
        self.settings = replace(
            settings.as_administrator(), prefix=f"{settings.prefix}{uuid4().hex[:8]}-"
        )
        self.couch = composition.connect(self.settings)
        self.couch.database("dedicated_ips").create()
        self.years, self.archive, self.feed = self.process()

    def process(
        self, couch: Couch | None = None
    ) -> tuple[HistoryYears, HistoryArchive, EventFeed]:
        """Return the archive of another process."""
        years = HistoryYears(couch or self.couch, lambda: self.now, self._count_missing)
        return years, HistoryArchive(years), EventFeed(years, 1.0)

    def _count_missing(self) -> None:
        self.missing += 1

    def names(self) -> list[str]:
        """The databases of the history."""
        return [name for name in sorted(self.couch.databases()) if "history" in name]

    def documents(self, year: int = 2026) -> list[dict[str, Any]]:
        """The documents of a year, without design documents."""
        everything = self.years.database(year).range("0", "\uffff")
        return [document for document in everything if "ip" in document]

    def read(self, since: str = "0", limit: int = 100) -> tuple[str, list[HistoryEvent]]:
        """All events after a position, and the position after them."""
        found: list[HistoryEvent] = []
        more = True
        while more:
            since, events, more = self.feed.changed(since, limit)
            found += events
        return since, found


@pytest.fixture
def own(settings: Settings) -> Iterator[Archive]:
    """An archive of this test's own, without any database."""
    made = Archive(settings)
    yield made
    for name in made.couch.databases():
        made.couch.database(name).delete()


# Documents.


def test_an_event_becomes_a_readable_document_and_back() -> None:
    made = replace(event(), id="some-id", certain=False)
    document = to_document(made)
    assert document == {
        "_id": "4c0000201-some-id",
        "id": "some-id",
        "ip": "192.0.2.1",
        "event": "assigned",
        "at": NEW_YEAR - 1000,
        "account_id": ALICE,
        "before": {
            "status": "available", "account_id": None,
            "zone": "us-east", "host": "proxy1.example.com",
        },
        "after": {
            "status": "assigned", "account_id": ALICE,
            "zone": "us-east", "host": "proxy1.example.com",
        },
        "by": {"account_id": ALICE, "user_id": "b" * 32},
        "request_id": "request",
        "source": "service",
        "certain": False,
        "revision": "1-abc",
    }  # fmt: skip
    assert from_document(json.loads(json.dumps(document))) == made


@pytest.mark.parametrize(
    "made",
    [
        event(before=None, after=None, account_id=None, by=Author(), request_id=None),
        event(event="retracted", retracts="other", source=Source.GAP, revision=None),
        event(by=Author(command="kazoo-ips assign", system_user="root")),
    ],
)
def test_every_event_survives_its_document(made: HistoryEvent) -> None:
    assert from_document(to_document(made)) == made


def test_events_of_one_address_have_ids_in_one_range() -> None:
    assert id_prefix("2001:DB8::0001") == id_prefix("2001:db8::1")
    assert id_prefix("192.0.2.2") < id_prefix("192.0.2.10") < id_prefix("2001:db8::1")
    assert id_prefix("junk") == "0junk-"


# The archive.


def test_the_first_event_creates_its_years_database(own: Archive) -> None:
    made = event()
    own.archive.append([made])
    assert own.names() == ["kazoo_ips_history_2026"]
    assert [from_document(document) for document in own.documents()] == [made]
    assert own.read()[1] == [made]


def test_each_event_is_stored_in_the_database_of_its_year(own: Archive) -> None:
    own.archive.append([event()])
    own.now = NEW_YEAR + 5
    last, first = event(2, NEW_YEAR - 1), event(3, NEW_YEAR)
    own.archive.append([last, first])
    assert from_document(own.documents(2026)[-1]) == last
    assert [from_document(document) for document in own.documents(2027)] == [first]


def test_older_events_are_stored_in_the_oldest_database(own: Archive) -> None:
    own.archive.append([event(at=0), event(at=GREGORIAN_EPOCH), event(at=-5), event()])
    assert own.names() == ["kazoo_ips_history_2026"]
    assert len(own.documents()) == 4


def test_an_event_of_the_far_future_is_stored_in_the_next_year(own: Archive) -> None:
    own.archive.append([event(at=NEW_YEAR + 30 * YEAR), event(at=10**18)])
    assert own.names() == ["kazoo_ips_history_2026", "kazoo_ips_history_2027"]
    assert len(own.documents(2027)) == 2


def test_the_same_event_again_is_no_error_and_changes_nothing(
    own: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    made = event()
    own.archive.append([made, made])
    before = own.documents()
    own.archive.append([made, event(2)])
    own.process()[1].append([replace(made, certain=False)])
    assert [d for d in own.documents() if d["id"] == made.id] == before
    assert len(own.documents()) == 2
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_many_processes_may_store_the_same_events(own: Archive) -> None:
    made = [event(number) for number in range(450)]
    with ThreadPoolExecutor(3) as executor:
        list(executor.map(lambda _: own.process()[1].append(made), range(3)))
    assert sorted(e.id for e in own.read()[1]) == sorted(e.id for e in made)


class LossyDatabase:
    """A database some of whose responses to bulk writes are lost, or are 202."""

    def __init__(self, database: Database, answers: list[Outcome], arrive: bool) -> None:
        self._database = database
        self._answers = answers
        self._arrive = arrive
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def put_all(self, documents: list[dict[str, Any]]) -> list[Written]:
        """Write the documents, if they are to arrive, and return the next prepared outcome."""
        self.writes += 1
        if not self._answers:
            return self._database.put_all(documents)
        if self._arrive:
            self._database.put_all(documents)
        answer = self._answers.pop(0)
        return [Written(answer) for _ in documents]


def lose(
    own: Archive, monkeypatch: pytest.MonkeyPatch, answers: list[Outcome], *, arrive: bool
) -> LossyDatabase:
    """Let the archive use a database that loses responses."""
    own.archive.append([event(0)])
    lossy = LossyDatabase(own.years.database(2026), answers, arrive)
    monkeypatch.setattr(own.years, "database", lambda year: lossy)
    return lossy


@pytest.mark.parametrize("arrive", [True, False])
def test_an_unknown_outcome_is_found_out(
    own: Archive, monkeypatch: pytest.MonkeyPatch, arrive: bool
) -> None:
    lossy = lose(own, monkeypatch, [Outcome.UNKNOWN], arrive=arrive)
    own.archive.append([event(1), event(2)])
    assert len(own.documents()) == 3
    assert lossy.writes == 2


@pytest.mark.parametrize("arrive", [True, False])
def test_an_outcome_that_stays_unknown_is_an_error(
    own: Archive, monkeypatch: pytest.MonkeyPatch, arrive: bool
) -> None:
    lose(own, monkeypatch, [Outcome.UNKNOWN] * 3, arrive=arrive)
    with pytest.raises(DatastoreUnreachable, match="2 events may not be stored"):
        own.archive.append([event(1), event(2)])


def test_an_event_that_is_refused_and_not_there_is_an_error(
    own: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(own, monkeypatch, [Outcome.REFUSED], arrive=False)
    with pytest.raises(Exception, match="refuses 2 events"):
        own.archive.append([event(1), event(2)])


def test_without_the_right_to_create_a_database_the_error_says_so(
    own: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bool:
        raise DatastoreForbidden("You are not a server admin.")

    monkeypatch.setattr(Database, "create", refuse)
    with pytest.raises(HistoryMissing, match="kazoo_ips_history_2026"):
        own.archive.append([event()])
    assert own.missing == 1
    monkeypatch.undo()
    own.archive.append([event()])
    assert len(own.documents()) == 1


def test_many_events_keep_their_order_by_address(own: Archive) -> None:
    made = [event(number, address=f"192.0.2.{number % 9}") for number in range(450)]
    own.archive.append(made)
    read = own.read()[1]
    assert len(read) == 450
    for address in {each.address for each in made}:
        wanted = [each for each in made if each.address == address]
        assert [each for each in read if each.address == address] == wanted


def test_many_zones_may_become_low_at_once(own: Archive) -> None:
    level = PoolLevel("us-east", 0, 10, 10.0)
    low = replace(event(), address="", event=HistoryEventKind.POOL_LOW, before=None, after=None)
    made = [replace(low, id=f"{n}", level=level._replace(zone=f"zone-{n}")) for n in range(250)]
    own.archive.append(made)
    assert sorted(each.id for each in own.read()[1]) == sorted(each.id for each in made)


# Append only.


def attempts(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return writes that must not change an event of the history."""
    return {
        "changed": {**document, "account_id": "c" * 32},
        "the same": document,
        "deleted": {"_id": document["_id"], "_rev": document["_rev"], "_deleted": True},
    }


@pytest.mark.parametrize("how", list(attempts({"_id": "", "_rev": ""})))
def test_nobody_changes_or_deletes_an_event(own: Archive, how: str) -> None:
    own.archive.append([event()])
    (document,) = own.documents()
    database = own.years.database(2026)
    attempt = attempts(document)[how]
    with pytest.raises(DatastoreForbidden, match="an event of the history"):
        database.put(attempt)
    assert [w.outcome for w in database.put_all([attempt])] == [Outcome.REFUSED]
    if how == "deleted":
        with pytest.raises(DatastoreForbidden):
            database.remove(document["_id"], document["_rev"])
    assert own.documents() == [document]


@pytest.mark.parametrize(
    "bad",
    [{"id": None}, {"ip": 7}, {"event": ""}, {"at": "now"}, {"at": 1.5}],
    ids=str,
)
def test_a_document_that_is_no_event_is_refused(own: Archive, bad: dict[str, Any]) -> None:
    own.archive.append([event()])
    database = own.years.database(2026)
    with pytest.raises(DatastoreForbidden, match="must be a"):
        database.put({**to_document(event(2)), **bad})
    assert len(own.documents()) == 1


# The feed.


def test_the_feed_has_every_event_in_the_order_of_the_archive(own: Archive) -> None:
    made = [event(number) for number in range(25)]
    for each in made:
        own.archive.append([each])
    assert own.read(limit=7)[1] == made
    since, first, more = own.feed.changed("0", 10)
    assert more
    assert [*first, *own.read(since)[1]] == made


def test_the_feed_goes_on_where_it_ended(own: Archive) -> None:
    since, none = own.read()
    assert none == []
    for number in range(5):
        made = event(number)
        own.archive.append([made])
        since, events = own.read(since)
        assert events == [made]


def test_a_reader_that_starts_now_starts_at_the_end_of_the_feed(own: Archive) -> None:
    assert own.feed.changed("now", 10) == ("0", [], False)
    own.archive.append([event(1)])
    since, events, more = own.feed.changed("now", 10)
    assert not events
    assert not more
    late = event(2)
    own.archive.append([late])
    assert own.read(since)[1] == [late]


def test_events_of_both_years_arrive_at_the_turn_of_the_year(own: Archive) -> None:
    own.years.create(2026)
    own.years.create(2027)
    first = event(1)
    own.archive.append([first])
    since, events = own.read()
    assert events == [first]
    own.now = NEW_YEAR + 1
    new, late = event(3, NEW_YEAR), event(2, NEW_YEAR - 1)
    own.archive.append([new])
    since, events = own.read(since)
    assert events == [new]
    own.archive.append([late])
    since, events = own.read(since)
    assert events == [late]
    own.archive.append([event(4, NEW_YEAR - 1), event(5, NEW_YEAR)])
    assert [e.at for e in own.read(since)[1]] == [NEW_YEAR - 1, NEW_YEAR]


def test_an_event_is_not_overtaken_by_one_of_the_next_year(
    own: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reads of the two years, one event of each year is stored."""
    own.years.create(2026)
    own.years.create(2027)
    since, _ = own.read()
    own.now = NEW_YEAR + 1
    old, new = event(1, NEW_YEAR - 1), event(2, NEW_YEAR)
    plain, reads = Database.changes, 0

    def changes(self: Database, **params: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            own.archive.append([old, new])
        return plain(self, **params)

    monkeypatch.setattr(Database, "changes", changes)
    since, first, _ = own.feed.changed(since, 10)
    monkeypatch.undo()
    assert [*first, *own.read(since)[1]] == [old, new]


def test_a_database_that_another_process_creates_joins_the_feed(
    own: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.archive.append([event(1)])
    since, _ = own.read()
    own.now = NEW_YEAR + 1
    new = event(2, NEW_YEAR)
    own.process()[1].append([new])
    monkeypatch.setattr(time, "monotonic", lambda plain=time.monotonic: plain() + 11)
    assert own.read(since)[1] == [new]


def test_a_position_in_a_deleted_year_is_an_error(own: Archive) -> None:
    own.archive.append([event(1), event(2)])
    behind, _, _ = own.feed.changed("0", 1)
    own.now = NEW_YEAR + 1
    new = event(3, NEW_YEAR)
    own.archive.append([new])
    up_to_date, _ = own.read()
    own.years.delete(2026)
    with pytest.raises(SinceGone):
        own.feed.changed(behind, 10)
    later = event(4, NEW_YEAR)
    own.archive.append([later])
    assert own.read(up_to_date)[1] == [later]
    assert own.read()[1] == [new, later]


def test_a_year_that_is_deleted_is_not_created_again(own: Archive) -> None:
    own.archive.append([event(1)])
    own.now = NEW_YEAR + 1
    own.archive.append([event(2, NEW_YEAR)])
    own.years.delete(2026)
    own.archive.append([event(3, NEW_YEAR - 1)])
    assert own.names() == ["kazoo_ips_history_2027"]
    assert len(own.documents(2027)) == 2


@pytest.mark.parametrize("since", ["x", "2026", "2026.", "2026.1~", "26.1", "2026.a b", "~"])
def test_a_text_that_is_no_position_is_refused(own: Archive, since: str) -> None:
    own.archive.append([event()])
    with pytest.raises(ValidationFailed):
        own.feed.changed(since, 10)


def test_a_sequence_that_couchdb_refuses_is_no_position(own: Archive) -> None:
    own.archive.append([event()])
    with pytest.raises(ValidationFailed):
        own.feed.changed("2026.7-abc", 10)


def test_a_position_in_an_earlier_database_is_read_from_the_start(own: Archive) -> None:
    for number in range(3):
        own.archive.append([event(number)])
    since, _ = own.read()
    own.years.database(2026).delete()
    own.years.forget(2026)
    new = event(7)
    own.archive.append([new])
    assert [each.id for each in own.feed.changed(since, 10)[1]] == [new.id]


def test_a_position_needs_no_quoting(own: Archive) -> None:
    own.archive.append([event(), event(at=NEW_YEAR)])
    since, _ = own.read()
    assert since.replace("~", "").replace(".", "").replace("-", "").replace("_", "").isalnum()


# Waiting.


def after(seconds: float, act: Callable[[], object], executor: ThreadPoolExecutor) -> None:
    """Do something in another thread after a pause."""

    def run() -> None:
        time.sleep(seconds)
        act()

    executor.submit(run)


def test_waiting_ends_with_the_next_event(own: Archive) -> None:
    own.archive.append([event()])
    since, _ = own.read()
    with ThreadPoolExecutor(1) as executor:
        started = time.monotonic()
        after(1.5, lambda: own.archive.append([event(2)]), executor)
        assert own.feed.wait(since, 30)
        assert 1.4 < time.monotonic() - started < 10


def test_waiting_ends_at_once_if_there_are_events(own: Archive) -> None:
    own.archive.append([event(), event(2)])
    since, _, _ = own.feed.changed("0", 1)
    started = time.monotonic()
    assert own.feed.wait(since, 30)
    assert own.feed.wait("0", 30)
    assert time.monotonic() - started < 5


def test_waiting_ends_after_its_time(own: Archive) -> None:
    assert not own.feed.wait("now", 0.5)
    own.archive.append([event()])
    started = time.monotonic()
    assert not own.feed.wait("now", 1.2)
    assert time.monotonic() - started >= 1.2
