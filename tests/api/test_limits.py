"""Limits of accounts, through the API and the command."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from webtest import TestApp

from kazoo_ips.app import Instance
from kazoo_ips.model import DedicatedIP
from kazoo_ips.model.limits import Limits
from tests.api.replies import failure, invalid, success
from tests.conftest import Member

Add = Callable[..., DedicatedIP]


@pytest.fixture
def limits(
    api: TestApp, wsgi: Any, services: Instance, alice: Member, child: Member
) -> Iterator[str]:
    """The path of the child's limits, which are removed after the test."""
    wsgi.extensions["kazoo_ips"].limits.refresh()
    yield f"/v2/accounts/{child.id}/ips/limits"
    for member in (alice, child):
        services.limits.set(member.id, Limits(), "0" * 32)
    wsgi.extensions["kazoo_ips"].limits.refresh()


def test_an_account_above_sets_limits_and_the_account_reads_them(
    api: TestApp, add: Add, alice: Member, child: Member, limits: str
) -> None:
    add()
    wanted = {"max": 3, "zones": {"us-east": 2}, "descendants_max": 5}
    reply = api.post_json(limits, {"data": wanted}, headers=alice.headers)
    used = {"total": 0, "zones": {}, "descendants": 0}
    assert success(reply, alice.token) == {**wanted, "used": used, "exceeded_by": 0}
    api.post_json(f"/v2/accounts/{child.id}/ips/192.0.2.1", {}, headers=child.headers)
    reply = api.get(limits, headers=child.headers)
    used = {"total": 1, "zones": {"us-east": 1}, "descendants": 1}
    assert success(reply, child.token) == {**wanted, "used": used, "exceeded_by": 0}


def test_an_account_may_not_set_its_own_limits(api: TestApp, child: Member, limits: str) -> None:
    reply = api.post_json(limits, {"data": {"max": 3}}, headers=child.headers, status=403)
    assert failure(reply, child.token, "forbidden") == {"message": "forbidden"}


@pytest.mark.parametrize(
    ("data", "path", "rule"),
    [
        ({"max": -1}, "max", "minimum"),
        ({"max": "many"}, "max", "type"),
        ({"zones": {"us-east": -1}}, "zones.us-east", "minimum"),
        ({"zones": [1]}, "zones", "type"),
        ({"min": 1}, "min", "additionalProperties"),
    ],
)
def test_invalid_limits_are_refused(
    api: TestApp, alice: Member, limits: str, data: Any, path: str, rule: str
) -> None:
    reply = api.post_json(limits, {"data": data}, headers=alice.headers, status=400)
    assert rule in invalid(reply, alice.token)[path]


def test_an_assignment_above_a_limit_is_409_and_names_the_limit(
    api: TestApp, add: Add, alice: Member, child: Member, limits: str
) -> None:
    add("192.0.2.1"), add("192.0.2.2"), add("192.0.2.3")
    api.post_json(limits, {"data": {"max": 1}}, headers=alice.headers)
    path, headers = f"/v2/accounts/{child.id}/ips", child.headers
    api.post_json(path, {"data": {"quantity": 1}}, headers=headers)
    keyed = {**headers, "Idempotency-Key": "one-more"}
    for body in ({"quantity": 2}, {"quantity": 2}, {"quantity": 2, "zone": "us-east"}):
        reply = api.post_json(path, {"data": body}, headers=headers, status=409)
    first = api.post_json(path, {"data": {"quantity": 1}}, headers=keyed, status=409)
    assert failure(first, child.token, "limit_reached") == {
        "limit": 1, "used": 1, "requested": 1, "which": "max", "account_id": child.id,
        "message": "limit reached",
    }  # fmt: skip
    assert failure(reply, child.token, "limit_reached")["requested"] == 2
    api.delete(path, headers=headers)
    again = api.post_json(path, {"data": {"quantity": 1}}, headers=keyed, status=409)
    assert again.json["data"] == first.json["data"]
    api.post_json(f"{path}?dry_run=true", {"data": {"quantity": 1}}, headers=headers)
    api.post_json(f"{path}?dry_run=true", {"data": {"quantity": 2}}, headers=headers, status=409)


def test_the_command_shows_and_sets_limits(
    run: Callable[..., Result], alice: Member, child: Member, limits: str
) -> None:
    def limits_after(*options: str) -> Any:
        done = run("limit", child.id, "--json", *options)
        assert done.exit_code == 0, done.output
        shown = json.loads(done.stdout.splitlines()[-1])
        return shown["max"], shown["zones"], shown["descendants_max"]

    assert limits_after("--max", "4", "--zone", "us=east=2", "--dry-run") == (
        4,
        {"us=east": 2},
        None,
    )
    assert limits_after() == (None, {}, None)
    assert limits_after("--max", "4", "--zone", "us=east=2") == (4, {"us=east": 2}, None)
    assert limits_after("--descendants-max", "9") == (4, {"us=east": 2}, 9)
    assert limits_after("--max", "none", "--zone", "us=east=none") == (None, {}, 9)
    assert run("limit", child.id, "--max", "x").exit_code == 2
    table = run("limit", child.id).stdout
    assert "with accounts below" in table
