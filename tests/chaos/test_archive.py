"""The check of the archive after a run."""

from typing import Any

import pytest

from kazoo_ips.model.history import NOBODY, HistoryEvent, State
from kazoo_ips.repositories.history_documents import to_document
from tests.chaos.archive import broken
from tests.chaos.history import Attempt, Call

ADDRESS = "192.0.2.1"
FREE = State("available", None, "zone", "host")
ALICES = State("assigned", "alice", "zone", "host")


def event(
    number: int, kind: str, before: State | None, after: State | None, request_id: str
) -> dict[str, Any]:
    return to_document(
        HistoryEvent(f"{number}", ADDRESS, kind, number, None, before, after, NOBODY, request_id)
    )


CREATED = event(1, "created", None, FREE, "add")
ASSIGNED = event(2, "assigned", FREE, ALICES, "call-7-1")
POOL = {
    ADDRESS: {
        "pvt_status": "assigned",
        "pvt_assigned_to": "alice",
        "pvt_zone": "zone",
        "pvt_host": "host",
    }
}
CALL = Call(7, "assign", "alice", [ADDRESS], attempts=[Attempt(0, 1.0, 2.0, 200, data={})])


def test_an_archive_with_one_event_for_each_change_is_accepted() -> None:
    assert list(broken([CREATED, ASSIGNED], POOL, [CALL])) == []


def test_refused_calls_need_no_event() -> None:
    refused = Call(8, "release", "alice", [ADDRESS], attempts=[Attempt(0, 3.0, 4.0, 400)])
    assert list(broken([CREATED, ASSIGNED], POOL, [CALL, refused])) == []


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([CREATED], "0 events assigned by call 7"),
        ([CREATED, ASSIGNED, event(3, "assigned", ALICES, ALICES, "call-7-2")], "2 events"),
        ([ASSIGNED], "before assigned"),
        ([CREATED, ASSIGNED, event(3, "released", ALICES, FREE, "x")], "the pool has"),
    ],
)
def test_an_impossible_archive_is_reported(documents: list[dict[str, Any]], says: str) -> None:
    assert says in " ".join(broken(documents, POOL, [CALL]))
