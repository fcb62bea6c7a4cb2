"""The rules of the guard, checked by calling its function."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kazoo_ips.couch import design_docs
from kazoo_ips.model import addresses
from tests import node, strategies
from tests.api.couchdb import kazoo_document
from tests.api.recorded import DATABASES
from tests.guard.cases import ADDRESS, ALICE, BROKEN, FREE, PASSED, REFUSED

Ask = Callable[[dict[str, Any], dict[str, Any] | None], str | None]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A function that returns why a document may not replace another, or None."""
    source = design_docs.load("guard")["validate_doc_update"]
    with node.running(Path(__file__).with_name("run_guard.js")) as run:

        def reason(doc: dict[str, Any], old: dict[str, Any] | None) -> str | None:
            forbidden: str | None = run(source=source, doc=doc, old=old)["forbidden"]
            return forbidden

        yield reason


@pytest.mark.parametrize("what", REFUSED)
def test_an_invalid_document_is_refused(ask: Ask, what: str) -> None:
    old, new, why = REFUSED[what]
    reason = ask(new, old)
    assert reason is not None
    assert reason.startswith(f"{new['_id']}: {why}")


@pytest.mark.parametrize("what", PASSED)
def test_a_valid_document_passes(ask: Ask, what: str) -> None:
    old, new = PASSED[what]
    assert ask(new, old) is None


@given(address=st.one_of(strategies.addresses(), strategies.near_addresses()))
def test_the_guard_and_the_service_add_the_same_addresses(ask: Ask, address: str) -> None:
    assume("%" not in address)  # Kazoo adds addresses with a zone id, so the guard accepts them
    taken = addresses.canonical(address) is not None and addresses.unusable(address) is None
    assert (ask(kazoo_document(address), None) is None) == taken


@pytest.mark.parametrize("what", BROKEN)
def test_a_document_that_was_invalid_before_can_be_written_and_corrected(
    ask: Ask, what: str
) -> None:
    old = BROKEN[what]
    assert ask({**old, "pvt_request_id": "x"}, old) is None
    assert ask({"_id": old["_id"], "_deleted": True}, old) is None
    assert ask({**FREE, "_id": old["_id"]}, old) is None
    assert ask({**old, "pvt_status": "Lost"}, old) is not None


def test_a_restored_address_must_be_unchanged(ask: Ask) -> None:
    old, new = PASSED["brought back"]
    assert ask({**new, "pvt_created": 1}, old) == f"{ADDRESS}: pvt_created must not change"


def test_every_document_and_change_of_kazoo_passes(ask: Ask) -> None:
    documents = [d for d in DATABASES["dedicated_ips"] if not d["_id"].startswith("_design/")]
    assert {d["pvt_status"] for d in documents} == {"available", "assigned"}
    for document in documents:
        released = {k: v for k, v in document.items() if k != "pvt_assigned_to"}
        released |= {"pvt_status": "available", "pvt_modified": 63962600000}
        assigned = {**released, "pvt_status": "assigned", "pvt_assigned_to": ALICE}
        tombstone = {"_id": document["_id"], "_rev": document["_rev"], "_deleted": True}
        assert ask(document, None) is None
        assert ask(released, document) is None
        assert ask(assigned, released) is None
        assert ask(tombstone, document) is None
        assert ask(document, tombstone) is None
