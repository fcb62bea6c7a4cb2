"""The routes and commands that drain hosts, disable addresses and let them rest."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from webtest import TestApp

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from tests.api.couchdb import kazoo_document
from tests.api.replies import broken, failure, invalid, success
from tests.conftest import Member
from tests.emptying import remove_place_settings

FREE, NEXT = "192.0.2.1", "192.0.2.2"
ZONE, HOST = "/v2/ips/zones/us-east", "/v2/ips/hosts/proxy1.example.com"


@pytest.fixture(autouse=True)
def two(load: Callable[..., None], wsgi: Any, couch: Couch, services: Instance) -> Iterator[None]:
    """Two available addresses of one host."""
    load(kazoo_document(FREE), kazoo_document(NEXT))
    yield
    remove_place_settings(couch, services, wsgi.extensions["kazoo_ips"])


@pytest.fixture
def patch(api: TestApp, operator: Member) -> Callable[..., Any]:
    """A function that sends a PATCH as the operator."""

    def send(path: str, status: int = 200, **data: Any) -> Any:
        body = {"data": data}
        return api.patch_json(path, body, headers=operator.headers, status=status)

    return send


def test_a_zone_shows_its_settings_and_how_many_addresses_it_has(
    api: TestApp, patch: Callable[..., Any], operator: Member
) -> None:
    shown = success(api.get(ZONE, headers=operator.headers), operator.token)
    assert shown == {
        "zone": "us-east", "total": 2, "counts": {"available": 2}, "used": 0.0, "enabled": True,
        "pending": 0, "aging_seconds": 0, "when_empty": "wait",
    }  # fmt: skip
    changed = success(patch(ZONE, aging_seconds=60, when_empty="oldest"), operator.token)
    assert changed == {**shown, "aging_seconds": 60, "when_empty": "oldest"}
    assert success(patch(ZONE), operator.token) == changed


@pytest.mark.parametrize("percent", [0, 50])
def test_a_zone_has_a_percentage_of_its_own_at_which_it_is_low(
    patch: Callable[..., Any], operator: Member, services: Instance, percent: int
) -> None:
    changed = success(patch(ZONE, low_percent=percent), operator.token)
    assert changed["low_percent"] == percent
    assert success(patch(ZONE, aging_seconds=60), operator.token)["low_percent"] == percent
    assert services.low_zones._marks.percentages() == {"us-east": percent}


def test_a_release_in_a_zone_with_aging_says_when_the_address_is_available(
    api: TestApp, patch: Callable[..., Any], alice: Member, bob: Member
) -> None:
    patch(ZONE, aging_seconds=60)
    path = f"/v2/accounts/{alice.id}/ips/{FREE}"
    api.post(path, headers=alice.headers)
    released = success(api.delete(path, headers=alice.headers), alice.token)
    assert released["status"] == "aging"
    until = released["available_at"]
    refused = api.post(f"/v2/accounts/{bob.id}/ips/{FREE}", headers=bob.headers, status=400)
    rule = invalid(refused, bob.token)["ips.0"]["forbidden"]
    assert rule["message"].startswith("ip is resting until ")
    body = {"data": {"quantity": 2}}
    reply = api.post_json(f"/v2/accounts/{bob.id}/ips", body, headers=bob.headers, status=409)
    assert failure(reply, bob.token, "insufficient_ips") == {
        "requested": 2, "available": 1, "aging": 1, "next_at": until,
        "message": "not enough ips available",
    }  # fmt: skip


def test_addresses_of_a_drained_host_are_not_assigned_and_the_error_has_the_reason(
    api: TestApp, patch: Callable[..., Any], alice: Member, operator: Member
) -> None:
    drained = success(patch(HOST, enabled=False, reason="proxy goes"), operator.token)
    assert drained["counts"] == {"disabled": 2}
    assert (drained["enabled"], drained["pending"]) == (False, 0)
    assert drained["disabled"]["reason"] == "proxy goes"
    assert drained["disabled"]["by"]["account_id"] == operator.id
    reply = api.post(f"/v2/accounts/{alice.id}/ips/{FREE}", headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == broken(
        "ips.0", "forbidden", "ip is disabled", value=FREE
    )
    body = {"data": {"ip": "192.0.2.9", "zone": "eu", "host": "proxy1.example.com"}}
    created = api.put_json("/v2/ips", body, headers=operator.headers, status=201)
    assert created.json["data"]["status"] == "disabled"
    listed = api.get("/v2/ips?status=disabled", headers=operator.headers)
    assert [line["status"] for line in listed.json["data"]] == ["disabled"] * 3
    enabled = success(patch(HOST, enabled=True), operator.token)
    assert enabled["counts"] == {"available": 3}


@pytest.mark.parametrize(
    ("path", "data", "rules"),
    [
        (HOST, {"enabled": False}, {"reason": "required"}),
        (HOST, {"enabled": "perhaps", "reason": "x"}, {"enabled": "type"}),
        (HOST, {"aging_seconds": 5}, {"aging_seconds": "additionalProperties"}),
        (ZONE, {"aging_seconds": -1}, {"aging_seconds": "minimum"}),
        (ZONE, {"low_percent": -1}, {"low_percent": "minimum"}),
        (ZONE, {"low_percent": 91}, {"low_percent": "maximum"}),
        (HOST, {"low_percent": 5}, {"low_percent": "additionalProperties"}),
        (ZONE, {"aging_seconds": 10**9}, {"aging_seconds": "maximum"}),
        (ZONE, {"when_empty": "never"}, {"when_empty": "enum"}),
        (ZONE, {"enabled": False, "reason": "\x00"}, {"reason": "pattern"}),
    ],
    ids=str,
)
def test_an_invalid_setting_is_refused(
    patch: Callable[..., Any],
    operator: Member,
    path: str,
    data: dict[str, Any],
    rules: dict[str, str],
) -> None:
    found = invalid(patch(path, status=400, **data), operator.token)
    assert {name: next(iter(each)) for name, each in found.items()} == rules


@pytest.mark.parametrize("path", ["/v2/ips/zones/nowhere", "/v2/ips/hosts/nowhere"])
def test_a_place_without_addresses_is_unknown(
    api: TestApp, patch: Callable[..., Any], operator: Member, path: str
) -> None:
    for reply in (
        api.get(path, headers=operator.headers, status=404),
        patch(path, status=404, enabled=False, reason="x"),
    ):
        assert failure(reply, operator.token, "bad_identifier")["cause"] == "nowhere"


# Commands.


@pytest.fixture
def command(run: Callable[..., Result]) -> Callable[..., tuple[int, str]]:
    """A function that runs a command and returns its exit status and output."""

    def exit_code_and_output(*arguments: str) -> tuple[int, str]:
        result = run(*arguments)
        return result.exit_code, result.stdout

    return exit_code_and_output


def test_the_commands_drain_and_enable_a_host(command: Callable[..., tuple[int, str]]) -> None:
    options = ("--host", "proxy1.example.com")
    drain = ("drain", *options, "--reason", "proxy goes")
    assert command(*drain, "--dry-run") == (
        0,
        "host proxy1.example.com would be drained; 2 disabled\n",
    )
    assert command(*drain) == (0, "host proxy1.example.com is drained; 2 disabled\n")
    status, shown = command(*drain, "--json")
    assert (status, json.loads(shown)["counts"]) == (0, {"disabled": 2})
    assert command("enable", *options) == (0, "host proxy1.example.com is enabled; 2 available\n")


def test_the_commands_disable_and_enable_an_address(
    command: Callable[..., tuple[int, str]],
) -> None:
    assert command("disable", FREE, "--reason", "listed") == (0, f"IP {FREE} is disabled\n")
    status, shown = command("enable", FREE, "--json")
    assert (status, json.loads(shown)["status"]) == (0, "available")
    assert command("age", FREE, "--reason", "asked")[0] == 1
    aged = command("age", "--zone", "us-east", "--seconds", "60")
    assert aged == (0, "zone us-east is enabled; addresses rest for 60 s; 2 available\n")
    assert command("age", "--zone", "us-east", "--seconds", "0")[0] == 0


def test_a_command_says_which_rule_is_broken(run: Callable[..., Result]) -> None:
    said = run("age", FREE, "--reason", "asked").stderr
    assert said == "unable to end the rest of IP: ip is not resting\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("drain", "--reason", "x"),
        ("drain", "--host", "h", "--zone", "z", "--reason", "x"),
        ("enable", FREE, "--host", "h"),
        ("age",),
    ],
    ids=" ".join,
)
def test_a_command_without_exactly_one_target_is_refused(
    command: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    assert command(*arguments)[0] == 2
