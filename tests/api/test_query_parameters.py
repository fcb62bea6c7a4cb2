"""Query parameters: every route refuses those that it does not know, and those given twice."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from webtest import TestApp
from werkzeug.routing import Rule

from kazoo_ips.api import examples
from kazoo_ips.api.schemas import EVERYWHERE
from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from tests.api.every_route import ROUTES, operation, url
from tests.api.replies import invalid
from tests.api.sample_webhooks import make_webhooks, remove_webhooks
from tests.conftest import Member
from tests.openapi_check import document

EVERY_ROUTE = pytest.mark.parametrize("rule", ROUTES.values(), ids=[" ".join(r) for r in ROUTES])


def refused(api: TestApp, rule: Rule, operator: Member, query: str) -> Any:
    """The broken rules of a request for a route with a query, by parameter."""
    path, method = url(rule, operator.id), operation(rule).method
    reply = api.request(f"{path}?{query}", method=method, headers=operator.headers, status=400)
    return invalid(reply, operator.token)


def described(rule: Rule) -> list[str]:
    """The names of the route's parameters in the OpenAPI description, sorted."""
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
    described_ = document()["paths"][path][operation(rule).method.lower()]
    return sorted(each["name"] for each in described_["parameters"] if each["in"] == "query")


@EVERY_ROUTE
def test_an_unknown_parameter_is_refused_by_name_with_those_that_are_described(
    api: TestApp, operator: Member, rule: Rule
) -> None:
    errors = refused(api, rule, operator, "zoen=us-east&asigned_to=")
    known = described(rule)
    message = f"no such parameter; this route knows: {', '.join(known) or 'none'}"
    unknown = {"additionalProperties": {"message": message, "target": known}}
    assert errors == {"zoen": unknown, "asigned_to": unknown}


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        pytest.param(rule, name, id=f"{route} {name}")
        for route, rule in ROUTES.items()
        for name in described(rule)
    ],
)
def test_a_parameter_given_twice_is_refused_with_those_that_are_described(
    api: TestApp, operator: Member, rule: Rule, name: str
) -> None:
    # The value is the same both times, so that the repetition is the only mistake.
    value = {"quantity": "1", "page_size": "1", "start_key": KEY, "family": "4"}.get(name, "false")
    value = {"cidr": "192.0.2.0/24", "modified_from": "1", "status": "all"}.get(name, value)
    errors = refused(api, rule, operator, f"{name}={value}&{name}={value}")
    known = described(rule)
    message = f"given more than once; this route knows: {', '.join(known)}"
    rules = {"uniqueItems": {"message": message, "target": known, "value": value}}
    assert errors == {name: rules}


KEY = "WyJ1cy1lYXN0IiwgIjRjMDAwMDIwNSIsICIxOTIuMC4yLjUiXQ=="


@pytest.mark.parametrize("value", ["1", "x", ""])
def test_what_crossbar_takes_everywhere_is_accepted_and_may_be_repeated(
    api: TestApp, operator: Member, pool: Any, value: str
) -> None:
    names = sorted(EVERYWHERE - {"auth_token", "authorization"})
    query = "&".join(f"{name}={value}" for name in [*names, *names])
    for path in ("/v2/ips/zones", "/v2/about", "/healthz", "/v2"):
        api.get(f"{path}?{query}", headers=operator.headers, status=200)


def test_every_mistake_of_a_query_is_reported_at_once(api: TestApp, operator: Member) -> None:
    query = "page_size=x&zone=a&zone=b&nothing=1&start_key=y&_=1"
    reply = api.get(f"/v2/ips?{query}", headers=operator.headers, status=400)
    errors = invalid(reply, operator.token)
    found = {(name, rule) for name, rules in errors.items() for rule in rules}
    assert found == {
        ("page_size", "type"),
        ("zone", "uniqueItems"),
        ("nothing", "additionalProperties"),
        ("start_key", "wrong_format"),
    }


def test_a_query_is_read_after_the_authorisation(api: TestApp, alice: Member) -> None:
    api.get("/v2/ips?zoen=1", status=401)
    api.get("/v2/ips?zoen=1", headers=alice.headers, status=403)


def test_a_dry_run_that_is_misspelt_writes_nothing(
    api: TestApp, operator: Member, alice: Member, add: Any
) -> None:
    add()
    path = f"/v2/accounts/{alice.id}/ips"
    body = {"data": {"quantity": 1}}
    for query in ("dryrun=true", "dry-run=true", "DRY_RUN=true", "dry_run=true&dry_run=false"):
        api.post_json(f"{path}?{query}", body, headers=alice.headers, status=400)
    assert api.get(f"{path}/assigned", headers=alice.headers, status=200).json["data"] == []
    api.get("/v2/ips?dry_run=true", headers=operator.headers, status=400)


# Members of bodies


PLACE = {"zone": "us-east", "host": "proxy1.example.com"}


ACCOUNT, ADDRESS = "/v2/accounts/<account_id>/ips", "<address:address>"
KAZOOS = {
    ("PUT", "/v2/ips"),
    ("PUT", ACCOUNT),
    ("POST", ACCOUNT),
    ("DELETE", ACCOUNT),
    ("POST", f"{ACCOUNT}/{ADDRESS}"),
    ("DELETE", f"{ACCOUNT}/{ADDRESS}"),
    ("PUT", "/v2/user_auth"),
    ("PUT", "/v2/api_auth"),
}
"""The writes of Kazoo's documentation. They ignore unknown members, because SDKs send back whole
documents. `OUR_WRITES` has the forms of these writes that only this service has."""
OUR_WRITES = [each for each in ROUTES if each[0] != "GET" and each not in KAZOOS]


@pytest.fixture
def webhooks(services: Instance, couch: Couch, alice: Member) -> Iterator[None]:
    """The sample webhooks, of Alice and of the operator."""
    make_webhooks(services, couch, alice.id)
    yield
    remove_webhooks(couch)


@pytest.mark.usefixtures("webhooks", "pool")
@pytest.mark.parametrize(("method", "path"), OUR_WRITES)
def test_every_write_that_only_this_service_has_refuses_unknown_members(
    api: TestApp, operator: Member, alice: Member, method: str, path: str
) -> None:
    where = url(ROUTES[method, path], alice.id, webhook_id=examples.WEBHOOK_ID)
    body = {
        "data": {"reasom": "typing", "ui_metadata": {}},
        "dryrun": True,
        "accept_charges": True,
    }
    headers = {**operator.headers, "Content-Type": "application/json"}
    reply = api.request(
        where, method=method, body=json.dumps(body).encode(), headers=headers, status=400
    )
    errors = invalid(reply, operator.token)
    unknown = [name for name, rules in errors.items() if "additionalProperties" in rules]
    assert unknown == ["dryrun", "reasom"]
    for name in unknown:
        rule = errors[name]["additionalProperties"]
        known = ", ".join(rule["target"]) or "none"
        assert rule["message"] == f"no such member; this request has: {known}"


def test_an_unknown_member_of_a_request_of_our_own_is_refused_with_those_it_has(
    api: TestApp, operator: Member, alice: Member, add: Any
) -> None:
    add()
    item = {"ip": "203.0.113.1", **PLACE}
    fields = ["host", "ip", "zone"]
    address, own = "/v2/ips/192.0.2.1", f"/v2/accounts/{alice.id}/ips"
    allocation = ["distinct_hosts", "distinct_zones", "host", "quantity", "zone"]
    for method, path, body, name, known in (
        ("POST", own, {"data": {"quantity": 1, "zoen": "us-east"}}, "zoen", allocation),
        ("POST", own, {"data": {"quantity": 1}, "dryrun": True}, "dryrun", allocation),
        ("PUT", "/v2/ips", {"data": {"ips": [item], "zone": "a"}}, "zone", ["ips"]),
        ("PUT", "/v2/ips", {"data": {"ips": [item]}, "dryrun": True}, "dryrun", ["ips"]),
        ("PUT", "/v2/ips", {"data": {"ips": [{**item, "x": 1}]}}, "ips.0.x", fields),
        ("DELETE", address, {"data": {"forced": True}}, "forced", ["force"]),
        ("DELETE", address, {"dryrun": True}, "dryrun", ["force"]),
    ):  # fmt: skip
        given = {"headers": operator.headers, "content_type": "application/json"}
        reply = api.request(
            path, method=method, body=json.dumps(body).encode(), status=400, **given
        )
        message = f"no such member; this request has: {', '.join(known)}"
        rule = {"additionalProperties": {"message": message, "target": known}}
        assert invalid(reply, operator.token) == {name: rule}
    lines = api.get("/v2/ips?status=all", headers=operator.headers, status=200).json["data"]
    assert [(line["ip"], line["status"]) for line in lines] == [("192.0.2.1", "available")]


def test_a_member_of_the_envelope_that_belongs_in_data_is_refused(
    api: TestApp, operator: Member, alice: Member, add: Any
) -> None:
    add()
    path = f"/v2/accounts/{alice.id}/ips"
    fields = ["distinct_hosts", "distinct_zones", "host", "quantity", "zone"]
    body = {"data": {"quantity": 1}, "zone": "nowhere", "Host": "none"}
    reply = api.post_json(path, body, headers=operator.headers, status=400)
    message = f"belongs in data; this request has: {', '.join(fields)}"
    rule = {"additionalProperties": {"message": message, "target": fields}}
    assert invalid(reply, operator.token) == {"zone": rule, "host": rule}
    body = {"data": {"ips": [{"ip": "203.0.113.1", **PLACE}]}, "ips": []}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=400)
    assert invalid(reply, operator.token).keys() == {"ips"}
    assert api.get(f"{path}/assigned", headers=alice.headers, status=200).json["data"] == []


def test_every_broken_rule_is_reported_together_with_unknown_members(
    api: TestApp, operator: Member, alice: Member
) -> None:
    path, body = f"/v2/accounts/{alice.id}/ips", {"data": {"quantity": "x", "zoen": 1}}
    reply = api.post_json(path, body, headers=operator.headers, status=400)
    assert invalid(reply, operator.token).keys() == {"quantity", "zoen"}


def test_what_monster_ui_and_sdks_add_to_bodies_is_accepted(
    api: TestApp, operator: Member, alice: Member, add: Any
) -> None:
    add()
    path = f"/v2/accounts/{alice.id}/ips"
    metadata = {"ui_metadata": {"version": "4.3", "ui": "monster-ui"}}
    more = {"accept_charges": True, "auth_token": alice.token, "verb": "POST"}
    body = {"data": {"quantity": 1, **metadata}, **more}
    api.post_json(path, body, headers=alice.headers, status=200)
    document = api.get(f"{path}/192.0.2.1", headers=alice.headers, status=200).json["data"]
    body = {"data": {"ips": ["192.0.2.1"], **document, **metadata}, "anything": 1}
    api.delete_json(path, body, headers=alice.headers, status=200)
    api.post_json(f"{path}/192.0.2.1", {"data": {**document, **metadata}}, headers=alice.headers)
    body = {"data": {"ip": "203.0.113.1", **PLACE, **metadata, "id": "x", "_read_only": {}}}
    api.put_json("/v2/ips", body, headers=operator.headers, status=201)
    api.delete_json(
        "/v2/ips/203.0.113.1", {"data": metadata}, headers=operator.headers, status=200
    )
