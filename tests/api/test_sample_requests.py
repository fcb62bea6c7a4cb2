"""The examples of the OpenAPI description, sent to the sample pool of `make run`.

The test sends every operation with the examples of its parameters and of its body. Then it follows
the links of the reply. Each request gets the pool as `make run` creates it.
"""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from embedded import samples
from kazoo_ips.api import examples
from tests.api.own_application import OwnApplication
from tests.conftest import Member
from tests.openapi_check import CheckedApp, document

OPERATIONS = {
    each["operationId"]: (path, method, each)
    for path, item in document()["paths"].items()
    for method, each in item.items()
}
MADE_FIRST = {
    examples.RESERVATION_ID: "create_reservation",
    examples.JOB_ID: "move_host",
}
"""Path parameters whose examples are not in the sample data. The example request of the named
operation creates an object with such an id."""
LISTS_OF_MADE = {"list_reservations": examples.RESERVATION_ID, "list_jobs": examples.JOB_ID}
"""Lists of such objects, whose links need one object."""
NOT_KNOWN = {"user_auth", "api_auth"}
"""Each installation has a password and an API key of its own, so these examples are 401."""


def bodies(name: str) -> list[Any]:
    """Return the examples of an operation's body; [None] if it has none."""
    content = OPERATIONS[name][2].get("requestBody", {}).get("content", {})
    if not content:
        return [None]
    ref = content["application/json"]["schema"]["$ref"]
    examples_: list[Any] = document()["components"]["schemas"][ref.rpartition("/")[2]]["examples"]
    return examples_


def send(api: CheckedApp, name: str, given: dict[str, Any], body: Any, token: str) -> Any:
    """Send an operation's request, with the values of its parameters."""
    path, method, operation = OPERATIONS[name]
    query = {}
    for parameter in operation["parameters"]:
        if parameter["name"] in given:
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", given[parameter["name"]])
            elif parameter["in"] == "query":
                query[parameter["name"]] = given[parameter["name"]]
    url = path + "".join(f"{'?&'[n > 0]}{k}={v}" for n, (k, v) in enumerate(query.items()))
    sent = {} if body is None else {"body": json.dumps(body).encode()}
    return api.request(
        url,
        method=method.upper(),
        headers={"X-Auth-Token": token},
        expect_errors=True,
        **sent,
    )


def with_made(api: CheckedApp, given: Any, token: str) -> Any:
    """Create the objects that examples need; return the examples with the ids of these objects."""
    text = json.dumps(given)
    for id_, creator in MADE_FIRST.items():
        if id_ in text:
            made = send(api, creator, parameters(creator), bodies(creator)[0], token)
            assert made.status_int in (201, 202), made.text
            text = text.replace(id_, made.json["data"]["id"])
    return json.loads(text)


def expected(name: str) -> int:
    """Return the status of an operation's success. 200 can also be that of a dry run."""
    return max(int(code) for code in OPERATIONS[name][2]["responses"] if code < "300")


def example_of(parameter: dict[str, Any]) -> Any:
    """Return the example that a page shows for a parameter; None if it has none."""
    values = [parameter.get("example"), *parameter["schema"].get("examples", [])]
    return next((value for value in values if value is not None), None)


def parameters(name: str) -> dict[str, Any]:
    """Return the examples of an operation's parameters."""
    found = {each["name"]: example_of(each) for each in OPERATIONS[name][2]["parameters"]}
    return {k: v for k, v in found.items() if v is not None}


def evaluated(expression: str, given: dict[str, Any], reply: Any) -> Any:
    """Return the value of a runtime expression; None if there is none."""
    if expression.startswith("$request."):
        return given.get(expression.rpartition(".")[2])
    value = reply
    for part in expression.partition("#")[2].split("/")[1:]:
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part)
    return value


CASES = [(name, n) for name in OPERATIONS for n in range(len(bodies(name)))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_an_example_request_succeeds_and_its_links_lead_on(
    api: CheckedApp, operator: Member, sample_pool: None, name: str, number: int
) -> None:
    given, body = parameters(name), bodies(name)[number]
    path_parameters = {p["name"] for p in OPERATIONS[name][2]["parameters"] if p["in"] == "path"}
    assert path_parameters <= given.keys()
    needed = LISTS_OF_MADE.get(name)
    given, body, _ = with_made(api, [given, body, needed], operator.token)
    reply = send(api, name, given, body, operator.token)
    if name in NOT_KNOWN:
        assert reply.status_int == 401
        return
    assert reply.status_int == expected(name), reply.text
    links = OPERATIONS[name][2]["responses"][str(reply.status_int)].get("links", {})
    for link in links.values():
        values = {
            k: evaluated(expression, given, reply.json)
            for k, expression in link["parameters"].items()
        }
        if link["operationId"] == name:
            assert ("next_start_key" in reply.json) == (values["start_key"] is not None)
            continue
        if body and "ips" in body["data"] and name.startswith("create_pool_ips"):
            continue  # the links of a creation are those of one address
        assert None not in values.values(), link
        more = reply.json if "requestBody" in link else bodies(link["operationId"])[0]
        # A dry run, so that no link undoes what the next link needs.
        values["dry_run"] = "true"
        followed = send(api, link["operationId"], values, more, operator.token)
        # 400 and 409: the address of the example is already assigned, or available.
        assert followed.status_int in ((200,) if more else (200, 400, 409)), followed.text


def schemas_with_examples(schema: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield every schema with an example, and the example."""
    if isinstance(schema, dict):
        for value in (
            schema.get("examples", []) if isinstance(schema.get("examples"), list) else []
        ):
            yield schema, value
        for part in schema.values():
            yield from schemas_with_examples(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from schemas_with_examples(part)


def test_every_example_agrees_with_its_schema() -> None:
    checked = 0
    for schema, value in schemas_with_examples(document()):
        # Most schemas refer to no other one. Compiling the components takes most of the time.
        components = document()["components"] if "$ref" in str(schema) else {}
        known = {**schema, "components": components}
        validator = jsonschema_rs.Draft202012Validator(known, validate_formats=True)
        problems = [error.message for error in validator.iter_errors(value)]
        assert problems == [], (schema, value)
        checked += 1
    assert checked > 50


def test_the_account_to_try_is_alice_whatever_other_accounts_there_are(
    own_app: OwnApplication,
) -> None:
    accounts = own_app.services.accounts
    other = accounts.create("Early", "aaa.example.com", own_app.id)
    alice = accounts.create("Alice", "zzz.example.com", own_app.id, examples.ACCOUNT_ID)
    for chosen in (alice, other):
        pasted = samples.to_paste(own_app.services, accounts.list(), [], 8000)
        named = [line for line in pasted if line.startswith("export ACCOUNT=")]
        assert named == [f"export ACCOUNT={chosen.id}"]
        accounts.set_enabled(alice.id, False)
