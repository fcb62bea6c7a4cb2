"""Imports while CouchDB fails at one batch or becomes unreachable."""

import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model.addresses import parse_block
from kazoo_ips.services.pool.imports import ImportRow, ImportService
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, FaultProxy, Request
from tests.timing import eventually

BATCH, SIZE = 60, 64
Report = list[tuple[str, str]]


@pytest.fixture
def fill(proxied_settings: Settings, proxy: FaultProxy, pool: Database) -> Callable[..., Report]:
    """A function that imports two batches, with a fault at the first write of one of them."""
    services = composition.build(proxied_settings)
    imports = ImportService(services.bulk_additions, BATCH)

    def run(fault: Fault | None = None, times: int = 1) -> Report:
        if fault:
            proxy.rule(fault, when=_is_batch, times=times)
        row = ImportRow(1, "10.0.0.0/26", "z", "h", parse_block("10.0.0.0/26"))
        batches = imports.add([row], uuid4().hex)
        return [(result.address, str(result.outcome)) for batch in batches for result in batch]

    return run


def _is_batch(request: Request) -> bool:
    return "-dedicated_ips/_bulk_docs" in request.path


def _count(pool: Database) -> int:
    return sum(document["_id"].startswith("10.0.") for document in pool.range("1", "2"))


def _verdicts(report: Report) -> list[str]:
    return sorted({verdict for _, verdict in report})


@pytest.mark.parametrize(
    "fault",
    [faults.lose_reply, faults.cut, faults.error_afterwards, faults.bad_gateway,
     faults.conflict_chunked],
)  # fmt: skip
def test_a_batch_that_fails_once_is_added_by_a_second_write(
    fill: Callable[..., Report], pool: Database, fault: Fault
) -> None:
    report = fill(fault)
    assert len(report) == SIZE
    assert _verdicts(report) == ["added"]
    assert eventually(lambda: _count(pool) == SIZE)


def test_a_batch_that_arrives_late_is_added_once(
    fill: Callable[..., Report], pool: Database, proxy: FaultProxy
) -> None:
    gate = threading.Event()
    try:
        assert _verdicts(fill(faults.late(gate))) == ["added"]
    finally:
        gate.set()
    assert proxy.wait_until_idle()
    assert eventually(lambda: _count(pool) == SIZE)


def test_a_batch_without_a_quorum_is_deleted_again(
    fill: Callable[..., Report], pool: Database
) -> None:
    report = fill(faults.answer_202)
    failed = [address for address, verdict in report if verdict == "failed"]
    assert len(failed) in (BATCH, SIZE - BATCH)
    assert _verdicts(report) == ["added", "failed"]
    assert eventually(lambda: _count(pool) == SIZE - len(failed))
    assert {verdict for _, verdict in fill()} == {"added", "unchanged"}


def test_an_unanswered_batch_is_unknown_and_the_next_import_finishes_it(
    fill: Callable[..., Report], pool: Database
) -> None:
    assert "unknown" in _verdicts(fill(faults.cut, times=4))
    assert set(_verdicts(fill())) <= {"added", "unchanged"}
    assert eventually(lambda: _count(pool) == SIZE)


def test_an_unreachable_couchdb_ends_the_import_and_the_next_one_continues(
    fill: Callable[..., Report], pool: Database, proxy: FaultProxy
) -> None:
    proxy.stop_listening()
    with pytest.raises(DatastoreUnreachable):
        fill()
    proxy.start_listening()
    assert _verdicts(fill()) == ["added"]
    assert eventually(lambda: _count(pool) == SIZE)
