"""The routes of webhooks, of an account and of the operator."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import Attempt
from kazoo_ips.model.webhooks import DeliveryAttempt, DeliveryProgress, DeliveryResult
from kazoo_ips.services.webhooks import management
from tests.api.couchdb import Databases
from tests.api.replies import failure
from tests.api.sample_webhooks import CONTENT, remove_webhooks
from tests.conftest import Member
from tests.openapi_check import CheckedApp
from tests.webhooks.receivers import Receiver, answer

DEFAULTS = {
    "http_verb": "post",
    "format": "json",
    "retries": 2,
    "enabled": True,
    "include_subaccounts": False,
    "custom_data": {},
    "zones": [],
    "events": [],
}


@pytest.fixture(autouse=True)
def no_webhooks(couch: Couch) -> Iterator[None]:
    """No webhooks before and after."""
    remove_webhooks(couch)
    yield
    remove_webhooks(couch)


@pytest.fixture(params=["account", "operator"])
def path(request: pytest.FixtureRequest, alice: Member) -> str:
    """The path of the webhooks of an account, and of the operator's."""
    of_account = f"/v2/accounts/{alice.id}/ips/webhooks"
    return of_account if request.param == "account" else "/v2/ips/webhooks"


Ask = Callable[..., Any]


@pytest.fixture
def ask(api: TestApp, operator: Member) -> Ask:
    """A function that sends a request of the operator, and returns `data`."""

    def send(method: str, url: str, data: Any = None, status: int = 200, **headers: str) -> Any:
        body = b"" if data is None else json.dumps({"data": data}).encode()
        reply = api.request(
            url, method=method, body=body, headers={**operator.headers, **headers}, status=status
        )
        return reply.json["data"]

    return send


def test_a_webhook_is_created_shown_changed_and_deleted(ask: Ask, path: str) -> None:
    made = ask("PUT", path, CONTENT, 201)
    assert {k: made[k] for k in CONTENT} == CONTENT
    assert {k: made[k] for k in DEFAULTS} == DEFAULTS
    assert made["delivery"] == {"state": "ok", "failures": 0}
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert ask("GET", path) == [made]
    one = f"{path}/{made['id']}"
    assert ask("GET", one) == made
    patched = ask("PATCH", one, {"zones": ["eu"], "custom_data": {"a": "b"}})
    assert (patched["zones"], patched["custom_data"]) == (["eu"], {"a": "b"})
    patched = ask("PATCH", one, {"zones": None, "custom_data": {"a": None, "c": "d"}})
    assert (patched["zones"], patched["custom_data"]) == ([], {"c": "d"})
    replaced = ask("POST", one, {**CONTENT, "name": "Other", "retries": 0})
    assert (replaced["name"], replaced["retries"]) == ("Other", 0)
    assert replaced["custom_data"] == {}
    assert ask("DELETE", one)["name"] == "Other"
    assert ask("GET", path) == []
    for method in ("GET", "DELETE"):
        ask(method, one, status=404)
    ask("PATCH", one, {"name": "x"}, 404)


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_change_that_changes_nothing_writes_nothing(
    ask: Ask, path: str, couch: Couch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    made = ask("PUT", path, {**CONTENT, "zones": ["eu"]}, 201)
    one = f"{path}/{made['id']}"
    before = ask("GET", one)
    records = couch.database("kazoo_ips")
    written = records.info()["update_seq"]
    caplog.set_level("INFO")
    caplog.clear()
    content = {**CONTENT, "zones": ["eu"]} if method == "POST" else {"zones": ["eu"]}
    assert ask(method, one, content) == before
    assert str(records.info()["update_seq"]).partition("-")[0] == str(written).partition("-")[0]
    assert [each for each in caplog.records if "audit" in getattr(each, "fields", {})] == []
    assert ask(method, one, {**content, "zones": ["us"]})["zones"] == ["us"]
    assert [each for each in caplog.records if "audit" in getattr(each, "fields", {})] != []


def test_a_secret_is_shown_once(ask: Ask, path: str, services: Instance, alice: Member) -> None:
    made = ask("PUT", path, CONTENT, 201)
    one = f"{path}/{made['id']}"
    rotated = ask("POST", f"{one}/rotate")
    assert rotated["secret"] != made["secret"]
    shown = json.dumps(
        [ask("GET", path), ask("GET", one), ask("PATCH", one, {"name": "x"}), ask("DELETE", one)]
    )
    assert "whsec_" not in shown
    owner = alice.id if "accounts" in path else None
    again = services.webhooks.create(owner, CONTENT)
    assert "whsec_" not in repr(again)


def test_what_a_sdk_sends_back_is_accepted(ask: Ask, path: str) -> None:
    made = ask("PUT", path, CONTENT, 201)
    again = ask("POST", f"{path}/{made['id']}", {**made, "include_internal_legs": True})
    assert again["id"] == made["id"]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "name", "minLength"),
    ({"name": "x" * 129}, "name", "maxLength"),
    ({"name": None}, "name", "type"),
    ({"hook": "channel_create"}, "hook", "enum"),
    ({"uri": "ftp://receiver.example/"}, "uri", "wrong_format"),
    ({"uri": "https://u:p@receiver.example/"}, "uri", "wrong_format"),
    ({"uri": "https://127.0.0.1/"}, "uri", "forbidden"),
    ({"uri": "https://[::1]/"}, "uri", "forbidden"),
    ({"uri": "https://169.254.169.254/latest"}, "uri", "forbidden"),
    ({"uri": "https://receiver.example/" + "x" * 2048}, "uri", "maxLength"),
    ({"http_verb": "delete"}, "http_verb", "enum"),
    ({"format": "xml"}, "format", "enum"),
    ({"retries": 5}, "retries", "maximum"),
    ({"retries": -1}, "retries", "minimum"),
    ({"retries": "2"}, "retries", "type"),
    ({"enabled": "perhaps"}, "enabled", "type"),
    ({"custom_data": {"a": 1}}, "custom_data", "type"),
    ({"custom_data": ["a"]}, "custom_data", "type"),
    ({"custom_data": {"a": "x" * 257}}, "custom_data", "maxLength"),
    ({"custom_data": {str(n): "" for n in range(17)}}, "custom_data", "maxProperties"),
    ({"zones": "eu"}, "zones", "type"),
    ({"zones": ["eu", "eu"]}, "zones", "uniqueItems"),
    ({"zones": [str(n) for n in range(101)]}, "zones", "maxItems"),
    ({"events": ["ips_assigned"]}, "events", "enum"),
    ({"include_subacounts": True}, "include_subacounts", "additionalProperties"),
]


@pytest.mark.parametrize(("members", "name", "rule"), BAD)
def test_a_broken_rule_is_named(
    ask: Ask, path: str, members: dict[str, Any], name: str, rule: str
) -> None:
    errors = ask("PUT", path, {**CONTENT, **members}, 400)
    assert list(errors) == [name]
    assert list(errors[name]) == [rule]
    assert ask("GET", path) == []
    made = ask("PUT", path, CONTENT, 201)
    if members != {"name": None}:  # in a PATCH, null sets the default, and these members have none
        errors = ask("PATCH", f"{path}/{made['id']}", members, 400)
        assert list(errors[name]) == [rule]


def test_all_missing_members_are_named(ask: Ask, path: str) -> None:
    errors = ask("PUT", path, {}, 400)
    assert sorted(errors) == ["hook", "name", "uri"]
    made = ask("PUT", path, CONTENT, 201)
    assert list(ask("PATCH", f"{path}/{made['id']}", {"name": None}, 400)["name"]) == ["required"]


def test_there_is_a_limit_of_webhooks(
    ask: Ask, path: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(management, "LIMIT_OF_OPERATOR", settings.webhook_limit)
    for _ in range(settings.webhook_limit):
        ask("PUT", path, CONTENT, 201)
    data = ask("PUT", path, CONTENT, 409)
    assert data == {
        "limit": 20, "used": 20, "requested": 1, "message": "too many webhooks",
    }  # fmt: skip


def progress_of(webhook_id: str, account_id: str | None, **more: Any) -> DeliveryProgress:
    return DeliveryProgress(
        webhook_id=webhook_id, account_id=account_id, start_id="s", history="h", **more
    )


def test_the_list_shows_how_the_delivery_goes_and_the_attempts(
    ask: Ask, path: str, services: Instance, alice: Member
) -> None:
    owner = alice.id if "accounts" in path else None
    made = ask("PUT", path, CONTENT, 201)
    success = DeliveryAttempt("e1", 7, DeliveryResult.SUCCESS, 200, milliseconds=3)
    failed = DeliveryAttempt(
        "e2", 8, DeliveryResult.FAILURE, 500, "sorry", "response 500", None, 4
    )
    services.webhooks._webhooks.put_progress(
        progress_of(
            made["id"], owner, failures=1, next_attempt=9, waiting_since=6, last_success=7,
            attempts=(failed, success),
        )
    )  # fmt: skip
    (line,) = ask("GET", path)
    assert line["delivery"] == {
        "state": "failing",
        "failures": 1,
        "last_success": 7,
        "last_error": "response 500",
        "next_attempt": 9,
        "waiting_since": 6,
    }
    attempts = ask("GET", f"{path}/{made['id']}/attempts")
    assert attempts == [
        {"hook_id": made["id"], "event_id": "e2", "timestamp": 8, "result": "failure",
         "response_code": 500, "response_body": "sorry", "reason": "response 500",
         "milliseconds": 4},
        {"hook_id": made["id"], "event_id": "e1", "timestamp": 7, "result": "success",
         "response_code": 200, "milliseconds": 3},
    ]  # fmt: skip
    assert ask("GET", f"{path}/attempts") == attempts


def test_bulk_enabling_is_for_what_the_service_has_disabled(
    ask: Ask, path: str, services: Instance, alice: Member
) -> None:
    owner = alice.id if "accounts" in path else None
    disabled, own = (ask("PUT", path, {**CONTENT, "enabled": False}, 201) for _ in range(2))
    webhook = services.webhooks._webhooks.find(owner, disabled["id"])
    assert webhook
    services.webhooks._webhooks.put(replace(webhook, disable_reason="gone"))
    assert ask("GET", f"{path}/{disabled['id']}")["disable_reason"] == "gone"
    assert list(ask("PATCH", path, {}, 400)["re-enable"]) == ["required"]
    assert list(ask("PATCH", path, {"re-enable": False}, 400)["re-enable"]) == ["enum"]
    (enabled,) = ask("PATCH", path, {"re-enable": True})
    assert (enabled["id"], enabled["enabled"]) == (disabled["id"], True)
    assert "disable_reason" not in enabled
    assert not ask("GET", f"{path}/{own['id']}")["enabled"]


def test_a_test_delivery_is_sent_at_once_and_its_result_is_the_reply(
    settings: Settings, operator: Member, path: str
) -> None:
    own = replace(settings, webhook_networks="127.0.0.0/8")
    api = CheckedApp(composition.create_app(own))
    with Receiver(answer(200)) as receiver:
        body = json.dumps({"data": {**CONTENT, "uri": receiver.uri, "enabled": False}}).encode()
        made = api.put(path, body, headers=operator.headers, status=201).json["data"]
        url = f"{path}/{made['id']}/test"
        good = api.post(url, headers=operator.headers).json["data"]
        receiver.behave = answer(500, "no")
        bad = api.post(url, headers=operator.headers).json["data"]
    content = Verifier(made["secret"]).verify(
        receiver.received[0].body, receiver.received[0].headers
    )
    assert (content["event"], content["ip"], content["id"]) == (
        "test", "192.0.2.1", good["event_id"],
    )  # fmt: skip
    assert (good["result"], good["response_code"]) == ("success", 200)
    assert (bad["result"], bad["reason"], bad["response_body"]) == (
        "failure", "response 500", "no",
    )  # fmt: skip


def test_test_deliveries_do_not_take_all_threads(
    ask: Ask, path: str, wsgi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ask("PUT", path, CONTENT, 201)
    tests = wsgi.extensions["kazoo_ips"].webhooks._tests
    assert tests.acquire(blocking=False)
    assert tests.acquire(blocking=False)
    try:
        ask("POST", f"{path}/{made['id']}/test", status=429)
    finally:
        tests.release(2)


@pytest.mark.parametrize("since", [63_900_000_000, "63900000000", "2024-11-20T00:00:00Z"])
def test_a_replay_takes_a_time_in_every_form(ask: Ask, path: str, since: Any) -> None:
    made = ask("PUT", path, CONTENT, 201)
    replayed = ask("POST", f"{path}/{made['id']}/replay", {"since": since})
    assert replayed["id"] == made["id"]


@pytest.mark.parametrize("since", [None, "yesterday", True, -1, [1], 1.5])
def test_a_replay_needs_a_time(ask: Ask, path: str, since: Any) -> None:
    made = ask("PUT", path, CONTENT, 201)
    errors = ask("POST", f"{path}/{made['id']}/replay", {"since": since}, 400)
    assert list(errors) == ["since"]


def test_a_repeated_request_with_a_key_creates_rotates_and_deletes_once(
    ask: Ask, path: str, services: Instance, alice: Member
) -> None:
    """This holds too if the process dies after the write and before the reply is stored."""
    owner = alice.id if "accounts" in path else None
    service = services.webhooks
    first, second = Attempt("key", 1), Attempt("key", 2)
    made = service.create(owner, CONTENT, attempt=first)
    assert service.create(owner, CONTENT, attempt=second) == made
    assert len(ask("GET", path)) == 1
    turn = [Attempt("turn", n) for n in (1, 2)]
    rotated = [service.rotate(owner, made.id, attempt=each) for each in turn]
    assert rotated[0].secrets == rotated[1].secrets
    webhook = service.fetch(owner, made.id).webhook
    assert service._webhooks.put(replace(webhook, enabled=False, disable_reason="gone"))
    enabled = [service.enable_all(owner, attempt=Attempt("all", n)) for n in (1, 2)]
    assert [w.webhook.id for w in enabled[0]] == [w.webhook.id for w in enabled[1]] == [made.id]
    deletions = [service.delete(owner, made.id, attempt=Attempt("gone", n)) for n in (1, 2)]
    assert deletions[0].webhook.id == deletions[1].webhook.id == made.id
    headers = {"Idempotency-Key": f"webhook-{path}"}
    replies = [ask("PUT", path, CONTENT, 201, **headers) for _ in range(2)]
    assert replies[0] == replies[1]


def test_the_webhooks_of_another_account_are_not_found(
    api: TestApp, ask: Ask, alice: Member, bob: Member, child: Member
) -> None:
    path = f"/v2/accounts/{alice.id}/ips/webhooks"
    made = ask("PUT", path, CONTENT, 201)
    for other, member in ((bob, bob), (child, alice), (child, child)):
        url = f"/v2/accounts/{other.id}/ips/webhooks/{made['id']}"
        reply = api.get(url, headers=member.headers, status=404)
        data = failure(reply, member.token, "bad_identifier")
        assert data == {"cause": made["id"], "message": "bad identifier"}
    ask("GET", f"/v2/ips/webhooks/{made['id']}", status=404)
    assert ask("GET", f"/v2/accounts/{child.id}/ips/webhooks") == []


@pytest.mark.parametrize("name", ["webhook-", "%00", "..", "_design", "x" * 500, "%E2%82%AC", "-"])
def test_any_other_id_is_not_found(ask: Ask, path: str, name: str) -> None:
    ask("GET", f"{path}/{name}", status=404)


def test_a_document_has_no_more_than_it_needs(
    ask: Ask, databases: Databases, alice: Member
) -> None:
    made = ask("PUT", f"/v2/accounts/{alice.id}/ips/webhooks", CONTENT, 201)
    document = databases.get("kazoo_ips", f"webhook-{alice.id}-{made['id']}")
    assert document["secrets"] == [{"value": made["secret"], "until": None}]
    assert document["type"] == "webhook"


def test_a_webhook_of_a_network_that_is_not_permitted_any_more_can_be_disabled(
    ask: Ask, path: str, settings: Settings, operator: Member
) -> None:
    permitting = CheckedApp(
        composition.create_app(replace(settings, webhook_networks="127.0.0.0/8"))
    )
    body = {"data": {**CONTENT, "uri": "http://127.0.0.1:9/"}}
    made = permitting.put_json(path, body, headers=operator.headers, status=201).json["data"]
    one = f"{path}/{made['id']}"
    assert ask("PATCH", one, {"enabled": False})["enabled"] is False
    assert ask("PATCH", one, {"name": "old"})["name"] == "old"
    ask("PATCH", one, {"enabled": True}, 400)
    ask("PATCH", one, {"uri": "http://127.0.0.1:10/"}, 400)
