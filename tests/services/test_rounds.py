"""If a round of background work fails, the error is logged and counted, and the work continues."""

import logging

import pytest

from kazoo_ips.background.rounds import run_round
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.observability import request_context


def test_a_round_has_a_context_of_its_own() -> None:
    ids: list[str] = []

    def do() -> None:
        work = request_context.CURRENT.get()
        assert work
        ids.append(work.request_id)

    assert run_round("test", do, pytest.fail)
    assert run_round("test", do, pytest.fail)
    assert len(set(ids)) == 2
    assert all(each.startswith("background-") for each in ids)


@pytest.mark.parametrize(
    ("error", "level"),
    [(DatastoreUnreachable("away"), logging.WARNING), (ValueError("bug"), logging.ERROR)],
)
def test_an_error_is_logged_and_counted(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[None] = []

    def do() -> None:
        raise error

    assert not run_round("test round", do, lambda: failures.append(None))
    assert len(failures) == 1
    [record] = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith("background work failed")
    assert "test round" in record.getMessage()
    assert bool(record.exc_info) == (level == logging.ERROR)
