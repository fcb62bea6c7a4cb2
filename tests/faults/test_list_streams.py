"""A whole list is read as one stream. If the stream breaks, the rest is read in pages.

The list has each address once, in order, or it ends with an error.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.couch import http_connections
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import DedicatedIP, Listing, ListIPs
from kazoo_ips.services.pool import lists
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, FaultProxy, Forward, Reply, Request

ADDRESSES = [f"192.0.2.{n}" for n in range(1, 9)]
ERROR = b'\n\n{"error":"nodedown","reason":"progress not possible"}\n'
"""The end of a view in which CouchDB has met an error."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page, each later one, and each part of a stream have a few lines only."""
    monkeypatch.setattr(lists, "CHUNK", 2)
    monkeypatch.setattr(lists, "LARGE_CHUNK", 3)
    monkeypatch.setattr(http_connections, "_CHUNK", 200)


@pytest.fixture
def whole(
    add: Callable[..., DedicatedIP], proxied_services: Instance
) -> Callable[[], list[Listing]]:
    """A function that reads the list of all addresses."""
    for n, address in enumerate(ADDRESSES):
        add(address, zone="ab"[n // 5])
    query = ListIPs(limit=None)
    return lambda: list(lists.walk(proxied_services.lists.available, query))


def is_stream(request: Request) -> bool:
    return "_view/by_zone" in request.path and "limit=" not in request.target


def is_page(request: Request) -> bool:
    return "_view/by_zone" in request.path and "limit=" in request.target


def views(proxy: FaultProxy) -> list[str]:
    """Return the requests for the list, in their order."""
    requests = [record.request for record in proxy.records]
    return ["page" if is_page(r) else "stream" for r in requests if is_page(r) or is_stream(r)]


def ends_after(count: int) -> Fault:
    """Return a fault: the connection is closed after this number of bytes."""

    def fault(forward: Forward) -> Reply:
        raw = forward().raw
        return Reply(200, raw[:count], b"", keep=False)

    return fault


def fails_after(rows: int) -> Fault:
    """Return a fault: CouchDB sends this number of rows, then an error."""

    def fault(forward: Forward) -> Reply:
        body = faults._dechunked(forward())
        start, *lines = re.split(rb",?\r\n", body)
        return faults._reply(200, start + b"\r\n" + b",\r\n".join(lines[:rows]) + ERROR, None)

    return fault


def test_a_whole_list_is_a_page_and_a_stream(
    whole: Callable[[], list[Listing]], proxy: FaultProxy
) -> None:
    assert [line.address for line in whole()] == ADDRESSES
    assert views(proxy) == ["page", "stream"]


def test_a_stream_that_takes_too_long_is_continued_in_pages(
    whole: Callable[[], list[Listing]], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "STREAM", 0.0)
    assert [line.address for line in whole()] == ADDRESSES
    assert views(proxy)[:3] == ["page", "stream", "page"]


def test_a_stream_that_ends_anywhere_is_continued_in_pages(
    whole: Callable[[], list[Listing]], proxy: FaultProxy
) -> None:
    sizes: list[int] = []

    def measured(forward: Forward) -> Reply:
        reply = forward()
        sizes.append(len(reply.raw))
        return reply

    proxy.rule(measured, when=is_stream)
    expected = whole()
    for count in [*range(0, sizes[0] - 1, 7), sizes[0] - 1]:
        proxy.clear()
        cut = proxy.rule(ends_after(count), when=is_stream, times=None)
        assert whole() == expected, count
        assert len(cut.met) == 1
        assert views(proxy)[:3] == ["page", "stream", "page"]


def test_a_stream_that_ends_with_an_error_is_continued_in_pages(
    whole: Callable[[], list[Listing]], proxy: FaultProxy
) -> None:
    expected = whole()
    for rows in range(len(ADDRESSES)):
        proxy.rule(fails_after(rows), when=is_stream)
        assert whole() == expected, rows


def another_id(forward: Forward) -> Reply:
    reply = forward()
    return replace(reply, head=re.sub(rb"(?i)(request-id: )\S+", rb"\1another-1", reply.head))


def on_one_line(forward: Forward) -> Reply:
    body = faults._dechunked(forward()).replace(b"\r\n", b"")
    return faults._reply(200, body, "application/json")


REFUSALS: dict[str, Fault] = {
    "a failure": faults.error_without_type,
    "no response": faults.cut,
    "another server's response": faults.bad_gateway,
    "a refusal": faults.forbid,
    "an exchanged design document": faults.exchanged,
    "the response to another request": another_id,
    "a response of another form": on_one_line,
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_list_without_a_stream_is_read_in_pages(
    whole: Callable[[], list[Listing]], proxy: FaultProxy, name: str
) -> None:
    expected = whole()
    rule = proxy.rule(REFUSALS[name], when=is_stream)
    assert whole() == expected
    assert rule.met


def test_a_list_ends_with_an_error_if_the_rest_cannot_be_read(
    whole: Callable[[], list[Listing]], proxy: FaultProxy, proxied_services: Instance
) -> None:
    whole()
    proxy.rule(fails_after(4), when=is_stream)
    proxy.rule(faults.error_without_type, when=is_page, first=2, times=None)
    lines = lists.walk(proxied_services.lists.available, ListIPs(limit=None))
    assert [next(lines).address for _ in range(4)] == ADDRESSES[:4]
    with pytest.raises(DatastoreUnreachable):
        list(lines)
