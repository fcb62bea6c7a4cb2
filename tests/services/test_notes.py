"""Notes of several addresses, on a cluster whose nodes do not all know the same."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIPs
from kazoo_ips.repositories.journal import Claim, JournalRepository
from kazoo_ips.services import Services
from tests.conftest import Member
from tests.faults.conftest import eventually

IPS = ("192.0.2.1", "192.0.2.2")


@pytest.fixture
def journal(couch: Couch) -> JournalRepository:
    return JournalRepository(couch)


@pytest.fixture
def claim(
    journal: JournalRepository,
    services: Services,
    pool: Database,
    add: Callable[..., Any],
    alice: Member,
) -> Claim:
    """The note of an assignment that is done, still to be struck out."""
    for address in IPS:
        add(address)
    request_id = uuid4().hex
    [ip, _] = services.ips.assign_all(AssignIPs(alice.id, IPS), request_id)
    return journal.open("assign", alice.id, request_id, ip.modified, list(IPS))


def recover(settings: Settings) -> int:
    return composition.build(settings, clock=lambda: 4e9).housekeeping.recover()


def ids(journal: JournalRepository) -> list[str]:
    return [claim.id for claim in journal.claims()]


def owners(pool: Database) -> set[str | None]:
    return {document.get("pvt_assigned_to") for document in pool.get_all(IPS).values()}


def test_what_a_note_says_is_undone(claim: Claim, settings: Settings, pool: Database) -> None:
    # On a cluster the list of notes may be behind for a moment.
    assert eventually(lambda: recover(settings) == 2)
    assert owners(pool) == {None}
    assert recover(settings) == 0


def test_a_note_that_was_struck_out_counts_no_more_wherever_it_shows_again(
    claim: Claim,
    journal: JournalRepository,
    settings: Settings,
    couch: Couch,
    pool: Database,
    alice: Member,
) -> None:
    """A node that has slept took part in somebody's attempt to take it over."""
    database = couch.database("kazoo_ips")
    note = database.get(claim.id)
    assert journal.close(claim)
    database.graft({**note, "_rev": f"2-{uuid4().hex}"}, parent=claim.revision)
    assert eventually(lambda: claim.id in ids(journal))
    assert eventually(lambda: recover(settings) == 0 and claim.id not in ids(journal))
    assert owners(pool) == {alice.id}


def test_a_note_that_somebody_has_taken_over_cannot_be_struck_out(
    claim: Claim, journal: JournalRepository
) -> None:
    taken = journal.take_over(claim)
    assert taken is not None
    assert not journal.close(claim)
    assert journal.take_over(claim) is None
    assert journal.close(taken)
