"""CSV is the same whether or not a list has cells that need quotes or escapes."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips.api.lists import csv_lines
from kazoo_ips.model.names import csv_cell

NAMES = st.from_regex(r"[a-z0-9][a-z0-9. -]{0,8}", fullmatch=True)
CELLS = st.one_of(
    NAMES, st.text(max_size=6), st.sampled_from(["", "=1", 'a"b', "a;b", "a,b", "é"])
)


def written(rows: list[list[str]]) -> str:
    """Return the rows as the csv module writes them."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([csv_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.one_of(
            *(
                st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=5)
                for cells in (NAMES, CELLS)
            )
        )
    )
)
def test_lines_are_those_of_the_csv_module(rows: list[list[str]]) -> None:
    assert csv_lines(rows) == written(rows)


def test_no_rows_are_no_lines() -> None:
    assert csv_lines([]) == ""
