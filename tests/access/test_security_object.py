"""How `secure` changes a `_security` object."""

from typing import Any

import pytest

from kazoo_ips.repositories.access import ROLE, AccessChange, merge

DEFAULT = {"admins": {"roles": ["_admin"]}, "members": {"roles": ["_admin"]}}
"""The `_security` object of a new database in CouchDB 3."""


def test_the_role_is_added_to_the_existing_members() -> None:
    change, merged = merge(DEFAULT)
    assert change is AccessChange.ADDED
    assert merged == {**DEFAULT, "members": {"roles": ["_admin", ROLE]}}


@pytest.mark.parametrize(
    "security",
    [
        {"admins": {"names": ["ops"]}, "members": {"names": ["kazoo"]}, "couchdb_auth_only": True},
        {"members": {"names": ["kazoo"], "roles": ["voip"], "other": 1}},
        {"members": {"names": ["kazoo"], "roles": None}},
    ],
)
def test_nothing_else_in_the_security_object_changes(security: dict[str, Any]) -> None:
    change, merged = merge(security)
    assert change is AccessChange.ADDED
    assert merged["members"]["roles"][-1] == ROLE
    members = {**merged["members"], "roles": merged["members"]["roles"][:-1]}
    assert members == {**security["members"], "roles": security["members"].get("roles") or []}
    assert {**merged, "members": 0} == {**security, "members": 0}


@pytest.mark.parametrize("security", [{}, {"members": {}}, {"members": {"names": []}}])
def test_a_database_open_to_every_user_is_not_changed(security: dict[str, Any]) -> None:
    assert merge(security) == (AccessChange.OPEN, security)


def test_a_second_merge_changes_nothing() -> None:
    merged = merge(DEFAULT)[1]
    assert merge(merged) == (AccessChange.NONE, merged)
