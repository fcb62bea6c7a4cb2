"""The service reads a long list in chunks. It reads each chunk while the caller uses the one
before.
"""

from dataclasses import replace
from threading import Event, get_ident

import pytest

from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Listing, ListIPs, Page
from kazoo_ips.services.pool.lists import CHUNK, LARGE_CHUNK, walk

LINES = [Listing(f"10.0.{n // 256}.{n % 256}", "zone", "host") for n in range(12_345)]


def page(query: ListIPs) -> Page:
    """Return a page of `LINES`. The position of a line is its number."""
    start = int(query.after[1]) + 1 if query.after else 0
    assert query.limit
    items = tuple(LINES[start : start + query.limit])
    more = start + query.limit < len(LINES)
    return Page(items, ("zone", str(start + query.limit - 1), "") if more else None)


@pytest.mark.parametrize(
    "limit", [None, 0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + LARGE_CHUNK, 9_999, 20_000]
)
def test_yields_as_many_lines_as_are_wanted(limit: int | None) -> None:
    assert list(walk(page, ListIPs(limit=limit))) == LINES[:limit]


def test_the_next_chunk_is_read_while_the_caller_uses_this_one() -> None:
    second = Event()
    threads = []

    def list_page(query: ListIPs) -> Page:
        threads.append(get_ident())
        if query.after:
            second.set()
        return page(query)

    lines = walk(list_page, ListIPs(limit=None))
    next(lines)
    assert second.wait(5)
    assert threads[0] == get_ident() != threads[1]
    lines.close()
    assert len(threads) == 2


def test_a_page_without_lines_does_not_end_the_list() -> None:
    def list_page(query: ListIPs) -> Page:
        return replace(page(query), items=()) if query.after is None else page(query)

    assert list(walk(list_page, ListIPs(limit=None))) == LINES[CHUNK:]


def test_an_error_of_a_later_chunk_reaches_the_caller() -> None:
    def list_page(query: ListIPs) -> Page:
        if query.after:
            raise DatastoreUnreachable
        return page(query)

    lines = walk(list_page, ListIPs(limit=None))
    assert [next(lines) for _ in range(CHUNK)] == LINES[:CHUNK]
    with pytest.raises(DatastoreUnreachable):
        next(lines)
