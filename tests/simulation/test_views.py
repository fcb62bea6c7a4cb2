"""Comparison of the simulated views and queries with a real database."""

from random import Random
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.accounts import ACCOUNTS
from tests.simulation.cluster import select_rows
from tests.simulation.documents import VIEWS, Shard

OWNERS = ["1" * 32, "2" * 32]
HIGH: dict[str, Any] = {}
EVENT_VIEWS = (
    "history/by_account", "history/by_address", "history/by_retraction", "history/by_zone",
)  # fmt: skip


def documents(chance: Random) -> list[dict[str, Any]]:
    """Return documents of a pool, some of which are invalid or of another type."""
    made: list[dict[str, Any]] = []
    for number in range(60):
        status = chance.choice(["available", "assigned", "assigned", "aging"])
        address = chance.choice([f"192.0.2.{number}", f"2001:db8::{number:x}"])
        address = chance.choice([address, address, f"::ffff:192.0.2.{number}", address.upper()])
        made.append(
            {
                "_id": chance.choice([address, address, address, f"no address {number}"]),
                "pvt_type": chance.choice(["dedicated_ip"] * 5 + ["other"]),
                "pvt_status": status,
                "pvt_zone": chance.choice(["us-east", "us-west"]),
                "pvt_host": chance.choice(["proxy1.example.com", "proxy2.example.com"]),
                **({"pvt_available_at": chance.choice([60, 70, 80])} if number % 3 else {}),
                **({"pvt_assigned_to": chance.choice(OWNERS)} if status == "assigned" else {}),
                **({"labels": {"a": "1", "n": 2}} if chance.random() < 0.3 else {}),
                **({"pvt_deleted": True} if chance.random() < 0.1 else {}),
            }
        )
    return made


QUERIES = [
    ("ips/by_zone", {"startkey": ["available"], "endkey": ["available", HIGH], "reduce": False}),
    ("ips/by_zone", {"startkey": ["assigned", "us-east"], "endkey": ["assigned", "us-east", HIGH],
                     "limit": 7, "skip": 2, "reduce": False}),
    ("ips/by_zone", {"group_level": 2}),
    ("ips/by_zone", {"startkey": ["assigned"], "endkey": ["assigned", HIGH], "reduce": True}),
    ("ips/by_host", {"group_level": 3}),
    ("ips/by_host", {"reduce": False}),
    ("ips/available_by_host", {"startkey": ["us-east", 5], "endkey": ["us-east", HIGH],
                               "reduce": False}),
    ("ips/available_by_host", {"group_level": 3}),
    ("ips/by_assignee", {"startkey": [OWNERS[0]], "endkey": [OWNERS[0], HIGH], "reduce": False}),
    ("ips/by_assignee", {"reduce": False}),
    ("ips/by_address_or_time", {"startkey": ["address", "4"], "endkey": ["address", "6"],
                                "reduce": False}),
    ("ips/by_address_or_time", {"startkey": ["modified", 0], "endkey": ["modified", HIGH],
                                "reduce": True}),
    ("ips/by_label", {"reduce": False}),
    ("ips/by_expiry", {"startkey": ["aging", "zone", "us-east", 0],
                       "endkey": ["aging", "zone", "us-east", HIGH], "limit": 3,
                       "reduce": False}),
    ("ips/by_expiry", {"startkey": ["aging", "all", 0], "endkey": ["aging", "all", 70],
                       "reduce": True}),
    ("ips/other_spellings", {"reduce": False}),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_views_have_the_rows_that_a_real_database_has(pool: Database, seed: int) -> None:
    made, shard = documents(Random(seed)), Shard()
    assert all(w.outcome is Outcome.DONE for w in pool.put_all(made))
    for document in made:
        shard.write(document)
    for view, query in QUERIES:
        expected = [(row.id, row.key, row.value) for row in pool.rows(view, **query)]
        found = select_rows(shard, view, query)
        assert [(r.get("id", ""), r["key"], r["value"]) for r in found] == expected, (view, query)


def test_accounts_have_the_rows_that_a_real_database_has(
    couch: Couch, operator: Any, alice: Any
) -> None:
    accounts, shard = couch.database(ACCOUNTS), Shard()
    for document in accounts.range("", "\uffff"):
        shard.write({k: v for k, v in document.items() if k != "_rev"})
    query = {"startkey": ["realm"], "endkey": ["realm", HIGH], "reduce": False}
    for view, queried in (
        ("logins/by_login", query),
        ("logins/by_login", {"keys": [["name", "operator"], ["realm", "none"]], "reduce": False}),
        ("account_tree/by_ancestor", {"startkey": [operator.id], "reduce": False}),
    ):
        expected = [(row.id, row.key, row.value) for row in accounts.rows(view, **queried)]
        found = select_rows(shard, view, queried)
        assert [(r["id"], r["key"], r["value"]) for r in found] == expected
        assert expected


def events(chance: Random) -> list[dict[str, Any]]:
    """Return documents of the history, some of which are retractions or lack fields."""
    run, made = uuid4().hex, []
    for number in range(40):
        state = {"status": "assigned", "account_id": chance.choice(OWNERS), "zone": "us-east"}
        made.append(
            {
                "_id": f"{run}-{number}",
                "id": f"{run}-{number}",
                "ip": chance.choice(["192.0.2.1", "2001:DB8::1", "no address"]),
                "event": chance.choice(["assigned", "assigned", "released", "retracted"]),
                "at": 63_900_000_000 + chance.randrange(5),
                "account_id": chance.choice([*OWNERS, None]),
                "before": chance.choice([None, {**state, "zone": "us-west"}]),
                "after": chance.choice([None, state]),
                "revision": chance.choice([None, f"{number}-abc"]),
                "retracts": chance.choice([None, "another"]),
            }
        )
    return made


def test_events_have_the_rows_that_a_real_database_has(couch: Couch) -> None:
    database = couch.database("kazoo_ips_history_2026")
    made, shard = events(Random(1)), Shard()
    assert all(w.outcome is Outcome.DONE for w in database.put_all(made))
    for document in made:
        shard.write(document)
    ids = {document["_id"] for document in made}
    for view in EVENT_VIEWS:
        rows = database.rows(view, reduce=False)
        expected = [(row.id, row.key, row.value) for row in rows if row.id in ids]
        found = select_rows(shard, view, {"reduce": False})
        assert [(r["id"], r["key"], r["value"]) for r in found] == expected, view
        assert expected


def test_every_view_of_the_service_is_simulated() -> None:
    queried = {view for view, _ in QUERIES} | {
        "logins/by_login", "account_tree/by_ancestor", *EVENT_VIEWS
    }  # fmt: skip
    assert set(VIEWS) == queried
