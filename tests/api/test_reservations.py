"""Reservations through the API and the commands."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from webtest import TestApp

from kazoo_ips.model import DedicatedIP
from tests.api.replies import failure, invalid, success
from tests.conftest import Member

Add = Callable[..., DedicatedIP]


@pytest.fixture
def path(add: Add, child: Member) -> str:
    """The path of the child account's addresses. The pool has four available addresses."""
    for number in range(1, 5):
        add(f"192.0.2.{number}", host=f"proxy{number % 2}.example.com")
    return f"/v2/accounts/{child.id}/ips"


def test_a_reservation_is_made_shown_extended_and_assigned(
    api: TestApp, child: Member, bob: Member, path: str
) -> None:
    headers = child.headers
    data = {"quantity": 2, "distinct_hosts": True, "seconds": 600}
    reply = api.put_json(f"{path}/reservations", {"data": data}, headers=headers, status=201)
    made = success(reply, child.token)
    assert made["expires_at"] - made["created"] == 600
    one = f"{path}/reservations/{made['id']}"
    assert success(api.get(one, headers=headers), child.token) == made
    assert made in api.get(f"{path}/reservations", headers=headers).json["data"]
    reply = api.get(f"/v2/accounts/{bob.id}/ips", headers=bob.headers)
    assert not {line["ip"] for line in reply.json["data"]} & {*made["ips"]}
    longer = api.patch_json(one, {"data": {"seconds": 1200}}, headers=headers).json["data"]
    assert longer["expires_at"] >= made["created"] + 1200
    body = {"data": {"reservation": made["id"]}}
    assert api.post_json(path, body, headers=headers).json["data"] == {"ips": made["ips"]}
    reply = api.post_json(path, body, headers=headers, status=409)
    assert failure(reply, child.token, "reservation_expired")
    assert api.get(one, headers=headers, status=404).json["message"] == "bad_identifier"


def test_a_reservation_is_cancelled(api: TestApp, child: Member, path: str) -> None:
    body = {"data": {"ips": ["192.0.2.1"]}}
    made = api.put_json(f"{path}/reservations", body, headers=child.headers).json["data"]
    reply = api.put_json(f"{path}/reservations", body, headers=child.headers, status=400)
    assert "forbidden" in invalid(reply, child.token)["ips.0"]
    one = f"{path}/reservations/{made['id']}"
    assert success(api.delete(one, headers=child.headers), child.token) == made
    api.delete(one, headers=child.headers, status=404)
    api.put_json(f"{path}/reservations", body, headers=child.headers, status=201)


def test_the_reservations_of_an_account_are_paged(api: TestApp, child: Member, path: str) -> None:
    url, headers = f"{path}/reservations", child.headers
    made = [
        api.put_json(url, {"data": {"ips": [f"192.0.2.{n}"]}}, headers=headers).json["data"]
        for n in range(1, 5)
    ]
    found, start = [], {}
    while True:
        page = api.get(url, {"page_size": "3", **start}, headers=headers).json
        assert len(page["data"]) == page["page_size"] <= 3
        found += page["data"]
        if "next_start_key" not in page:
            break
        start = {"start_key": page["next_start_key"]}
    assert found == sorted(made, key=lambda each: (each["created"], each["id"]))
    assert api.get(url, {"paginate": "false"}, headers=headers).json["data"] == found
    api.get(url, {"start_key": "x"}, headers=headers, status=400)
    lines = api.get(url, headers={**headers, "Accept": "text/csv"}).text.splitlines()
    assert lines[0] == "id,ips,created,expires_at,expires_at_iso_8601"
    assert [line.split(",")[:2] for line in lines[1:]] == [[e["id"], *e["ips"]] for e in found]


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        ({"quantity": 1, "ips": ["192.0.2.1"]}, "quantity"),
        ({"quantity": 1, "seconds": 86_401}, "seconds"),
        ({"quantity": 1, "seconds": 0}, "seconds"),
        ({"quantity": 1, "ttl": 5}, "ttl"),
        ({}, "quantity"),
    ],
)
def test_an_invalid_reservation_is_refused(
    api: TestApp, child: Member, path: str, data: Any, broken: str
) -> None:
    reply = api.put_json(f"{path}/reservations", {"data": data}, headers=child.headers, status=400)
    assert broken in invalid(reply, child.token)


def test_a_key_gives_the_same_reservation_again(api: TestApp, child: Member, path: str) -> None:
    headers = {**child.headers, "Idempotency-Key": "reserve-once"}
    body = {"data": {"quantity": 1}}
    first, again = (
        api.put_json(f"{path}/reservations", body, headers=headers, status=201).json["data"]
        for _ in range(2)
    )
    assert first == again
    listed = api.get(f"{path}/reservations", headers=child.headers).json["data"]
    assert [each["id"] for each in listed].count(first["id"]) == 1


def test_the_commands_reserve_and_assign(
    run: Callable[..., Result], child: Member, path: str
) -> None:
    def reserve(*arguments: str, status: int = 0) -> str:
        done = run("reserve", *arguments)
        assert done.exit_code == status, done.output
        return done.stdout

    made = json.loads(reserve("create", child.id, "--quantity", "2", "--json").splitlines()[-1])
    assert len(made["ips"]) == 2
    assert made["id"] in reserve("list", child.id)
    reserve("extend", child.id, made["id"], "--seconds", "60")
    assert "would assign IP" in reserve("assign", child.id, made["id"], "--dry-run")
    reserve("cancel", child.id, made["id"])
    reserve("cancel", child.id, made["id"], status=1)
    reserve("create", child.id, "192.0.2.1", "--quantity", "2", status=2)
