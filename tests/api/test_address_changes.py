"""`PATCH /v2/ips/{ip}`: zone, host and notes of an address, and the lists by label."""

from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import AssignIP, Attempt, DisableIP, EnableIP
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.replies import failure, invalid, page, success
from tests.conftest import Member

ADDRESS = "203.0.113.201"
"""Other tests write to the usual addresses, some with a clock that is ahead. Their events would
come first."""
URL = f"/v2/ips/{ADDRESS}"
RESOURCE = {
    "id": ADDRESS, "ip": ADDRESS, "zone": "us-east", "host": "proxy1.example.com",
    "status": "available", "type": "dedicated_ip",
}  # fmt: skip


class Patch:
    """Sends changes as the operator."""

    def __init__(self, api: TestApp, operator: Member) -> None:
        self._api = api
        self.operator = operator

    def __call__(self, data: Any, status: int = 200, url: str = URL, **headers: str) -> Any:
        return self._api.patch_json(
            url, {"data": data}, headers={**self.operator.headers, **headers}, status=status
        )

    def done(self, data: Any, **headers: str) -> Any:
        """The `data` of a change that succeeds."""
        return success(self(data, **headers), self.operator.token)

    def refused(self, data: Any) -> Any:
        """The broken rules of a change that is refused."""
        return invalid(self(data, 400), self.operator.token)


@pytest.fixture
def patch(api: TestApp, operator: Member) -> Patch:
    return Patch(api, operator)


@pytest.fixture
def assigned(load: Callable[..., None], services: Instance, alice: Member) -> str:
    """An address of Alice's, and its revision."""
    load(kazoo_document(ADDRESS))
    return services.ips.assign(AssignIP(alice.id, ADDRESS), "assign").revision or ""


# Changes


def test_members_that_are_missing_stay(load: Any, patch: Patch, databases: Databases) -> None:
    load(kazoo_document(ADDRESS))
    assert patch.done({"zone": "eu"}) == {**RESOURCE, "zone": "eu"}
    assert patch.done({"description": "moves in May"}) == {
        **RESOURCE, "zone": "eu", "description": "moves in May",
    }  # fmt: skip
    patch.done({"labels": {"carrier": "example", "ticket": "7"}})
    assert patch.done({"host": "b", "labels": {"ticket": None, "team": "voice"}}) == {
        **RESOURCE, "zone": "eu", "host": "b", "description": "moves in May",
        "labels": {"carrier": "example", "team": "voice"},
    }  # fmt: skip
    document = databases.get("dedicated_ips", ADDRESS)
    assert (document["description"], document["labels"]) == (
        "moves in May", {"carrier": "example", "team": "voice"},
    )  # fmt: skip
    assert patch.done({"description": None, "labels": None}) == {
        **RESOURCE, "zone": "eu", "host": "b",
    }  # fmt: skip
    assert not {"description", "labels"} & databases.get("dedicated_ips", ADDRESS).keys()


def test_the_notes_are_in_the_operators_view_only(
    api: TestApp, assigned: str, patch: Patch, alice: Member, databases: Databases
) -> None:
    notes = {"description": "bad payer", "labels": {"carrier": "example"}}
    owned = {**RESOURCE, "status": "assigned", "assigned_to": alice.id}
    assert patch.done(notes) == {**owned, **notes}
    assert success(api.get(URL, headers=patch.operator.headers), patch.operator.token) == {
        **owned, **notes,
    }  # fmt: skip
    own = api.get(f"/v2/accounts/{alice.id}/ips/{ADDRESS}", headers=alice.headers)
    assert success(own, alice.token) == owned
    copy = databases.get(account_database(alice.id), ADDRESS)
    assert not {"description", "labels"} & copy.keys()


def test_the_notes_survive_the_writes_of_the_service_and_of_kazoo(
    services: Instance, assigned: str, patch: Patch, databases: Databases, alice: Member
) -> None:
    patch.done({"description": "note", "labels": {"a": "1"}})
    databases.change("dedicated_ips", ADDRESS, pvt_status="available", pvt_assigned_to=None)
    services.ips.assign(AssignIP(alice.id, ADDRESS), "again")
    document = databases.get("dedicated_ips", ADDRESS)
    assert (document["description"], document["labels"]) == ("note", {"a": "1"})


def test_values_of_unexpected_types_from_other_programs_are_kept(
    load: Any, patch: Patch, databases: Databases
) -> None:
    load(kazoo_document(ADDRESS, description=["x"], labels=[1]))
    assert patch.done({"zone": "eu"}) == {**RESOURCE, "zone": "eu"}
    document = databases.get("dedicated_ips", ADDRESS)
    assert (document["description"], document["labels"]) == (["x"], [1])


def test_a_change_that_changes_nothing_writes_nothing(
    load: Any, patch: Patch, databases: Databases
) -> None:
    load(kazoo_document(ADDRESS))
    patch.done({"labels": {"a": "1"}})
    revision = databases.get("dedicated_ips", ADDRESS)["_rev"]
    for same in ({}, {"zone": "us-east"}, {"labels": {"a": "1", "b": None}}, {"description": ""}):
        assert patch.done(same) == {**RESOURCE, "labels": {"a": "1"}}
    assert databases.get("dedicated_ips", ADDRESS)["_rev"] == revision


# An assigned address


def test_an_assigned_address_moves_with_if_match_and_its_copy_follows(
    assigned: str, patch: Patch, databases: Databases, alice: Member
) -> None:
    for place in ({"zone": "eu"}, {"host": "b"}):
        reply = patch(place, 428)
        failure(reply, patch.operator.token, "precondition_required")
    failure(patch({"zone": "eu"}, 412, **{"If-Match": '"1-a"'}), patch.operator.token,
            "precondition_failed")  # fmt: skip
    moved = patch.done({"zone": "eu", "host": "b"}, **{"If-Match": f'"{assigned}"'})
    assert moved == {
        **RESOURCE, "zone": "eu", "host": "b", "status": "assigned", "assigned_to": alice.id,
    }  # fmt: skip
    document = databases.get("dedicated_ips", ADDRESS)
    copy = databases.get(account_database(alice.id), ADDRESS)
    fields = ("pvt_zone", "pvt_host", "pvt_request_id", "pvt_modified", "pvt_assigned_to")
    assert {f: copy[f] for f in fields} == {f: document[f] for f in fields}
    patch.done({"labels": {"a": "1"}})  # the notes need no If-Match
    copy = databases.get(account_database(alice.id), ADDRESS)
    assert copy["pvt_request_id"] == databases.get("dedicated_ips", ADDRESS)["pvt_request_id"]


def test_a_change_is_an_event_of_the_history_with_the_state_before_and_after(
    api: TestApp, assigned: str, patch: Patch, alice: Member
) -> None:
    patch.done({"zone": "eu", "host": "b"}, **{"If-Match": "*"})
    # The document names a creation years ago. Events of earlier tests are later than that.
    events = api.get(f"{URL}/history", headers=patch.operator.headers).json["data"][:2]
    assert [each["event"] for each in events] == ["changed", "assigned"]
    owned = {"status": "assigned", "account_id": alice.id}
    before = {**owned, "zone": "us-east", "host": "proxy1.example.com"}
    assert (events[0]["before"], events[0]["after"]) == (
        before, {**owned, "zone": "eu", "host": "b"},
    )  # fmt: skip
    assert events[1]["after"] == before
    assert "account_id" not in events[0]
    tenures = api.get(f"/v2/accounts/{alice.id}/ips/history", headers=alice.headers).json["data"]
    assert [(each["ip"], "until" in each) for each in tenures[:1]] == [(ADDRESS, False)]


def test_a_released_address_can_be_changed_between(
    services: Instance, couch: Couch, assigned: str, patch: Patch, api: TestApp, alice: Member
) -> None:
    patch.done({"host": "b"}, **{"If-Match": "*"})
    api.delete(f"/v2/accounts/{alice.id}/ips/{ADDRESS}", headers=alice.headers, status=200)
    patch.done({"host": "c"})
    api.post(f"/v2/accounts/{alice.id}/ips/{ADDRESS}", headers=alice.headers, status=200)
    events = api.get(f"{URL}/history", headers=patch.operator.headers).json["data"][:5]
    assert [each["event"] for each in events] == [
        "assigned", "changed", "released", "changed", "assigned",
    ]  # fmt: skip
    assert [each["after"]["host"] for each in events] == [
        "c", "c", "b", "b", "proxy1.example.com",
    ]  # fmt: skip


# Disabling


def test_a_disabled_address_says_why_and_since_when_until_it_is_enabled(
    api: TestApp, load: Any, patch: Patch, alice: Member, databases: Databases
) -> None:
    load(kazoo_document(ADDRESS))
    disabled = patch.done({"enabled": False, "reason": "on a block list"})
    mark = databases.get("dedicated_ips", ADDRESS)["pvt_disabled"]
    by = {"account_id": patch.operator.id, "user_id": disabled["disabled"]["by"]["user_id"]}
    assert disabled == {
        **RESOURCE, "status": "disabled",
        "disabled": {"reason": "on a block list", "at": mark["at"], "by": by, "scope": "ip"},
    }  # fmt: skip
    assert api.get(URL, headers=patch.operator.headers).json["data"] == disabled
    own = f"/v2/accounts/{alice.id}/ips/{ADDRESS}"
    assert invalid(api.post(own, headers=alice.headers, status=400), alice.token)["ips.0"]
    seen = api.get(own, headers=alice.headers).json["data"]
    assert seen == {**RESOURCE, "status": "disabled"}
    assert patch.done({"enabled": True, "reason": "removed from it"}) == RESOURCE
    events = api.get(f"{URL}/history", headers=patch.operator.headers).json["data"][:2]
    assert [(each["event"], each["reason"]) for each in events] == [
        ("enabled", "removed from it"), ("disabled", "on a block list"),
    ]  # fmt: skip


def test_an_assigned_address_that_is_disabled_stays_so_and_is_disabled_when_it_is_released(
    api: TestApp, assigned: str, patch: Patch, alice: Member, databases: Databases
) -> None:
    copy = databases.get(account_database(alice.id), ADDRESS)
    failure(patch({"enabled": False, "reason": "listed"}, 412, **{"If-Match": '"1-a"'}),
            patch.operator.token, "precondition_failed")  # fmt: skip
    if_match = {"If-Match": f'"{assigned}"'}
    disabled = patch.done({"enabled": False, "reason": "listed"}, **if_match)
    assert (disabled["status"], disabled["disabled"]["scope"]) == ("assigned", "ip")
    own = f"/v2/accounts/{alice.id}/ips/{ADDRESS}"
    assert "disabled" not in api.get(own, headers=alice.headers).json["data"]
    assert databases.get(account_database(alice.id), ADDRESS) == copy
    released = success(api.delete(own, headers=alice.headers), alice.token)
    assert released == {**RESOURCE, "status": "disabled"}


def test_a_key_returns_the_first_result_of_disabling(load: Any, patch: Patch) -> None:
    load(kazoo_document(ADDRESS))
    key = {"Idempotency-Key": "disable-it"}
    first = patch({"enabled": False, "reason": "listed"}, **key).json["data"]
    patch.done({"enabled": True})
    assert patch({"enabled": False, "reason": "listed"}, **key).json["data"] == first
    assert patch.done({}) == RESOURCE


def test_a_repeated_attempt_returns_what_the_earlier_one_has_done(
    services: Instance, load: Any, alice: Member
) -> None:
    load(kazoo_document(ADDRESS))
    changes, again = services.operator_changes, {"attempt": Attempt("key", 2)}
    first = changes.disable(DisableIP(ADDRESS, "listed"), "one")
    repeated = changes.disable(DisableIP(ADDRESS, "listed"), "one", **again)
    assert (repeated.status, repeated.disabled) == ("disabled", first.disabled)
    enabled = changes.enable(EnableIP(ADDRESS), "two")
    assert changes.disable(DisableIP(ADDRESS, "listed"), "one", **again).disabled == first.disabled
    services.ips.assign(AssignIP(alice.id, ADDRESS), "three")
    done = changes.enable(EnableIP(ADDRESS), "two", **again)
    assert (done.status, done.assigned_to, done.disabled) == (enabled.status, None, None)
    assert services.ips.fetch(ADDRESS).assigned_to == alice.id


def test_a_reserved_and_a_resting_address_say_until_when(
    load: Any, patch: Patch, alice: Member
) -> None:
    rest = {"pvt_available_at": 64_000_000_000, "pvt_last_assigned_to": alice.id}
    load(kazoo_document(ADDRESS, pvt_status="aging", **rest))
    shown = {"available_at": 64_000_000_000, "last_assigned_to": alice.id}
    assert patch.done({}) == {**RESOURCE, "status": "aging", **shown}
    held = {"reserved_for": alice.id, "reserved_until": 64_000_000_000, "reservation": "0" * 32}
    marks = {f"pvt_{name}": value for name, value in held.items()}
    load(kazoo_document("192.0.2.2", pvt_status="reserved", **marks))
    reply = patch({}, url="/v2/ips/192.0.2.2").json["data"]
    assert reply == {
        **RESOURCE, "id": "192.0.2.2", "ip": "192.0.2.2", "status": "reserved", **held,
    }  # fmt: skip


def test_the_operator_ends_the_rest_of_an_address(
    api: TestApp, load: Any, patch: Patch, alice: Member, databases: Databases
) -> None:
    rest = {"pvt_available_at": 64_000_000_000, "pvt_last_assigned_to": alice.id}
    load(kazoo_document(ADDRESS, pvt_status="aging", **rest))
    change = {"status": "available", "reason": "asked for"}
    revision = databases.get("dedicated_ips", ADDRESS)["_rev"]
    failure(
        patch(change, 412, **{"If-Match": '"1-a"'}), patch.operator.token, "precondition_failed"
    )
    assert patch(change, url=f"{URL}?dry_run=true").json["data"] == RESOURCE
    assert databases.get("dedicated_ips", ADDRESS)["_rev"] == revision
    key = {"Idempotency-Key": "end-its-rest", "If-Match": f'"{revision}"'}
    first = patch(change, **key).json["data"]
    assert first == RESOURCE
    assert patch(change, **key).json["data"] == first
    assert patch.done({}) == RESOURCE
    [event, *_] = api.get(f"{URL}/history", headers=patch.operator.headers).json["data"]
    assert (event["event"], event["reason"]) == ("aged", "asked for")
    assert event["after"]["status"] == "available"


def test_a_reason_of_another_change_is_in_its_event(api: TestApp, load: Any, patch: Patch) -> None:
    load(kazoo_document(ADDRESS))
    patch.done({"zone": "eu", "reason": "ticket 7"})
    [event, *_] = api.get(f"{URL}/history", headers=patch.operator.headers).json["data"]
    assert (event["event"], event["reason"]) == ("changed", "ticket 7")


# Refusals


@pytest.mark.parametrize(
    ("data", "path", "rule"),
    [
        ({"zone": None}, "zone", "type"),
        ({"zone": ""}, "zone", "minLength"),
        ({"host": "a\u202eb"}, "host", "pattern"),
        ({"description": "x" * 1025}, "description", "maxLength"),
        ({"labels": []}, "labels", "type"),
        ({"labels": {"a:b": "1"}}, "labels.a:b", "pattern"),
        ({"labels": {"a": 1}}, "labels.a", "type"),
        ({"labels": {"a": " b"}}, "labels.a", "pattern"),
        ({"labels": {f"k{n}": "1" for n in range(17)}}, "labels", "maxProperties"),
        ({"pvt_status": "assigned"}, "pvt_status", "additionalProperties"),
        ({"status": "assigned", "reason": "asked"}, "status", "enum"),
        ({"status": "available"}, "reason", "required"),
        ({"status": "available", "reason": "asked", "zone": "eu"}, "status", "forbidden"),
        ({"status": "available", "reason": "asked", "enabled": True}, "status", "forbidden"),
        ({"status": "available", "reason": "asked"}, "ips.0", "superfluous"),
        ({"enabled": False}, "reason", "required"),
        ({"enabled": False, "reason": ""}, "reason", "minLength"),
        ({"enabled": "perhaps"}, "enabled", "type"),
        ({"enabled": False, "reason": "listed", "zone": "eu"}, "enabled", "forbidden"),
        ({"enabled": True, "labels": {"a": "1"}}, "enabled", "forbidden"),
    ],
)
def test_an_invalid_change_is_refused(
    load: Any, patch: Patch, data: Any, path: str, rule: str
) -> None:
    load(kazoo_document(ADDRESS))
    errors = patch.refused(data)
    assert {name: set(rules) for name, rules in errors.items()} == {path: {rule}}


def test_sixteen_labels_are_the_limit_after_the_change(load: Any, patch: Patch) -> None:
    load(kazoo_document(ADDRESS))
    patch.done({"labels": {f"k{n}": "1" for n in range(16)}})
    assert set(patch.refused({"labels": {"more": "1"}})) == {"labels"}
    changed = patch.done({"labels": {"k0": None, "more": "1"}})
    assert len(changed["labels"]) == 16


def test_an_address_that_is_not_there_and_one_of_a_newer_release_stay(
    load: Any, patch: Patch
) -> None:
    failure(patch({"zone": "eu"}, 404), patch.operator.token, "bad_identifier")
    load(kazoo_document(ADDRESS, pvt_status="quarantined"))
    assert set(patch.refused({"zone": "eu"})) == {"ips.0"}


def test_a_key_returns_the_first_result(load: Any, patch: Patch, databases: Databases) -> None:
    load(kazoo_document(ADDRESS))
    first = patch({"zone": "eu"}, **{"Idempotency-Key": "zone-to-eu"})
    patch.done({"zone": "us-west"})
    again = patch({"zone": "eu"}, **{"Idempotency-Key": "zone-to-eu"})
    assert again.json["data"] == first.json["data"]
    assert databases.get("dedicated_ips", ADDRESS)["pvt_zone"] == "us-west"


# Lists by label


@pytest.fixture
def labelled(load: Callable[..., None], alice: Member) -> None:
    """Addresses with labels: 1 and 2 are Alice's, 3 to 5 available, 6 has another label."""
    for n in range(1, 7):
        load(
            kazoo_document(
                f"192.0.2.{n}",
                zone=("eu", "us")[n % 2],
                host=f"proxy{n % 3}",
                owner=alice.id if n < 3 else None,
                labels={"carrier": "a:b" if n < 6 else "c"},
            )
        )


@pytest.mark.parametrize(
    ("query", "last"),
    [
        ({}, [2, 4, 1, 3, 5]),
        ({"status": "available"}, [4, 3, 5]),
        ({"status": "assigned"}, [2, 1]),
        ({"zone": "us"}, [1, 3, 5]),
        ({"host": "proxy1"}, [4, 1]),
        ({"cidr": "192.0.2.4/30"}, [4, 5]),
        ({"modified_from": "63999999999"}, []),
        ({"zone": "us", "status": "available", "family": "4"}, [3, 5]),
    ],
    ids=str,
)
def test_a_list_by_label_combines_with_the_other_filters(
    api: TestApp, labelled: None, operator: Member, query: dict[str, str], last: list[int]
) -> None:
    expected = [f"192.0.2.{n}" for n in last]
    wanted = {"label": "carrier:a:b", **query}
    lines = page(api.get("/v2/ips", wanted, headers=operator.headers), operator.token)
    assert [line["ip"] for line in lines] == expected
    found, start = [], {}
    while True:
        body = api.get(
            "/v2/ips", {**wanted, "page_size": "2", **start}, headers=operator.headers
        ).json
        found += [line["ip"] for line in body["data"]]
        if "next_start_key" not in body:
            break
        start = {"start_key": body["next_start_key"]}
    assert found == expected
    headers = {**operator.headers, "Accept": "text/csv"}
    rows = api.get("/v2/ips", wanted, headers=headers).text.splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == expected


def test_an_accounts_addresses_by_label(
    api: TestApp, labelled: None, operator: Member, alice: Member
) -> None:
    query = {"label": "carrier:a:b", "account_id": alice.id}
    for path in ("/v2/ips", "/v2/ips/assigned"):
        lines = api.get(path, query, headers=operator.headers).json["data"]
        assert [line["ip"] for line in lines] == ["192.0.2.2", "192.0.2.1"]


@pytest.mark.parametrize("label", ["", "carrier", ":a", "carrier:", "a b:c"])
def test_a_label_that_is_no_pair_is_refused(api: TestApp, operator: Member, label: str) -> None:
    reply = api.get("/v2/ips", {"label": label}, headers=operator.headers, status=400)
    assert set(invalid(reply, operator.token)) == {"label"}
