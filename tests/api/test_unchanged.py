"""Changes that change nothing: the service writes no document and no audit line."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from tests.api.couchdb import kazoo_document
from tests.conftest import Member
from tests.emptying import remove_place_settings

FREE, TAKEN = "192.0.2.1", "192.0.2.2"
HOST, ZONE = "proxy1.example.com", "us-east"
OFF = {"enabled": False, "reason": "on a block list"}
CHANGES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "zone": ("PATCH", f"/v2/ips/{FREE}", [{"zone": "eu"}] * 2),
    "host of an assigned address": ("PATCH", f"/v2/ips/{TAKEN}", [{"host": "h"}] * 2),
    "description": ("PATCH", f"/v2/ips/{FREE}", [{"description": "d"}] * 2),
    "labels": ("PATCH", f"/v2/ips/{FREE}", [{"labels": {"a": "b"}}] * 2),
    "labels that are missing": ("PATCH", f"/v2/ips/{FREE}", [{}, {"labels": {"a": None}}]),
    "disabled": ("PATCH", f"/v2/ips/{FREE}", [OFF] * 2),
    "disabled while assigned": ("PATCH", f"/v2/ips/{TAKEN}", [OFF] * 2),
    "enabled": ("PATCH", f"/v2/ips/{FREE}", [OFF, *[{"enabled": True}] * 2]),
    "a zone's aging": ("PATCH", f"/v2/ips/zones/{ZONE}", [{"aging_seconds": 60}] * 2),
    "a zone's percentage": ("PATCH", f"/v2/ips/zones/{ZONE}", [{"low_percent": 5}] * 2),
    "a drained host": ("PATCH", f"/v2/ips/hosts/{HOST}", [OFF] * 2),
    "a host that is enabled": ("PATCH", f"/v2/ips/hosts/{HOST}", [{}, {"enabled": True}]),
    "limits": ("POST", "/v2/accounts/{account}/ips/limits", [{"max": 9}] * 2),
    "no limits": ("POST", "/v2/accounts/{account}/ips/limits", [{}] * 2),
}
"""Requests, each with the data that it is sent with, one after the other. The last one changes
nothing."""


@pytest.fixture(autouse=True)
def two(
    load: Callable[..., None], wsgi: Any, couch: Couch, services: Instance, alice: Member
) -> Any:
    """An available address and an assigned one, and no settings of zones and hosts."""
    load(kazoo_document(FREE), kazoo_document(TAKEN, owner=alice.id))
    services.copies.repair(alice.id, [TAKEN])
    yield
    remove_place_settings(couch, services, wsgi.extensions["kazoo_ips"])
    services.limits.set(alice.id, type(services.limits.status(alice.id).limits)(), "end")


def sequences(couch: Couch, account_id: str) -> list[str]:
    """Return the update sequence of each database that a change may write to."""
    account = f"account/{account_id[:2]}/{account_id[2:4]}/{account_id[4:]}"
    names = ("dedicated_ips", "kazoo_ips", account)
    return [str(couch.database(name).info()["update_seq"]).partition("-")[0] for name in names]


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_changes_nothing_writes_nothing(
    api: TestApp, wsgi: Any, couch: Couch, operator: Member, alice: Member, caplog: Any, what: str
) -> None:
    method, path, (*earlier, data) = CHANGES[what]
    url = path.format(account=alice.id)

    def send(each: dict[str, Any]) -> Any:
        headers = {**operator.headers, "If-Match": "*"}
        call = api.patch_json if method == "PATCH" else api.post_json
        return call(url, {"data": each}, headers=headers).json["data"]

    for each in earlier:
        before = send(each)
    written = sequences(couch, alice.id)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        after = send(data)
    assert sequences(couch, alice.id) == written
    assert [each for each in caplog.records if "audit" in getattr(each, "fields", {})] == []
    assert {**after, "_read_only": None} == {**before, "_read_only": None}
    # Other threads would wait for the write.
    assert not wsgi.extensions["kazoo_ips"].ips._reader._ips._pool._writers.expected
