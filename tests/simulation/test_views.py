"""Comparison of the simulated views and queries with a real database."""

from random import Random
from typing import Any

import pytest

from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.accounts import ACCOUNTS
from tests.simulation.cluster import select_rows
from tests.simulation.documents import VIEWS, Shard

OWNERS = ["1" * 32, "2" * 32]
HIGH: dict[str, Any] = {}


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
                **({"pvt_assigned_to": chance.choice(OWNERS)} if status == "assigned" else {}),
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
    ("ips/by_assignee", {"startkey": [OWNERS[0]], "endkey": [OWNERS[0], HIGH], "reduce": False}),
    ("ips/by_assignee", {"reduce": False}),
    ("ips/by_address_or_time", {"startkey": ["address", "4"], "endkey": ["address", "6"],
                                "reduce": False}),
    ("ips/by_address_or_time", {"startkey": ["modified", 0], "endkey": ["modified", HIGH],
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


def test_logins_have_the_rows_that_a_real_database_has(couch: Couch, operator: Any) -> None:
    accounts, shard = couch.database(ACCOUNTS), Shard()
    for document in accounts.range("", "\uffff"):
        shard.write({k: v for k, v in document.items() if k != "_rev"})
    query = {"startkey": ["realm"], "endkey": ["realm", HIGH], "reduce": False}
    for queried in (query, {"keys": [["name", "operator"], ["realm", "none"]], "reduce": False}):
        expected = [
            (row.id, row.key, row.value) for row in accounts.rows("logins/by_login", **queried)
        ]
        found = select_rows(shard, "logins/by_login", queried)
        assert [(r["id"], r["key"], r["value"]) for r in found] == expected
        assert expected


def test_every_view_of_the_service_is_simulated() -> None:
    queried = {view for view, _ in QUERIES} | {"logins/by_login"}
    assert set(VIEWS) == queried
