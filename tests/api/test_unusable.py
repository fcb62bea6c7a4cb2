"""Addresses that no proxy can have are not added. Those in the pool are never assigned."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner
from webtest import TestApp

from kazoo_ips.api import bodies, openapi
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.model import addresses
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.replies import broken, failure, invalid, page, success
from tests.strategies import UNUSABLE

FEW = ["0.0.0.0", "127.0.0.1", "255.255.255.255", "::", "::192.0.2.1", "fe80::1"]
GOOD = {"zone": "us-east", "host": "proxy1.example.com"}


def in_pool(databases: Databases) -> list[str]:
    rows = databases("GET", "dedicated_ips", "/_all_docs")["rows"]
    return [row["id"] for row in rows if not row["id"].startswith("_design/")]


@pytest.mark.parametrize("address", UNUSABLE)
def test_the_api_refuses_an_unusable_address(
    api: TestApp, pool: Any, databases: Databases, operator: Any, address: str
) -> None:
    refusal = {"value": address, "cause": f"it is {UNUSABLE[address]}"}
    one = {"ip": address, **GOOD}
    for data, path in ((one, "ip"), ({"ips": [{"ip": "192.0.2.1", **GOOD}, one]}, "ips.1.ip")):
        reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=400)
        assert invalid(reply, operator.token) == broken(
            path, "not_one_schema_valid", "failed to validate", **refusal
        )
    assert in_pool(databases) == []


@pytest.mark.parametrize("address", UNUSABLE)
def test_the_description_of_the_api_excludes_unusable_addresses(address: str) -> None:
    schema = openapi.json_schema(bodies.CreateIPSchema)
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    mapped = ":" in address and ":" not in (addresses.canonical(address) or "")
    assert validator.is_valid({"ip": address, **GOOD}) == mapped
    for good in ("192.0.2.1", "10.0.0.1", "223.1.1.1", "2001:db8::1", "::ffff:192.0.2.1"):
        assert validator.is_valid({"ip": good, **GOOD})


@pytest.mark.parametrize("address", FEW)
def test_a_command_refuses_an_unusable_address(
    environment: dict[str, str], pool: Any, databases: Databases, address: str
) -> None:
    add = ["add", address, "us-east", "proxy1.example.com"]
    done = CliRunner(env=environment).invoke(cli, add)
    why = f"it is {UNUSABLE[address]}"
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"unable to add IP {address}: invalid_address: {why}\n"
    done = CliRunner(env=environment).invoke(cli, [*add, "--dry-run"])
    assert (done.exit_code, done.stderr) == (1, f"unable to add IP {address}: {why}\n")
    assert in_pool(databases) == []


def test_an_import_skips_an_unusable_address(
    environment: dict[str, str], pool: Any, databases: Databases
) -> None:
    given = [*FEW, "126.255.255.255-127.0.0.1", "192.0.2.1"]
    lines = "".join(f"{each},us-east,proxy1.example.com\n" for each in given)
    done = CliRunner(env=environment).invoke(cli, ["add", "--from", "-", "--json"], input=lines)
    *reports, total = map(json.loads, done.stdout.splitlines())
    assert (done.exit_code, total) == (1, {"sum": {"invalid": len(FEW) + 1, "added": 1}})
    reasons = [report.get("reason") for report in reports]
    assert reasons == [
        *(f"it is {UNUSABLE[each]}" for each in FEW), "it contains a loopback address", None,
    ]  # fmt: skip
    assert in_pool(databases) == ["192.0.2.1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_unusable_address_in_the_pool_is_shown_and_never_assigned(
    api: TestApp, load: Callable[..., None], alice: Any, address: str
) -> None:
    load(kazoo_document(address), kazoo_document("192.0.2.1"))
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(f"{path}/{address}", headers=alice.headers, status=200)
    assert success(reply, alice.token)["status"] == "available"
    why = "ip cannot be assigned: it is a loopback address"
    reply = api.post(f"{path}/{address}", headers=alice.headers, status=400)
    assert invalid(reply, alice.token) == broken("ips.0", "forbidden", why, value=address)
    for items in ([address], [address, "192.0.2.1"]):
        reply = api.post_json(path, {"data": {"ips": items}}, headers=alice.headers, status=400)
        assert invalid(reply, alice.token) == broken("ips.0", "forbidden", why, value=address)
    body = {"data": {"quantity": 2}}
    reply = api.post_json(path, body, headers=alice.headers, status=409)
    assert failure(reply, alice.token, "insufficient_ips")["available"] == 1
    reply = api.post_json(path, {"data": {"quantity": 1}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": ["192.0.2.1"]}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_an_unusable_address_of_an_account_is_listed_released_and_deleted(
    api: TestApp, load: Any, databases: Databases, operator: Any, alice: Any, address: str
) -> None:
    document = kazoo_document(address, owner=alice.id)
    load(document)
    databases.put(account_database(alice.id), document)
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(f"{path}/assigned", headers=alice.headers, status=200)
    assert [line["ip"] for line in page(reply, alice.token)] == [address]
    reply = api.delete_json(path, {"data": {"ips": [address]}}, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [address]}
    assert databases.find(account_database(alice.id), address) is None
    api.delete(f"/v2/ips/{address}", headers=operator.headers, status=200)
    assert in_pool(databases) == []


def test_the_doctor_reports_an_unusable_address(load: Any, services: Instance) -> None:
    load(kazoo_document("127.0.0.1"), kazoo_document("fe80::1"), kazoo_document("192.0.2.1"))
    found = [(f.problem, f.address, f.repaired) for f in services.doctor.examine(repair=True)]
    assert sorted(found) == [("unusable", "127.0.0.1", False), ("unusable", "fe80::1", False)]


def test_the_command_says_why_an_unusable_address_is_not_assigned(
    environment: dict[str, str], load: Any, alice: Any
) -> None:
    load(kazoo_document("127.0.0.1"))
    done = CliRunner(env=environment).invoke(cli, ["assign", "127.0.0.1", alice.id])
    why = "ip cannot be assigned: it is a loopback address"
    assert (done.exit_code, done.stderr) == (1, f"unable to assign IP: {why}\n")
