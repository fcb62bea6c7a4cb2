"""The trail of an address: which event a write adds, and which events it may remove."""

from dataclasses import replace

import pytest

from kazoo_ips.model import KEY_SECONDS, TRAIL_LENGTH, DedicatedIP, Event, Status, Trail
from kazoo_ips.model.history import Author, State
from kazoo_ips.model.trail import (
    RECENT_LENGTH,
    RECENT_SECONDS,
    latest,
    lost,
    original,
    shortened,
)

IP = DedicatedIP("192.0.2.1", "z", "h", created=1, modified=1, revision="4-a")
OPERATOR = Author(account_id="operator", user_id="admin")
HOUR = 3600


def assigned(at: int, *, keyed: bool = False, generation: int = 1) -> Event:
    return Event("assigned", "alice", at, "a", generation, keyed=keyed)


def trail(*times: int, keyed: bool = False) -> Trail:
    return tuple(assigned(at, keyed=keyed, generation=n) for n, at in enumerate(times, 1))


def test_an_event_says_who_and_which_revision() -> None:
    event = IP.assign("alice", at=2, request_id="a", by=OPERATOR, keyed=True).trail[-1]
    assert event == Event("assigned", "alice", 2, "a", 5, OPERATOR, True)


def test_a_new_address_continues_the_generations_of_its_tombstone() -> None:
    new = DedicatedIP.new("192.0.2.1", "z", "h", at=2, request_id="a", tombstone="7-a")
    state = State("available", None, "z", "h")
    assert new.trail == (Event("created", None, 2, "a", 8, state=state),)


def test_a_state_that_is_written_on_a_later_revision_has_its_generation() -> None:
    before = IP.assign("alice", at=2, request_id="a")
    before = replace(before, revision="5-a")
    after = before.release("alice", at=3, request_id="b").based_on("6-b")
    assert after.revision == "6-b"
    assert [event.generation for event in after.trail] == [5, 7]


def test_no_event_is_removed_from_a_trail_while_the_position_of_the_archive_is_unknown() -> None:
    long = trail(*range(0, 100 * KEY_SECONDS, HOUR))
    assert shortened(long, None) is long


def test_only_archived_events_are_removed_from_a_trail() -> None:
    long = trail(*range(0, 100 * HOUR, HOUR))
    archived = 50 * HOUR + RECENT_SECONDS
    assert shortened(long, archived) == long[51:]
    assert shortened(long, archived - 1) == long[50:]


def test_the_latest_events_are_never_removed() -> None:
    long = trail(*range(0, 100 * HOUR, HOUR))
    assert shortened(long, 1000 * HOUR) == long[-RECENT_LENGTH:]
    assert shortened(long[:2], 1000 * HOUR) == long[:2]


def test_a_trail_without_events_stays_so() -> None:
    assert shortened((), 1000 * HOUR) == ()


def test_events_of_requests_with_a_key_stay_for_a_day_unless_they_are_too_many() -> None:
    keyed = trail(*range(100 * HOUR, 124 * HOUR, 2 * HOUR), keyed=True)
    older = trail(*range(0, 50 * HOUR, HOUR), keyed=True)
    latest_ones = trail(*range(125 * HOUR, 129 * HOUR, HOUR))
    kept = shortened((*older, *keyed, *latest_ones), 1000 * HOUR)
    assert [event.at for event in kept] == [*range(106 * HOUR, 124 * HOUR, 2 * HOUR),
                                            *range(125 * HOUR, 129 * HOUR, HOUR)]  # fmt: skip
    many = trail(*range(0, 10_000, 100), keyed=True)
    assert len(shortened(many, 1000 * HOUR)) == TRAIL_LENGTH


@pytest.mark.parametrize("archived", [100 * HOUR, 2 * HOUR])
def test_events_after_the_clock_was_set_back_stay(archived: int) -> None:
    """The time of the archive's checkpoint may be from before the clock was set back."""
    back = trail(*(2 * HOUR + n for n in range(20)))
    assert shortened(back, archived) == back
    earlier = assigned(100 * HOUR)
    assert shortened((earlier, *back), archived) == (earlier, *back)


def test_a_state_that_was_found_is_no_event_of_this_service() -> None:
    event, found = (
        assigned(1),
        Event("found", None, 2, "", 3, state=State("available", None, "z", "h")),
    )
    assert latest((event, found)) == event


def test_an_undo_marks_the_assignment_only() -> None:
    ip = IP.assign("alice", at=2, request_id="a")
    event = ip.trail[-1]
    assert ip.undo().trail == (event._replace(kind="undone", was="assigned"),)


def test_an_undo_of_an_assignment_by_another_program_is_a_release() -> None:
    ip = IP.assign("alice", at=2, request_id="a").release("alice", at=3, request_id="b")
    kazoos = replace(ip, status=Status.ASSIGNED, assigned_to="alice", request_id=None)
    undone = kazoos.undo()
    assert undone.trail[:-1] == ip.trail
    assert undone.trail[-1][:2] == ("released", "alice")


def test_a_withdrawal_marks_what_was_done_only() -> None:
    undone = assigned(1)._replace(kind="undone", was="assigned")
    released = assigned(2)._replace(kind="released")
    *_, mark = IP.withdrawing((undone, released)).trail
    assert mark == released._replace(kind="withdrawn", was="released")
    assert len(IP.withdrawing((undone, released)).trail) == len(IP.trail) + 1
    assert original(mark) == original(released) == released
    assert original(undone._replace(was="")) == assigned(1)


def test_what_a_dropped_revision_added_is_lost() -> None:
    common, own, other = trail(1, 2, 3), assigned(4, generation=4), assigned(5, generation=4)
    assert lost((*common, own), (*common[1:], other)) == (own,)
    assert lost((*common, own), (*common, own)) == ()
