"""The events of the history that the trail of an address says, without a database."""

from dataclasses import replace
from typing import Any

import pytest

from kazoo_ips.model import DedicatedIP, Event, Status, Trail, trail_events
from kazoo_ips.model.history import NOBODY, HistoryEvent, State
from kazoo_ips.model.trail import Origin
from kazoo_ips.model.trail_events import FRESH, Snapshot, needs_archive, of_trail

NOW = 99
ALICE, BOB = "a" * 32, "b" * 32
IP = DedicatedIP("192.0.2.1", "z", "h", created=1, modified=9, revision="9-a")
FREE, ALICES = State("available", None, "z", "h"), State("assigned", ALICE, "z", "h")
BOBS, ELSEWHERE = State("assigned", BOB, "z", "h"), State("available", None, "y", "i")


def event(kind: str, generation: int, account_id: str | None = None, **fields: Any) -> Event:
    return Event(kind, account_id, generation, "r", generation, **fields)


def events(*trail: Event, **more: Any) -> list[HistoryEvent]:
    return of_trail(replace(IP, trail=trail), NOW, **more)


def states(*trail: Event, **more: Any) -> list[tuple[State | None, State | None]]:
    return [(each.before, each.after) for each in events(*trail, **more)]


def archived(kind: str = "assigned", revision: str = "3-a", after: State = ALICES) -> HistoryEvent:
    """The latest event of the archive."""
    return HistoryEvent(
        "3", IP.address, kind, 3, None, None, after, NOBODY, None, revision=revision
    )


def test_an_event_names_the_address_in_its_canonical_form() -> None:
    ip = DedicatedIP("2001:DB8::0001", "z", "h", 1, 1, trail=(event("created", 1),))
    assert of_trail(ip, NOW)[0].address == "2001:db8::1"


def test_an_event_of_a_document_whose_id_is_no_address_has_this_id() -> None:
    assert of_trail(replace(IP, address="x", trail=(event("created", 1),)), NOW)[0].address == "x"


def test_events_of_different_requests_have_different_ids() -> None:
    """Of two writers in a conflict, each has written an event of the same generation."""
    one = event("assigned", 2, ALICE)
    others = (one._replace(account_id=BOB), one._replace(request_id="s"), one._replace(at=3))
    assert len({trail_events.service_id(IP.address, each) for each in (one, *others)}) == 4


def test_an_event_has_its_revision_if_that_is_known_and_its_generation_otherwise() -> None:
    trail = (event("assigned", 2, ALICE), event("found", 3, since=2, state=FREE))
    revisions = [each.revision for each in events(*trail, revisions={2: "2-b", 3: "3-b"})]
    assert revisions == ["2-b", "3-b"]
    assert [each.revision for each in events(*trail)] == ["2", "3"]
    assert events(event("assigned", 0, ALICE))[0].revision is None


@pytest.mark.parametrize(
    ("before", "after", "kind", "account_id"),
    [
        (FREE, None, "deleted", None),
        (None, FREE, "created", None),
        (None, ALICES, "assigned", ALICE),
        (FREE, ALICES, "assigned", ALICE),
        (BOBS, ALICES, "assigned", ALICE),
        (ALICES, FREE, "released", ALICE),
        (ALICES, ALICES._replace(zone="y"), "changed", None),
        (ALICES, ALICES._replace(status="disabled"), "disabled", None),
        (FREE, FREE._replace(zone="y"), "changed", None),
        (FREE, FREE._replace(status="disabled"), "disabled", None),
        (FREE, FREE._replace(status="reserved"), "reserved", None),
        (FREE._replace(status="reserved"), FREE._replace(status="disabled"), "disabled", None),
        (FREE._replace(status="disabled"), ELSEWHERE._replace(status="disabled"), "changed", None),
        (FREE._replace(status="disabled"), FREE._replace(status="reserved"), "reserved", None),
        (FREE._replace(status="disabled"), FREE, "enabled", None),
        (FREE._replace(status="disabled"), FREE._replace(status="aging"), "enabled", None),
        (FREE._replace(status="reserved"), FREE, "released", None),
        (FREE._replace(status="reserved"), FREE._replace(status="aging"), "released", None),
        (FREE, FREE._replace(status="aging"), "aged", None),
        (FREE._replace(status="aging"), FREE, "aged", None),
        (FREE, FREE._replace(status="parked"), "changed", None),
    ],
)
def test_a_write_of_another_program_has_the_kind_of_the_change(
    before: State | None, after: State | None, kind: str, account_id: str | None
) -> None:
    made = trail_events.change(IP.address, before, Snapshot(2, after, 2), {})
    assert made is not None
    assert (made.event, made.account_id) == (kind, account_id)


def test_an_event_follows_the_state_before_it_if_it_says_nothing_else() -> None:
    """A release before this one records what another program does in no event."""
    first, second = event("assigned", 2, ALICE), event("assigned", 4, BOB)
    assert states(first, second)[1] == (ALICES, BOBS)
    assert states(first, event("deleted", 4))[1] == (ALICES, None)
    assert states(second)[0] == (FREE, BOBS)
    assert states(event("deleted", 4))[0] == (FREE, None)


def test_an_event_is_where_the_address_was_then() -> None:
    moved = event("found", 3, since=2, state=ELSEWHERE)
    trail = (event("created", 1, state=FREE), event("assigned", 2, ALICE), moved)
    ip = replace(IP, zone="y", host="i", trail=trail)
    assert [(each.before, each.after) for each in of_trail(ip, NOW)] == [
        (None, FREE), (FREE, ALICES), (ALICES, ELSEWHERE),
    ]  # fmt: skip


def test_an_event_that_says_where_the_address_was_is_believed() -> None:
    origin = Origin("available", zone="w", host="i")
    changed = event("changed", 3, origin=origin, state=FREE)
    assert states(event("created", 1, state=FREE), changed)[1] == (
        State("available", None, "w", "i"),
        FREE,
    )


def test_an_origin_without_a_place_is_at_the_place_of_the_address() -> None:
    taken = event("assigned", 3, ALICE, origin=Origin("reserved"))
    assert states(taken) == [(FREE._replace(status="reserved"), ALICES)]


def test_an_address_that_is_added_again_is_not_where_it_was_deleted() -> None:
    gone = event("deleted", 4, origin=Origin("available", zone="y", host="i"))
    assert states(gone, event("created", 5)) == [(ELSEWHERE, None), (None, FREE)]


def test_an_address_can_be_created_disabled() -> None:
    out = FREE._replace(status="disabled")
    assert states(event("created", 1, state=out)) == [(None, out)]


def found(generation: int = 4, since: int = 3, **fields: Any) -> Event:
    return event("found", generation, since=since, **{"state": FREE, **fields})


@pytest.mark.parametrize(
    ("last", "before", "certain"),
    [
        (None, BOBS, True),
        (archived(), ALICES, True),
        (archived(revision="2-a"), BOBS, True),
        (archived("unknown"), BOBS, True),
        (archived("retracted"), BOBS, True),
        (archived(revision=""), BOBS, True),
    ],
    ids=[
        "nothing",
        "the state before",
        "an earlier state",
        "a gap",
        "a retraction",
        "no revision",
    ],
)
def test_what_the_archive_has_last_is_before_the_write_of_another_program(
    last: HistoryEvent | None, before: State, certain: bool
) -> None:
    """If the archive has no state since the last write of the service, the trail says it."""
    *_, made = events(event("assigned", 2, BOB), found(), last=last)
    assert (made.before, made.after, made.certain) == (before, FREE, certain)


@pytest.mark.parametrize(
    ("generation", "at", "certain"),
    [(4, 4, True), (5, 4, False), (4, 3, False)],
    ids=["the next write", "two writes", "an edit by hand"],
)
def test_only_the_one_write_after_what_the_archive_has_is_certain(
    generation: int, at: int, certain: bool
) -> None:
    later = found(generation)._replace(at=at)
    *_, made = events(event("assigned", 2, BOB), later, last=archived())
    assert (made.before, made.after, made.certain) == (ALICES, FREE, certain)


def test_a_first_write_of_another_program_changes_an_available_address() -> None:
    trail = (found(generation=2, since=1, state=BOBS),)
    assert states(*trail) == [(FREE, BOBS)]
    assert states(found(generation=2, since=0, state=BOBS))[-1] == (FREE, BOBS)


def test_what_was_not_done_or_is_archived_is_no_event() -> None:
    done = event("assigned", 2, ALICE)
    undone = event("undone", 3, BOB, was="assigned")
    assert [each.event for each in events(done, undone)] == ["assigned"]
    for revision in ("4-a", "5-a"):
        made = events(done, found(), last=archived(revision=revision))
        assert [each.event for each in made] == ["assigned"]


def test_an_address_is_created_once() -> None:
    made = events(event("created", 1, state=FREE), found(generation=2, since=0, state=BOBS))
    assert [each.event for each in made] == ["created", "assigned"]


def test_an_event_that_only_a_newer_release_knows_changes_no_state() -> None:
    assert states(event("assigned", 2, ALICE), event("parked", 3))[1] == (ALICES, ALICES)


def test_the_first_state_that_is_found_says_where_the_address_was_created() -> None:
    bobs = State("assigned", BOB, "y", "i")
    assert states(found(since=0, state=bobs)) == [(None, ELSEWHERE), (ELSEWHERE, bobs)]


def test_an_event_of_the_archive_without_a_revision_may_be_later_than_what_is_found() -> None:
    made = events(found(since=0, state=BOBS), last=archived(revision=""))[-1]
    assert (made.before, made.after) == (FREE, BOBS)


def test_a_state_that_was_written_at_an_unknown_time_is_no_move() -> None:
    released = event("released", 2, ALICE, state=ELSEWHERE)
    made = events(released, found(since=0, state=BOBS))[-1]
    assert (made.before, made.after, made.certain) == (FREE, BOBS, False)


def test_a_state_that_an_older_release_has_found_is_that_of_the_address() -> None:
    """Its event does not say the state."""
    trail: Trail = (found(generation=2, since=0, state=None),)
    ip = replace(IP, status=Status.ASSIGNED, assigned_to=ALICE, trail=trail)
    assert of_trail(ip, NOW)[0].after == FREE
    assert of_trail(ip, NOW)[-1].before == FREE


@pytest.mark.parametrize(
    ("modified", "read_at", "at"),
    [(4, 4 + FRESH, 4), (3, 3 + FRESH, 3 + FRESH), (3, 2 + FRESH, 3), (2, 2 + FRESH, 2 + FRESH)],
    ids=["a new time", "the time before", "the time before, a moment ago", "an earlier time"],
)
def test_a_write_that_names_no_new_time_was_made_when_it_was_read_at_the_latest(
    modified: int, read_at: int, at: int
) -> None:
    trail = (event("assigned", 3, ALICE), found()._replace(at=modified))
    *_, made = of_trail(replace(IP, trail=trail), read_at)
    assert (made.at, made.certain) == (at, at == modified)


@pytest.mark.parametrize("later", [None, 80])
def test_a_write_that_names_no_new_time_was_made_before_the_next_one(later: int | None) -> None:
    trail = (event("assigned", 3, ALICE), found()._replace(at=3))
    next_one = (event("assigned", 5, BOB)._replace(at=80),) if later else ()
    made = of_trail(replace(IP, trail=(*trail, *next_one)), NOW)[1]
    assert made.at == (later or NOW)


def test_a_write_that_names_no_new_time_was_made_after_the_latest_event_of_the_archive() -> None:
    trail = (event("assigned", 2, ALICE), found(4, since=2)._replace(at=3))
    late = replace(archived("unknown", revision="1-a"), at=3)
    made = [of_trail(replace(IP, trail=trail), NOW, last=last)[-1] for last in (None, late)]
    assert [each.at for each in made] == [3, NOW]


def test_a_write_that_changes_nothing_is_no_event_whatever_its_time() -> None:
    trail = (event("assigned", 3, ALICE), found(state=ALICES)._replace(at=3))
    assert [each.event for each in of_trail(replace(IP, trail=trail), NOW)] == ["assigned"]


@pytest.mark.parametrize(
    ("trail", "needed"),
    [
        ((), False),
        ((event("assigned", 2, ALICE), event("released", 4, ALICE)), False),
        ((found(generation=1, since=0),), False),
        ((found(),), True),
        ((event("assigned", 3, ALICE), found()), False),
        ((event("assigned", 3, ALICE), found(generation=5)), True),
        ((event("assigned", 3, ALICE), found(4)._replace(at=3)), True),
    ],
    ids=[
        "nothing", "no other program", "the first revision", "the event before it is gone",
        "one revision", "two revisions", "an edit by hand",
    ],
)  # fmt: skip
def test_the_archive_is_read_if_another_program_may_have_written_more(
    trail: Trail, needed: bool
) -> None:
    assert needs_archive(trail) is needed
