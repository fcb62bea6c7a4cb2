"""The OpenAPI description: it is complete and valid, and differences from it are noticed."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from kazoo_ips.api.errors import REPLIES, TOKENS
from kazoo_ips.api.openapi import operation_of, rules_of
from tests.api.replies import failure, success
from tests.api.test_documentation import SAMPLES, Sample
from tests.conftest import Member
from tests.openapi_check import CheckedApp, check, described_path, document, fits


def test_the_description_is_valid_openapi() -> None:
    assert document()["openapi"] == "3.1.0"
    validate(document())


def test_the_description_needs_no_token(api: CheckedApp) -> None:
    reply = api.get("/v2/openapi.json", status=200)
    assert reply.content_type == "application/json"
    assert reply.json == document()
    api.get("/v2/openapi.json", headers={"If-None-Match": reply.headers["ETag"]}, status=304)


def test_every_route_is_described(wsgi: Any) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), operation_of(wsgi, rule).method.lower())
        for rule in rules_of(wsgi)
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert described == routes


def test_every_group_of_routes_has_a_description() -> None:
    named = {each["name"] for each in document()["tags"] if each["description"]}
    items = (item for path in document()["paths"].values() for item in path.values())
    assert {tag for item in items for tag in item["tags"]} == named


def test_every_error_has_a_schema() -> None:
    forms = [each.get("properties", {}) for each in document()["components"]["schemas"].values()]
    described = {
        (form["error"]["const"], form["message"]["const"])
        for form in forms
        if "const" in form.get("error", {})
    }
    expected = {(str(code), message) for code, message, _ in REPLIES.values()}
    assert described == expected | {(str(code), message) for code, (message, _) in TOKENS.items()}


def members(form: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects of a part of the description."""
    if isinstance(form, dict):
        yield form
    for each in (
        form.values() if isinstance(form, dict) else form if isinstance(form, list) else ()
    ):
        yield from members(each)


def test_a_constant_has_a_type_and_no_default() -> None:
    """Otherwise the Java that openapi-generator generates does not compile."""
    constants = [each for each in members(document()["components"]) if "const" in each]
    assert {each["const"] for each in constants} >= {"dedicated_ip", "success", True}
    assert [each for each in constants if "type" not in each or "default" in each] == []


def test_an_enumeration_in_a_list_of_different_items_has_a_name() -> None:
    """Otherwise the Java that openapi-generator generates does not compile."""
    lists = [each for each in members(document()["components"]) if each.get("uniqueItems") is True]
    assert {"$ref": "#/components/schemas/EventKind"} in [each["items"] for each in lists]
    assert [each for each in lists if "enum" in each["items"]] == []


def test_no_pattern_of_a_reply_has_a_comma() -> None:
    """The Go client that openapi-generator generates would not read replies of several schemas."""
    forms = document()["components"]["schemas"]
    envelopes = [form for form in forms.values() if "request_id" in form.get("properties", {})]
    patterns = {each["pattern"] for each in members(envelopes) if "pattern" in each}
    assert "^[!-~]+$" in patterns
    assert [each for each in patterns if "," in each] == []


def test_openapi_generator_has_no_reason_to_warn() -> None:
    """openapi-generator warns about references in these places, and does not name the place."""
    forms = [*document()["components"]["schemas"].values()]
    inline = [form for form in forms if form.get("additionalProperties") == {}]
    inline += [form for form in forms for each in form.get("oneOf", []) if "$ref" not in each]
    inline += [form for form in forms if "items" in form]
    assert inline == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_the_published_requests_and_replies_are_as_described(sample: Sample) -> None:
    filled = sample.filled(ACCOUNT_ID="a" * 32, IP_ADDRESS="1.2.3.4", AUTH_TOKEN="t")
    words = shlex.split(filled.curl)
    method = words[words.index("-X") + 1]
    path = described_path(words[-1].partition(":8000")[2])
    operation = document()["paths"][path][method.lower()]
    place = f"#/paths/{path.replace('/', '~1')}/{method.lower()}" if path else ""
    if (
        "-d" in words and "requestBody" in operation
    ):  # a route that does not describe it ignores it
        sent = words[words.index("-d") + 1]
        escaped = place.replace("{", "%7B").replace("}", "%7D")
        fits(f"{escaped}/requestBody/content/application~1json/schema", sent.encode())
    if filled.reply is None:
        assert "201" in operation["responses"]
        return
    ref = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    schema = document()["components"]["schemas"][ref.rpartition("/")[2]]
    assert filled.reply.keys() - {"data"} <= {
        *document()["components"]["schemas"]["DedicatedIPReply"]["properties"],
    }
    data = filled.reply["data"]
    if (
        method == "GET" and path and path.endswith(("/ips", "/assigned"))
    ):  # these replies have more members here
        data = [{"host": "proxy1.us-east.myswitch.com", **each} for each in data]
    checker = {**schema["properties"]["data"], "components": document()["components"]}
    assert [*jsonschema_rs.Draft202012Validator(checker).iter_errors(data)] == []


# The service accepts what is described

BODIES: dict[str, list[tuple[Any, bool]]] = {
    "Assign": [
        ({"ips": ["1.2.3.4", "2001:db8::1"]}, True),
        ({"ips": ["1.2.3.4"], "more": 1}, True),
        ({"ips": []}, False),
        ({"ips": ["1.2.3.4", "1.2.3.4"]}, False),
        ({"ips": ["1.2.3.4/24"]}, False),
        ({"ips": "1.2.3.4"}, False),
        ({}, False),
    ],
    "Allocate": [
        ({"quantity": 1, "distinct_hosts": True, "zone": "us-east"}, True),
        ({"quantity": 1000, "distinct_zones": True}, True),
        ({"quantity": 1001}, False),
        ({"quantity": 0}, False),
        ({"quantity": 1, "distinct_hosts": "perhaps"}, False),
        ({"quantity": 1, "zone": ""}, False),
    ],
    "CreateIP": [
        ({"ip": "1.2.3.4", "zone": "z", "host": "h"}, True),
        ({"ip": "1.2.3.04", "zone": "z", "host": "h"}, False),
        ({"ip": None, "zone": "z", "host": "h"}, False),
        ({"ip": "1.2.3.4", "zone": "", "host": "h"}, False),
        ({"ip": "1.2.3.4", "zone": "z"}, False),
    ],
}


@pytest.mark.parametrize(
    ("name", "data", "taken"),
    [(name, data, taken) for name, each in BODIES.items() for data, taken in each],
    ids=str,
)
def test_the_description_of_a_body_agrees_with_what_the_route_accepts(
    api: CheckedApp, operator: Member, pool: Any, name: str, data: Any, taken: bool
) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", **document()}
    assert (
        jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(data) is taken
    )
    path = "/v2/ips" if name == "CreateIP" else f"/v2/accounts/{operator.id}/ips"
    reply = api.request(
        path,
        method="PUT" if name == "CreateIP" else "POST",
        body=json.dumps({"data": data}).encode(),
        headers=operator.headers,
        expect_errors=True,
    )
    broken = reply.json["data"] if reply.status_code == 400 else {}
    rules = {rule for each in broken.values() for rule in each}
    assert (rules - {"not_found"} == set()) is taken


# The check notices what is not described

LISTED = {"ip": "1.2.3.4", "zone": "us-east", "host": "proxy1.us-east.myswitch.com"}
BODY = {
    "data": [LISTED],
    "status": "success",
    "revision": "1",
    "request_id": "1",
    "node": "x" * 22,
    "timestamp": "2026-11-22T20:26:26Z",
    "version": "0.1.0",
}
HEADERS = {"Content-Type": "application/json", "X-Request-ID": "1"}


def listed(status: int = 200, headers: dict[str, str] = HEADERS, **body: Any) -> None:
    """Check a list of available addresses."""
    sent = json.dumps({**BODY, **body}).encode()
    check("GET", "/v2/ips", status, headers, sent)


def test_a_reply_as_described_passes() -> None:
    listed()
    listed(page_size=1, next_start_key="x", auth_token="x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 204},
        {"status": 201},
        {"headers": {"Content-Type": "application/json"}},
        {"headers": {"X-Request-ID": "1", "Content-Type": "text/html"}},
        {"headers": {"X-Request-ID": "1"}},
        {"more": 1},
        {"error": "200"},
        {"node": 1},
        {"timestamp": "yesterday"},
        {"data": {}},
        {"data": [{**LISTED, "owner": "x"}]},
        {"data": [{"ip": "1.2.3.4"}]},
        {"page_size": "1"},
    ],
    ids=str,
)
def test_a_reply_not_as_described_is_noticed(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        listed(**wrong)


@pytest.mark.parametrize("where", [("PATCH", "/v2/ips"), ("GET", "/v2/more")])
def test_a_success_of_an_undescribed_request_is_noticed(where: tuple[str, str]) -> None:
    with pytest.raises(AssertionError, match="not described"):
        check(*where, 200, HEADERS, json.dumps(BODY).encode())


# /v2/schemas

KAZOO = {  # crossbar/priv/couchdb/schemas
    "ip": (["host", "ip", "zone"], ["host", "ip", "zone"]),
    "ips": (["ips"], []),
    "api_auth": (["api_key"], ["api_key"]),
}


def test_the_names_of_the_schemas_need_no_token(api: CheckedApp) -> None:
    reply = api.get("/v2/schemas", status=200)
    assert success(reply, None) == ["api_auth", "ip", "ips", "user_auth"]


@pytest.mark.parametrize("name", KAZOO)
def test_a_schema_is_valid_draft_4_and_requires_the_same_as_kazoos(
    api: CheckedApp, name: str
) -> None:
    schema = success(api.get(f"/v2/schemas/{name}", status=200), None)
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-04/schema#"
    assert schema["id"] == name
    properties, required = KAZOO[name]
    assert sorted(schema["properties"]) == properties
    assert schema.get("required", []) == required


def test_an_unknown_schema_is_404(api: CheckedApp, alice: Member) -> None:
    reply = api.get("/v2/schemas/devices", headers=alice.headers, status=404)
    data = failure(reply, alice.token, "bad_identifier")
    assert data == {"cause": "devices", "message": "bad identifier"}
