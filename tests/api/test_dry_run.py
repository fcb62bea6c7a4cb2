"""Dry runs: on every route, the reply is that of the write, and nothing is written."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from webtest import TestApp

from kazoo_ips.api import examples
from kazoo_ips.api.openapi import operation_of, rules_of
from kazoo_ips.api.resources import NAMES
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes
from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import WriteInDryRun
from kazoo_ips.model import AssignIP, AssignIPs, Attempt
from kazoo_ips.model.commands import ReserveIPs
from kazoo_ips.model.limits import Limits
from kazoo_ips.observability import request_context
from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import ALWAYS, broken, invalid, wrong_type
from tests.api.sample_webhooks import CONTENT, make_webhooks, remove_webhooks
from tests.conftest import Member
from tests.emptying import remove_place_settings, states
from tests.openapi_check import document

FREE, NEXT, TAKEN, NEW = "192.0.2.1", "192.0.2.2", "192.0.2.3", "203.0.113.7"
RESERVED, RESERVATION = "192.0.2.4", hashlib.sha256(b"sample").hexdigest()[:32]
"""An address that is reserved, and the id of its reservation, whose request has this key."""
PLACE = {"zone": "us-east", "host": "proxy1.example.com"}
ACCOUNT = "/v2/accounts/<account_id>/ips"
ADDRESS = f"{ACCOUNT}/<address:address>"


@dataclass(frozen=True)
class Case:
    """A write that succeeds, with its address in the path if there is one."""

    data: Any = None
    address: str = ""
    query: dict[str, str] = field(default_factory=dict)


WEBHOOK_WRITES = {
    ("PUT", ""): [Case(CONTENT)],
    ("PATCH", ""): [Case({"re-enable": True})],
    ("POST", "/<webhook:webhook_id>"): [Case(CONTENT)],
    ("PATCH", "/<webhook:webhook_id>"): [Case({"zones": ["eu"]})],
    ("DELETE", "/<webhook:webhook_id>"): [Case({})],
    ("POST", "/<webhook:webhook_id>/replay"): [Case({"since": 0})],
    ("POST", "/<webhook:webhook_id>/rotate"): [Case({})],
}
WEBHOOKS = (f"{ACCOUNT}/webhooks", "/v2/ips/webhooks")
DONE_TO_WEBHOOKS = {
    (method, path + rest): cases
    for path in WEBHOOKS
    for (method, rest), cases in WEBHOOK_WRITES.items()
}
DONE_TO_ADDRESSES = {
    ("PUT", "/v2/ips"): [Case({"ip": NEW, **PLACE}), Case({"ips": [{"ip": NEW, **PLACE}]})],
    ("POST", "/v2/ips/import"): [
        Case({"ips": [{"ip": ip, **PLACE} for ip in (NEW, FREE, TAKEN)]}),
    ],
    ("PUT", ACCOUNT): [Case({"ip": NEW, **PLACE}), Case({"ips": [{"ip": NEW, **PLACE}]})],
    ("POST", ACCOUNT): [
        Case({"ips": [NEXT, FREE]}),
        Case({"quantity": 2}),
        Case({"reservation": RESERVATION}),
    ],
    ("DELETE", ACCOUNT): [Case({"ips": [TAKEN]}), Case({})],
    ("POST", ADDRESS): [Case({}, FREE)],
    ("DELETE", ADDRESS): [Case({}, TAKEN)],
    ("PATCH", "/v2/ips/<address:address>"): [
        Case({"zone": "eu", "labels": {"a": "1"}}, FREE),
        Case({"description": "note"}, TAKEN),
        Case({"enabled": False, "reason": "listed"}, FREE),
        Case({"enabled": False, "reason": "listed"}, TAKEN),
    ],
    ("DELETE", "/v2/ips/<address:address>"): [
        Case({}, FREE),
        Case({}, TAKEN, query={"force": "true"}),
    ],
    ("PATCH", "/v2/ips/zones/<zone>"): [Case({"aging_seconds": 7, "when_empty": "oldest"})],
    ("PATCH", "/v2/ips/hosts/<host>"): [Case({"enabled": False, "reason": "proxy goes"})],
}
DONE_TO_RESERVATIONS = {
    ("PUT", f"{ACCOUNT}/reservations"): [
        Case({"ips": [FREE, NEXT], "seconds": 60}),
        Case({"quantity": 2}),
    ],
    ("PATCH", f"{ACCOUNT}/reservations/<reservation_id>"): [Case({"seconds": 600})],
    ("DELETE", f"{ACCOUNT}/reservations/<reservation_id>"): [Case({})],
}
LIMITS = {("POST", f"{ACCOUNT}/limits"): [Case({"max": 2, "zones": {"us-east": 1}})]}
DONE = DONE_TO_ADDRESSES | DONE_TO_RESERVATIONS | LIMITS | DONE_TO_WEBHOOKS
"""Writes that succeed, for every route that supports dry runs."""

PLANNED = {
    ("POST", "/v2/ips/hosts/<host>/move"): [Case({"zone": "eu"})],
    ("POST", "/v2/ips/hosts/<host>/evacuate"): [Case({})],
}
"""Writes whose dry run returns a plan. `test_job_routes.py` tests it."""

OF_JOBS = {("DELETE", "/v2/ips/jobs/<job_id>"), ("POST", "/v2/ips/transfer")}
"""Writes whose dry runs need other addresses or a job: `test_job_routes.py` tests them."""
OF_EXPORTS = {("POST", "/v2/ips/restore")}
"""A write that needs the lines of an export: `test_export.py` tests it."""

REFUSED = {
    ("PUT", "/v2/ips"): [
        Case({"ip": FREE, **PLACE}),
        Case({"ip": "2001:DB8:0::A", **PLACE}),
        Case({"ips": [{"ip": NEW, **PLACE}, {"ip": FREE, **PLACE}]}),
        Case({"ip": NEW}),
    ],
    ("POST", ACCOUNT): [
        Case({"ips": [FREE, TAKEN, NEW]}),
        Case({"quantity": 9}),
        Case({"quantity": 3, "distinct_hosts": True}),
        Case({"ips": [RESERVED]}),
        Case({"reservation": "1" * 32}),
    ],
    ("PUT", f"{ACCOUNT}/reservations"): [Case({"ips": [FREE, TAKEN]}), Case({"quantity": 9})],
    ("PATCH", f"{ACCOUNT}/reservations/<reservation_id>"): [Case({"seconds": 86_400 + 1})],
    ("DELETE", ACCOUNT): [Case({"ips": [TAKEN, FREE]})],
    ("POST", ADDRESS): [Case({}, TAKEN), Case({}, NEW)],
    ("DELETE", ADDRESS): [Case({}, FREE)],
    ("PATCH", "/v2/ips/<address:address>"): [
        Case({"zone": "eu"}, TAKEN),
        Case({"zone": ""}, FREE),
        Case({"enabled": False}, FREE),
        Case({"enabled": False, "reason": "listed"}, NEW),
        Case({}, NEW),
    ],
    ("DELETE", "/v2/ips/<address:address>"): [Case({}, TAKEN), Case({}, NEW)],
}
"""Writes that are refused."""

IMPOSSIBLE = {
    ("PUT", "/v2/user_auth"),
    ("PUT", "/v2/api_auth"),
    *(("POST", f"{path}/<webhook:webhook_id>/test") for path in WEBHOOKS),
}
"""Routes that support no dry runs."""

Send = Callable[..., Any]


def flat(table: dict[Any, list[Case]]) -> list[Any]:
    return [
        pytest.param(*route, case, id=f"{' '.join(route)} {case.address} {json.dumps(case.data)}")
        for route, cases in table.items()
        for case in cases
    ]


def writes(wsgi: Any) -> dict[tuple[str, str], bool]:
    """Every write, and whether it supports dry runs."""
    operations = [(operation_of(wsgi, rule), rule.rule) for rule in rules_of(wsgi)]
    return {(each.method, rule): each.dry_run for each, rule in operations if each.method != "GET"}


@pytest.fixture(scope="module")
def stored(couch: Couch) -> Callable[[], Any]:
    """A function that returns every revision of every document in every database.

    It reads only the databases that have changed since its last call.
    """
    seen: dict[str, tuple[Any, Any]] = {}

    def revisions(name: str) -> Any:
        return sorted(
            (row["id"], sorted(change["rev"] for change in row["changes"]))
            for row in couch.database(name).changes(since="0", style="all_docs")["results"]
        )

    def look() -> Any:
        names = couch.databases()
        for name, state in states(couch, names).items():
            if name not in seen or seen[name][0] != state:
                seen[name] = state, revisions(name)
        return {name: seen[name][1] for name in names}

    return look


@pytest.fixture
def pool_of_three(
    load: Callable[..., None],
    services: Instance,
    wsgi: Any,
    couch: Couch,
    alice: Member,
    operator: Member,
) -> Iterator[None]:
    """Two available addresses, one of Alice's, one in another spelling, one that is reserved.

    There are two webhooks as well.
    """
    make_webhooks(services, couch, alice.id)
    load(
        *map(kazoo_document, (FREE, NEXT, TAKEN, RESERVED)),
        kazoo_document("2001:DB8::A", zone="eu", host="b", pvt_status="held"),
    )
    services.ips.assign(AssignIP(alice.id, TAKEN), uuid4().hex)
    reserve = ReserveIPs(AssignIPs(alice.id, (RESERVED,)), 3600)
    services.reservations.reserve(reserve, uuid4().hex, attempt=Attempt("sample", 1))
    yield
    remove_webhooks(couch)
    services.limits.set(alice.id, Limits(), uuid4().hex)
    wsgi.extensions["kazoo_ips"].limits.refresh()
    remove_place_settings(couch, services, wsgi.extensions["kazoo_ips"])


@pytest.fixture
def send(api: TestApp, alice: Member, operator: Member) -> Send:
    """A function that sends a request, which may be one for a dry run."""

    def request(
        method: str, rule: str, case: Case, *, dry_run: str = "", value: Any = True, **headers: str
    ) -> Any:
        path = rule.replace("<account_id>", alice.id).replace("<address:address>", case.address)
        path = path.replace("<webhook:webhook_id>", examples.WEBHOOK_ID)
        path = path.replace("<reservation_id>", RESERVATION)
        path = path.replace("<zone>", PLACE["zone"]).replace("<host>", PLACE["host"])
        query, body = dict(case.query), {"data": case.data}
        if dry_run == "query":
            query["dry_run"] = str(value).lower()
        elif dry_run == "envelope":
            body["dry_run"] = value
        elif dry_run == "data":
            body["data"] = {**case.data, "dry_run": value}
        parameters = "&".join(f"{k}={v}" for k, v in query.items())
        return api.request(
            f"{path}?{parameters}",
            method=method,
            body=json.dumps(body).encode(),
            headers={**operator.headers, **headers},
            expect_errors=True,
        )

    return request


def without_time(data: Any) -> Any:
    """Return a reply without the members whose values are known only after the write."""
    if isinstance(data, dict):
        unknown = {"rev", "created", "modified", "at"}
        unknown |= {"id", "secret"} if "secret" in data else set()
        if "expires_at" in data:
            unknown |= {"id", "expires_at", "expires_at_iso_8601"}
        return {k: without_time(v) for k, v in data.items() if k not in unknown}
    return [without_time(item) for item in data] if isinstance(data, list) else data


def test_every_write_has_test_cases(wsgi: Any) -> None:
    supported = writes(wsgi)
    assert {route for route, possible in supported.items() if possible} == {
        *DONE, *PLANNED, *OF_JOBS, *OF_EXPORTS,
    }  # fmt: skip
    assert {route for route, possible in supported.items() if not possible} == IMPOSSIBLE


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize("where", ["query", "envelope", "data"])
@pytest.mark.parametrize(("method", "rule", "case"), flat(DONE))
def test_a_dry_run_returns_the_reply_of_the_write_and_writes_nothing(
    send: Send, stored: Callable[[], Any], method: str, rule: str, case: Case, where: str
) -> None:
    before = stored()
    dry = send(method, rule, case, dry_run=where)
    assert stored() == before
    assert (dry.status_code, dry.json["dry_run"]) == (200, True)
    assert dry.json.keys() == ALWAYS | {"revision", "auth_token", "dry_run"}
    real = send(method, rule, case)
    assert real.status_code == (201 if method == "PUT" else 200), real.text
    assert "dry_run" not in real.json
    assert stored() != before
    dry_data, real_data = without_time(dry.json["data"]), without_time(real.json["data"])
    if case.data == {"quantity": 2}:  # the service chooses at random
        dry_data["ips"].sort()
        real_data["ips"].sort()
    assert dry_data == real_data


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize(("method", "rule", "case"), flat(REFUSED))
def test_a_dry_run_is_refused_as_the_write_would_be(
    send: Send, stored: Callable[[], Any], method: str, rule: str, case: Case
) -> None:
    before = stored()
    dry = send(method, rule, case, dry_run="query")
    real = send(method, rule, case)
    assert stored() == before
    assert dry.status_code == real.status_code >= 400
    assert (dry.json["data"], dry.json["message"]) == (real.json["data"], real.json["message"])
    assert dry.json["dry_run"] is True


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize(
    ("method", "rule", "case"), [each for each in flat(DONE) if each.values[2].address]
)
def test_a_dry_run_respects_if_match(
    send: Send, stored: Callable[[], Any], method: str, rule: str, case: Case
) -> None:
    before = stored()
    dry = send(method, rule, case, dry_run="query", **{"If-Match": '"1-0"'})
    assert dry.status_code == 412
    assert stored() == before
    revision = send(method, rule, case, dry_run="query").headers["ETag"]
    assert send(method, rule, case, **{"If-Match": revision}).status_code == 200


NO_BOOLEANS: list[tuple[str, Any]] = [
    *(("query", value) for value in ("perhaps", "", "2", "truee")),
    *((where, v) for where in ("envelope", "data") for v in (None, "", [], {}, 2, "perhaps")),
]
"""The place of the value in the request, and the value."""


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize("route", [*DONE, *sorted(IMPOSSIBLE)], ids=" ".join)
def test_a_value_that_is_no_boolean_is_400_and_writes_nothing(
    send: Send, operator: Member, stored: Callable[[], Any], route: tuple[str, str]
) -> None:
    before = stored()
    case = DONE.get(route, [Case({})])[0]
    for where, value in NO_BOOLEANS:
        reply = send(*route, case, dry_run=where, value=value)
        problem = invalid(reply, operator.token)
        assert problem == wrong_type("dry_run", "boolean", value), (where, value)
    assert stored() == before


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize("where", ["query", "envelope", "data"])
def test_dry_run_false_is_a_real_write(send: Send, databases: Databases, where: str) -> None:
    reply = send("POST", ADDRESS, Case({}, FREE), dry_run=where, value=False)
    assert reply.status_code == 200
    assert "dry_run" not in reply.json
    assert databases.get("dedicated_ips", FREE)["pvt_status"] == "assigned"


@pytest.mark.usefixtures("pool_of_three")
def test_of_two_contradicting_values_true_counts(send: Send, stored: Callable[[], Any]) -> None:
    before = stored()
    case = Case({"ips": [FREE], "dry_run": True}, query={"dry_run": "false"})
    reply = send("POST", ACCOUNT, case, dry_run="envelope", value=False)
    assert reply.json["dry_run"] is True
    assert stored() == before


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize("route", sorted(IMPOSSIBLE), ids=" ".join)
@pytest.mark.parametrize("where", ["query", "envelope", "data"])
def test_a_login_and_a_test_delivery_support_no_dry_run(
    send: Send, operator: Member, stored: Callable[[], Any], route: tuple[str, str], where: str
) -> None:
    before = stored()
    reply = send(*route, Case({}), dry_run=where)
    assert invalid(reply, operator.token) == broken(
        "dry_run", "forbidden", "this request supports no dry run", value=True
    )
    assert stored() == before


@pytest.mark.usefixtures("pool_of_three")
@pytest.mark.parametrize("route", DONE, ids=" ".join)
def test_a_dry_run_with_an_idempotency_key_is_400(
    send: Send, operator: Member, stored: Callable[[], Any], route: tuple[str, str]
) -> None:
    before, key = stored(), uuid4().hex
    reply = send(*route, DONE[route][0], dry_run="query", **{"Idempotency-Key": key})
    assert [*invalid(reply, operator.token)["dry_run"]] == ["forbidden"]
    assert stored() == before


def test_a_dry_run_that_needs_read_repair_is_400(
    send: Send, load: Callable[..., None], couch: Couch, operator: Member,
    stored: Callable[[], Any],
) -> None:  # fmt: skip
    stored_document = kazoo_document(FREE)
    load(stored_document)
    couch.database("dedicated_ips").graft(
        {**stored_document, "pvt_host": "b", "_rev": f"1-{'f' * 32}"}, f"0-{'0' * 32}"
    )
    before = stored()
    reply = send("POST", ADDRESS, Case({}, FREE), dry_run="query")
    assert [*invalid(reply_without_mark(reply), operator.token)] == ["dry_run"]
    assert stored() == before
    assert send("POST", ADDRESS, Case({}, FREE)).status_code == 200


def reply_without_mark(reply: Any) -> Any:
    """Return the reply to a dry run without the members that only a dry run has."""
    body = {k: v for k, v in reply.json.items() if k != "dry_run"}
    assert body != reply.json
    reply.body = json.dumps(body).encode()
    return reply


# Safeguards for new routes


@pytest.mark.usefixtures("pool_of_three")
def test_a_service_that_ignores_dry_run_cannot_write(
    wsgi: Any, send: Send, stored: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = wsgi.extensions["kazoo_ips"].ips
    assign = service.assign
    monkeypatch.setattr(
        service, "assign", lambda *args, dry_run, **more: assign(*args, **more, dry_run=False)
    )
    before = stored()
    assert send("POST", ADDRESS, Case({}, FREE), dry_run="query").status_code == 400
    assert stored() == before


@pytest.mark.parametrize(("method", "declared"), [("POST", {}), ("GET", {"dry_run": True})])
def test_a_write_must_declare_whether_it_supports_dry_runs(
    method: str, declared: dict[str, bool]
) -> None:
    with pytest.raises(TypeError, match="dry_run"):
        Routes("x", __name__).on(method, "/x", who=Who.OPERATOR, replies=NAMES, **declared)


WRITES: dict[str, tuple[Any, ...]] = {
    "put": ({"_id": "x"},),
    "write": ({"_id": "x"},),
    "remove": ("x", "1-a"),
    "put_all": ([{"_id": "x"}],),
    "graft": ({"_id": "x", "_rev": f"1-{'a' * 32}"}, f"0-{'0' * 32}"),
    "create": (),
    "delete": (),
    "secure": ({},),
    "clean_up_views": (),
}


@pytest.mark.parametrize("method", WRITES)
def test_the_database_refuses_writes_in_a_dry_run(couch: Couch, method: str) -> None:
    database = couch.database("kazoo_ips")
    request_context.begin("dry")
    with request_context.dry_run(), pytest.raises(WriteInDryRun):
        getattr(database, method)(*WRITES[method])
    assert database.find("x") is None
    assert not request_context.is_dry_run()


def test_every_write_is_described_with_dry_run(wsgi: Any) -> None:
    for (method, rule), possible in writes(wsgi).items():
        described = document()["paths"][re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)][method.lower()]
        assert ("dry_run" in {each["name"] for each in described["parameters"]}) is possible
        assert ("200" in described["responses"]) is (possible or method != "PUT")
