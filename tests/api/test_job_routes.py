"""The routes of jobs, transfers and of releases after an evacuation, and their commands."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.app import Instance
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.replies import failure, invalid, success
from tests.conftest import Member

OLD, NEW = "proxy1.example.com", "proxy9.example.com"
MOVE, EVACUATE = f"/v2/ips/hosts/{OLD}/move", f"/v2/ips/hosts/{OLD}/evacuate"
TRANSFER = "/v2/ips/transfer"


@pytest.fixture
def filled(load: Callable[..., None], services: Instance, alice: Member, child: Member) -> None:
    """Two addresses of Alice's on the old host, one available there, two elsewhere."""
    for n in (1, 2):
        load(kazoo_document(f"192.0.2.{n}", owner=alice.id))
    services.copies.repair(alice.id, ["192.0.2.1", "192.0.2.2"])
    load(kazoo_document("192.0.2.3"))
    load(*(kazoo_document(f"192.0.2.{n}", host="proxy2.example.com") for n in (4, 5)))


def done(services: Instance, api: TestApp, operator: Member, url: str) -> Any:
    """Carry out all jobs, and return the job at this URL."""
    while jobs := services.job_runner.unfinished():
        for job in jobs:
            services.job_runner.step(job)
    return success(
        api.get(url, headers=operator.headers, status=200), operator.token, page_size=3
    )  # fmt: skip


def post(api: TestApp, caller: Member, url: str, data: Any, status: int = 200, **more: str) -> Any:
    headers = {**caller.headers, **more}
    return api.post_json(url, {"data": data}, headers=headers, status=status)


def test_a_move_is_a_job_with_a_plan_before_it(
    api: TestApp, filled: None, services: Instance, operator: Member, alice: Member
) -> None:
    plan = post(api, operator, f"{MOVE}?dry_run=true", {"host": NEW}).json
    assert (plan["dry_run"], plan["data"]) == (
        True,
        {
            "host": OLD, "to_host": NEW, "total": 3, "zones": {"us-east": 3},
            "statuses": {"assigned": 2, "available": 1},
            "counts": [
                {"zone": "us-east", "status": "assigned", "addresses": 2},
                {"zone": "us-east", "status": "available", "addresses": 1},
            ],
        },
    )  # fmt: skip
    assert services.jobs.list() == []
    reply = post(api, operator, MOVE, {"host": NEW}, 202, **{"Idempotency-Key": "move-1"})
    job = reply.json["data"]
    assert reply.headers["Location"] == f"/v2/ips/jobs/{job['id']}"
    assert (job["state"], job["host"], job["to_host"]) == ("planning", OLD, NEW)
    again = post(api, operator, MOVE, {"host": NEW}, 202, **{"Idempotency-Key": "move-1"})
    assert again.json["data"] == job
    refused = post(api, operator, EVACUATE, {}, 409)
    assert failure(refused, operator.token, "job_exists")["id"] == job["id"]
    ended = done(services, api, operator, f"/v2/ips/jobs/{job['id']}")
    assert (ended["state"], ended["results"], ended["failed"]) == ("done", {"moved": 3}, 0)
    assert [item["result"] for item in ended["items"]] == ["moved"] * 3
    lines = api.get("/v2/ips", {"host": NEW, "status": "all"}, headers=operator.headers).json
    assert len(lines["data"]) == 3
    listed = api.get("/v2/ips/jobs", headers=operator.headers).json["data"]
    assert [each["id"] for each in listed] == [job["id"]]


@pytest.mark.parametrize("what", ["move", "evacuate"])
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_host_without_addresses_has_no_jobs(
    api: TestApp, filled: None, services: Instance, operator: Member, what: str, query: str
) -> None:
    data = {"host": NEW} if what == "move" else {}
    reply = post(api, operator, f"/v2/ips/hosts/nowhere/{what}{query}", data, 404).json
    assert (reply["message"], reply["data"]["cause"]) == ("bad_identifier", "nowhere")
    assert services.jobs.list() == []


def test_the_items_of_a_job_are_paged(
    api: TestApp, filled: None, services: Instance, operator: Member
) -> None:
    job = post(api, operator, MOVE, {"zone": "eu"}, 202).json["data"]
    url = f"/v2/ips/jobs/{job['id']}"
    done(services, api, operator, url)
    found, start = [], {}
    while True:
        body = api.get(url, {"page_size": "2", **start}, headers=operator.headers).json
        found += [item["ip"] for item in body["data"]["items"]]
        if "next_start_key" not in body:
            break
        start = {"start_key": body["next_start_key"]}
    assert sorted(found) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert api.get(url, {"failed": "true"}, headers=operator.headers).json["data"]["items"] == []
    api.get(url, {"start_key": "x"}, headers=operator.headers, status=400)


def test_the_jobs_are_paged(
    api: TestApp, load: Callable[..., None], services: Instance, operator: Member
) -> None:
    url, headers = "/v2/ips/jobs", operator.headers
    for n in range(3):
        load(kazoo_document(f"192.0.2.{n}", host=f"old{n}.example.com"))
        post(api, operator, f"/v2/ips/hosts/old{n}.example.com/move", {"host": NEW}, 202)
    first = api.get(url, {"page_size": "2"}, headers=headers).json
    rest = {"page_size": "2", "start_key": first["next_start_key"]}
    second = api.get(url, rest, headers=headers).json
    assert "next_start_key" not in second
    found = first["data"] + second["data"]
    assert [each["id"] for each in found] == [job.id for job in services.jobs.list()]
    assert len(found) == 3
    lines = api.get(url, headers={**headers, "Accept": "text/csv"}).text.splitlines()
    assert [line.split(",")[:4] for line in lines] == [
        ["id", "kind", "state", "host"],
        *([each["id"], "move", "planning", each["host"]] for each in found),
    ]


def test_an_evacuation_has_a_plan_and_ends_with_a_release(
    api: TestApp,
    filled: None,
    services: Instance,
    operator: Member,
    alice: Member,
    databases: Databases,
) -> None:
    plan = post(api, operator, f"{EVACUATE}?dry_run=true", {}).json["data"]
    zone = {"zone": "us-east", "needed": 2, "available": 2, "shortfall": 0}
    assert (plan["total"], plan["shortfall"], plan["zones"]) == (2, 0, [zone])
    assert {item["replaced_by"] for item in plan["items"]} == {"192.0.2.4", "192.0.2.5"}
    job = post(api, operator, EVACUATE, {}, 202).json["data"]
    while services.job_runner.unfinished():
        services.job_runner.step(services.job_runner.unfinished()[0])
    own = f"/v2/accounts/{alice.id}/ips"
    assert len(api.get(f"{own}/assigned", headers=alice.headers).json["data"]) == 4
    shown = api.get(f"{own}/192.0.2.1", headers=alice.headers).json["data"]
    assert shown["replaced_by"] in {"192.0.2.4", "192.0.2.5"}
    copy = databases.get(account_database(alice.id), "192.0.2.1")
    assert copy["pvt_request_id"] == job["request_id"]
    assert "pvt_replaced_by" not in copy
    both = api.delete_json(
        f"{own}?replaced=true", {"data": {"ips": ["192.0.2.1"]}}, headers=alice.headers, status=400
    )
    assert set(invalid(both, alice.token)) == {"replaced"}
    would = api.delete(f"{own}?replaced=true&dry_run=true", headers=alice.headers).json["data"]
    released = api.delete(f"{own}?replaced=true", headers=alice.headers).json["data"]
    assert sorted(would["ips"]) == sorted(released["ips"]) == ["192.0.2.1", "192.0.2.2"]
    kept = api.get(f"{own}/assigned", headers=alice.headers).json["data"]
    assert [line["ip"] for line in kept] == ["192.0.2.4", "192.0.2.5"]
    assert "pvt_replaced_by" not in databases.get("dedicated_ips", "192.0.2.1")


def test_a_job_is_stopped(
    api: TestApp, filled: None, services: Instance, operator: Member
) -> None:
    job = post(api, operator, MOVE, {"host": NEW}, 202).json["data"]
    url = f"/v2/ips/jobs/{job['id']}"
    would = api.delete(f"{url}?dry_run=true", headers=operator.headers).json["data"]
    assert would["state"] == "stopping"
    assert services.jobs.fetch(job["id"]).state == "planning"
    assert api.delete(url, headers=operator.headers).json["data"]["state"] == "stopping"
    while services.job_runner.unfinished():
        services.job_runner.step(services.job_runner.unfinished()[0])
    assert api.delete(url, headers=operator.headers).json["data"]["state"] == "stopped"
    assert api.get("/v2/ips", {"host": NEW}, headers=operator.headers).json["data"] == []


@pytest.mark.parametrize(
    ("data", "path"),
    [({}, "host"), ({"host": ""}, "host"), ({"zone": 7}, "zone"), ({"hosts": "x"}, "hosts")],
)
def test_an_invalid_move_is_refused(
    api: TestApp, pool: Any, operator: Member, data: Any, path: str
) -> None:
    assert path in invalid(post(api, operator, MOVE, data, 400), operator.token)


# Transfers


def give(alice: Member, to: Member, *ips: str) -> dict[str, Any]:
    return {"ips": list(ips), "from": alice.id, "to": to.id}


@pytest.mark.parametrize("ips", [["192.0.2.1"], ["192.0.2.2", "192.0.2.1"]])
def test_addresses_pass_from_account_to_account(
    api: TestApp, filled: None, operator: Member, alice: Member, bob: Member,
    databases: Databases, ips: list[str],
) -> None:  # fmt: skip
    data = give(alice, bob, *ips)
    dry = post(api, operator, f"{TRANSFER}?dry_run=true", data).json
    assert (dry["data"], dry["dry_run"]) == ({"ips": ips}, True)
    assert databases.find(account_database(bob.id), ips[0]) is None
    reply = post(api, operator, TRANSFER, data)
    assert success(reply, operator.token) == {"ips": ips}
    for ip in ips:
        document = databases.get("dedicated_ips", ip)
        assert (document["pvt_status"], document["pvt_assigned_to"]) == ("assigned", bob.id)
        assert databases.find(account_database(alice.id), ip) is None
        copy = databases.get(account_database(bob.id), ip)
        assert copy["pvt_request_id"] == document["pvt_request_id"]
    again = invalid(post(api, operator, TRANSFER, data, 400), operator.token)
    assert set(again) == {f"ips.{n}" for n in range(len(ips))}
    events = api.get(f"/v2/ips/{ips[0]}/history", headers=operator.headers).json["data"]
    request_id = databases.get("dedicated_ips", ips[0])["pvt_request_id"]
    [event] = [event for event in events if event.get("request_id") == request_id]
    assert event["event"] == "transferred"
    assert event["before"]["account_id"] == alice.id
    assert event["after"]["account_id"] == bob.id


def test_a_transfer_is_all_or_none(
    api: TestApp, filled: None, operator: Member, alice: Member, bob: Member, databases: Databases
) -> None:
    wrong = give(alice, bob, "192.0.2.1", "192.0.2.3", "203.0.113.9")
    errors = invalid(post(api, operator, TRANSFER, wrong, 400), operator.token)
    assert {path: set(rules) for path, rules in errors.items()} == {
        "ips.1": {"superfluous"}, "ips.2": {"not_found"},
    }  # fmt: skip
    assert databases.get("dedicated_ips", "192.0.2.1")["pvt_assigned_to"] == alice.id
    same = give(alice, alice, "192.0.2.1")
    assert set(invalid(post(api, operator, TRANSFER, same, 400), operator.token)) == {"to"}


def test_a_key_transfers_once(
    api: TestApp, filled: None, operator: Member, alice: Member, bob: Member
) -> None:
    data, key = give(alice, bob, "192.0.2.1"), {"Idempotency-Key": "give-1"}
    first = post(api, operator, TRANSFER, data, **key)
    back = give(bob, alice, "192.0.2.1")
    post(api, operator, TRANSFER, back)
    assert post(api, operator, TRANSFER, data, **key).json["data"] == first.json["data"]
    own = api.get(f"/v2/accounts/{alice.id}/ips/assigned", headers=alice.headers).json["data"]
    assert "192.0.2.1" in [line["ip"] for line in own]


def test_an_account_transfers_to_and_from_those_below_it_only(
    api: TestApp, filled: None, operator: Member, alice: Member, child: Member, bob: Member
) -> None:
    post(api, alice, TRANSFER, give(alice, child, "192.0.2.1"))
    post(api, alice, TRANSFER, give(child, alice, "192.0.2.1"))
    for caller, data in (
        (alice, give(alice, bob, "192.0.2.1")),
        (bob, give(alice, bob, "192.0.2.1")),
        (child, give(alice, child, "192.0.2.1")),
        (alice, {**give(alice, child, "192.0.2.1"), "to": "f" * 32}),
        (alice, {}),
    ):
        reply = post(api, caller, TRANSFER, data, 403)
        assert failure(reply, caller.token, "forbidden") == {"message": "forbidden"}
    unknown = {**give(alice, child, "192.0.2.1"), "to": "f" * 32}
    failure(post(api, operator, TRANSFER, unknown, 404), operator.token, "bad_identifier")


# Commands


def test_the_commands_move_evacuate_and_transfer(
    run: Callable[..., Any], filled: None, alice: Member, bob: Member, services: Instance
) -> None:
    planned = run("move", OLD, "--to-host", NEW, "--dry-run")
    assert planned.output.splitlines()[-1] == "3 addresses would move"
    printed = run("evacuate", OLD, "--dry-run", "--json").output
    plan = [json.loads(line) for line in printed.splitlines()]
    assert [each.get("shortfall") for each in plan] == [None, None, 0]
    moved = json.loads(run("move", OLD, "--to-host", NEW, "--json").output)
    assert (moved["state"], moved["results"]) == ("done", {"moved": 3})
    assert moved["id"] in run("jobs").output
    shown = run("jobs", moved["id"]).output
    assert "moved: 3" in shown
    evacuated = run("evacuate", NEW)
    assert evacuated.exit_code == 0
    assert "replaced: 2" in evacuated.output
    given = run("transfer", "192.0.2.1", "--from", alice.id, "--to", bob.id)
    assert given.output == f"transferred IP 192.0.2.1 to {bob.id}\n"
    refused = run("transfer", "192.0.2.3", "--from", alice.id, "--to", bob.id)
    assert (refused.exit_code, "192.0.2.3: ip not assigned" in refused.output) == (1, True)
    missing = run("job-stop", "0" * 32)
    assert (missing.exit_code, "no job" in missing.output) == (1, True)
    assert run("job-stop", moved["id"]).output == f"job {moved['id']}: done\n"
