"""The table of faults is consistent with the guarantees, and equals the one on the page."""

from pathlib import Path

import pytest

from tests.faults.table import TABLE, Line, render

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"

UNKNOWN = {
    ("assign one", "copy", "done, no copy"),
    ("allocate 1", "copy", "done, no copy"),
}
"""Cases in which the outcome stays unknown. A request for one address has no transaction record.
If CouchDB becomes unreachable between the write to the pool and that of the copy, the client gets
503, and the account may have the address. Pool and copy agree later."""


@pytest.mark.parametrize("line", TABLE, ids=str)
def test_only_acknowledged_requests_take_effect(line: Line) -> None:
    assert line.finally_ in ("done", "not done")
    if (line.request, line.write, line.then) not in UNKNOWN:
        assert line.reply.startswith("2") == (line.finally_ == "done")


def test_the_page_contains_the_table() -> None:
    assert DOCUMENT.read_text().endswith(render())
