"""Documents whose zone, host or account is not text: every list shows them, and none fails."""

import json
from typing import Any

import pytest
from click.testing import CliRunner
from webtest import TestApp

from kazoo_ips.cli import cli
from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.lists import ListRepository
from tests.api.couchdb import kazoo_document
from tests.api.replies import success

VALUES = {"null": None, "number": 7, "zero": 0, "true": True, "list": ["x"], "object": {"a": 1}}
SHOWN = {"null": "", "number": "7", "zero": "0", "true": "True", "list": "['x']"} | {
    "object": "{'a': 1}"
}
ADDRESS, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture(params=VALUES)
def kind(request: pytest.FixtureRequest, load: Any) -> str:
    """Load a document with such values in its fields, and one of Kazoo's; return their kind."""
    value = VALUES[request.param]
    load(
        kazoo_document(ADDRESS, pvt_zone=value, pvt_host=value),
        kazoo_document(OTHER),
        kazoo_document("192.0.2.3", pvt_status="assigned", pvt_assigned_to=value),
    )
    return str(request.param)


PATHS = [
    "/v2/ips",
    "/v2/ips?status=all",
    "/v2/ips?status=all&page_size=1",
    "/v2/ips?status=all&cidr=192.0.2.0/24",
    "/v2/ips?status=all&family=4",
    "/v2/ips?status=all&modified_from=1",
    "/v2/ips?paginate=false",
    "/v2/ips/assigned",
    "/v2/ips/zones",
    "/v2/ips/hosts",
]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("path", PATHS)
def test_every_list_can_be_read(
    api: TestApp, kind: str, operator: Any, path: str, accept: str
) -> None:
    headers = {**operator.headers, "Accept": accept}
    reply = api.get(path, headers=headers, status=200)
    if accept == "application/json" and "?" in path:
        texts = [v for line in reply.json["data"] for v in line.values()]
        assert all(v is None or isinstance(v, str) for v in texts)


def test_a_walk_through_all_pages_shows_each_address_once(
    api: TestApp, kind: str, operator: Any
) -> None:
    found: list[str] = []
    start = ""
    while len(found) < 4:
        reply = api.get(
            f"/v2/ips?status=all&page_size=1{start}", headers=operator.headers, status=200
        )
        found += [line["ip"] for line in reply.json["data"]]
        if "next_start_key" not in reply.json:
            break
        start = f"&start_key={reply.json['next_start_key']}"
    assert sorted(found) == [ADDRESS, OTHER, "192.0.2.3"]


def test_the_names_are_shown_as_text(api: TestApp, kind: str, operator: Any) -> None:
    reply = api.get(f"/v2/ips/{ADDRESS}", headers=operator.headers, status=200)
    shown = success(reply, operator.token)
    assert (shown["zone"], shown["host"]) == (SHOWN[kind], SHOWN[kind])
    lines = api.get("/v2/ips?status=all", headers=operator.headers, status=200).json["data"]
    assert {(line["ip"], line["zone"]) for line in lines} >= {(ADDRESS, SHOWN[kind])}


def test_commands_show_them_and_they_are_counted(
    kind: str, couch: Couch, environment: dict[str, str]
) -> None:
    runner = CliRunner(env=environment)
    for arguments in (["summary"], ["summary", "--json"], ["doctor"], ["doctor", "--json"]):
        done = runner.invoke(cli, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    printed = runner.invoke(cli, ["summary", "--json"]).stdout.splitlines()
    assert {json.loads(line)["ip"] for line in printed} == {ADDRESS, OTHER, "192.0.2.3"}
    assert ListRepository(couch).counts()[SHOWN[kind], "available"] == 1


@pytest.mark.parametrize("spread", ["distinct_hosts", "distinct_zones"])
def test_an_allocation_is_spread_over_the_places_that_have_a_name(
    api: TestApp, kind: str, alice: Any, spread: str
) -> None:
    path, body = f"/v2/accounts/{alice.id}/ips", {"data": {"quantity": 1, spread: True}}
    reply = api.post_json(path, body, headers=alice.headers, status=200)
    assert success(reply, alice.token) == {"ips": [OTHER]}


def test_such_an_address_can_be_assigned_and_released(api: TestApp, kind: str, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips/{ADDRESS}"
    reply = api.post(path, headers=alice.headers, status=200)
    assert success(reply, alice.token)["zone"] == SHOWN[kind]
    api.delete(path, headers=alice.headers, status=200)


def test_an_owner_that_is_no_account_id_is_no_owner(
    api: TestApp, kind: str, operator: Any, alice: Any
) -> None:
    path = "/v2/ips/192.0.2.3"
    shown = success(api.get(path, headers=operator.headers, status=200), operator.token)
    assert "assigned_to" not in shown or shown["assigned_to"] is None
    api.post(f"/v2/accounts/{alice.id}/ips/192.0.2.3", headers=alice.headers, status=400)
    api.delete(f"{path}?force=true", headers=operator.headers, status=200)
