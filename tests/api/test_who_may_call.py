"""Every role calls every route with every method: the status is right, and nothing changes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.api.openapi import rules_of
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, CreateIP, DeleteIP
from tests.api.couchdb import Databases, account_database
from tests.api.replies import failure
from tests.openapi_check import CheckedApp

ADDRESS = "192.0.2.1"
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS")

# The status for a caller that is authorised. The requests change nothing: they have an empty
# `data`, an address that is not in the pool, or an If-Match that does not match.
ACCOUNT_ROUTES = {
    "/v2/accounts/{A}/ips": {"GET": 200, "POST": 400, "DELETE": 400},
    "/v2/accounts/{A}/ips/assigned": {"GET": 200},
    "/v2/accounts/{A}/ips/zones": {"GET": 200},
    "/v2/accounts/{A}/ips/hosts": {"GET": 200},
    "/v2/accounts/{A}/ips/summary": {"GET": 200},
    "/v2/accounts/{A}/ips/history": {"GET": 200},
    "/v2/accounts/{A}/ips/changes": {"GET": 200},
    "/v2/accounts/{A}/ips/limits": {"GET": 200},
    "/v2/accounts/{A}/ips/reservations": {"GET": 200, "PUT": 400},
    f"/v2/accounts/{{A}}/ips/reservations/{'0' * 32}": {"GET": 404, "PATCH": 400, "DELETE": 404},
    f"/v2/accounts/{{A}}/ips/{ADDRESS}": {"GET": 200, "POST": 412, "DELETE": 412},
}
WEBHOOK = "0" * 32
"""The id of a webhook that does not exist."""
WEBHOOK_ROUTES = {
    "": {"GET": 200, "PUT": 400, "PATCH": 400},
    "/attempts": {"GET": 200},
    f"/{WEBHOOK}": {"GET": 404, "POST": 400, "PATCH": 400, "DELETE": 404},
    f"/{WEBHOOK}/attempts": {"GET": 404},
    f"/{WEBHOOK}/test": {"POST": 404},
    f"/{WEBHOOK}/replay": {"POST": 400},
    f"/{WEBHOOK}/rotate": {"POST": 404},
}
ACCOUNT_ROUTES |= {f"/v2/accounts/{{A}}/ips/webhooks{k}": v for k, v in WEBHOOK_ROUTES.items()}
ANCESTOR_ROUTES = {"/v2/accounts/{A}/ips/limits": {"POST": 200}}
OPERATOR_ROUTES = {
    "/v2/accounts/{A}/ips": {"PUT": 400},
    "/v2/ips": {"GET": 200, "PUT": 400},
    "/v2/ips/transfer": {"POST": 400},
    "/v2/ips/hosts/proxy1/move": {"POST": 400},
    "/v2/ips/hosts/proxy1/evacuate": {"POST": 404},
    "/v2/ips/jobs": {"GET": 200},
    f"/v2/ips/jobs/{WEBHOOK}": {"GET": 404, "DELETE": 404},
    "/v2/ips/accounts": {"GET": 200},
    "/v2/ips/import": {"POST": 400},
    "/v2/ips/restore": {"POST": 400},
    "/v2/ips/assigned": {"GET": 200},
    "/v2/ips/zones": {"GET": 200},
    "/v2/ips/hosts": {"GET": 200},
    "/v2/ips/summary": {"GET": 200},
    "/v2/ips/export": {"GET": 200},
    "/v2/ips/zones/us-east": {"GET": 200, "PATCH": 400},
    "/v2/ips/hosts/proxy1": {"GET": 404, "PATCH": 400},
    "/v2/ips/history": {"GET": 200},
    "/v2/ips/history/years": {"GET": 200},
    "/v2/ips/history/years/1066": {"GET": 404},
    "/v2/ips/status": {"GET": 200},
    "/v2/ips/zones/us-east/usage": {"GET": 200},
    f"/v2/ips/{ADDRESS}/history": {"GET": 200},
    "/v2/ips/changes": {"GET": 200},
    f"/v2/ips/{ADDRESS}": {"GET": 200, "DELETE": 412, "PATCH": 400},
    **{f"/v2/ips/webhooks{route}": methods for route, methods in WEBHOOK_ROUTES.items()},
    "/v2/about": {"GET": 200},
}
NAMED = {"/v2/schemas/<name>": "/v2/schemas/ips", "/v2/docs/<name>": "/v2/docs/start.js"}
OPEN_ROUTES = {
    "/": {"GET": 200},
    "/v2": {"GET": 200},
    "/v2/user_auth": {"PUT": 400},
    "/v2/api_auth": {"PUT": 400},
    "/v2/schemas": {"GET": 200},
    "/v2/openapi.json": {"GET": 200},
    "/v2/docs": {"GET": 200},
    **{route: {"GET": 200} for route in NAMED.values()},
    "/healthz": {"GET": 200},
    "/readyz": {"GET": 200},
    "/metrics": {"GET": 200},
}
ROUTES = list(dict.fromkeys([*ACCOUNT_ROUTES, *OPERATOR_ROUTES, *OPEN_ROUTES]))

STRANGERS = ("nobody", "bad token", "expired token")
OUTSIDERS = ("another account", "the sibling", "the grandchild")
INSIDERS = ("the account itself", "the parent")
ANCESTORS = ("the parent",)
ROLES = (*STRANGERS, *OUTSIDERS, *INSIDERS, "the operator")
BODIES = {("DELETE", "/v2/accounts/{A}/ips"): b'{"data":{"ips":["203.0.113.99"]}}'}


def expected(role: str, route: str, method: str) -> int:
    """The status that the caller gets according to the contract."""
    method = method.replace("HEAD", "GET")
    everybodys = OPEN_ROUTES.get(route, {}).get(method)
    accounts = ACCOUNT_ROUTES.get(route, {}).get(method)
    ancestors = ANCESTOR_ROUTES.get(route, {}).get(method)
    operators = OPERATOR_ROUTES.get(route, {}).get(method)
    admitted = everybodys or accounts or ancestors or operators
    if admitted is None:
        return 405
    if everybodys or role == "the operator":
        return admitted
    if role in STRANGERS:
        return 401
    if ancestors and role in ANCESTORS:
        return admitted
    return admitted if accounts and role in INSIDERS else 403


@pytest.fixture(scope="module")
def roles(
    settings: Settings, member: Callable[..., Any], operator: Any, alice: Any, bob: Any, child: Any
) -> dict[str, dict[str, str]]:
    """The headers of every role; the account is a child of Alice's."""
    sibling, grandchild = member("Sibling", alice), member("Grandchild", child)
    past = composition.build(settings, clock=lambda: time.time() - 7200)
    expired = past.auth.open_session(child.account, child.user).token
    return {
        "nobody": {},
        "bad token": {"X-Auth-Token": "nonsense"},
        "expired token": {"X-Auth-Token": expired},
        "another account": bob.headers,
        "the sibling": sibling.headers,
        "the grandchild": grandchild.headers,
        "the account itself": child.headers,
        "the parent": alice.headers,
        "the operator": operator.headers,
    }


@pytest.fixture(scope="module")
def documents(
    services: Instance, databases: Databases, couch: Any, child: Any
) -> Iterator[Callable[[], Any]]:
    """Return the pool document and the copy of the address, which is assigned to the account."""
    services.pool.create(CreateIP(ADDRESS, "us-east", "proxy1.example.com"), "0" * 32)
    services.ips.assign(AssignIP(child.id, ADDRESS), "0" * 32)

    def read() -> Any:
        pool = databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"]
        return pool, databases.get(account_database(child.id), ADDRESS)

    yield read
    services.pool.delete(DeleteIP(ADDRESS, force=True), "0" * 32)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("role", ROLES)
def test_every_role_gets_the_status_of_the_contract(
    wsgi: Any, child: Any, roles: Any, documents: Callable[[], Any], role: str, route: str
) -> None:
    api, before = CheckedApp(wsgi), documents()
    headers = {**roles[role], "If-Match": '"1-0"'}
    for method in METHODS:
        reply = api.request(
            route.format(A=child.id),
            method=method,
            body=BODIES.get((method, route), b'{"data":{}}')
            if method in ("PUT", "POST", "DELETE")
            else b"",
            headers=headers,
            status=expected(role, route, method),
        )
        if method == "HEAD":
            assert reply.body == b""
            continue
        token = roles[role].get("X-Auth-Token")
        if reply.status_code == 401:
            data = failure(reply, token, "invalid_credentials")
            assert data == {"message": "invalid credentials"}
        elif reply.status_code == 403:
            assert failure(reply, token, "forbidden") == {"message": "forbidden"}
    assert documents() == before


def test_the_table_has_every_route_of_the_application(wsgi: Any) -> None:
    registered = {
        (NAMED.get(path, path), method)
        for rule in rules_of(wsgi)
        for path in [
            rule.rule.replace("<account_id>", "{A}")
            .replace("<address:address>", ADDRESS)
            .replace("<webhook:webhook_id>", WEBHOOK)
            .replace("<reservation_id>", "0" * 32)
            .replace("<host>", "proxy1")
            .replace("<zone>", "us-east")
            .replace("<job_id>", WEBHOOK)
            .replace("<year>", "1066")
        ]
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    tabled = {
        (route, method)
        for table in (ACCOUNT_ROUTES, ANCESTOR_ROUTES, OPERATOR_ROUTES, OPEN_ROUTES)
        for route, methods in table.items()
        for method in methods
    }
    assert registered == tabled


STRANGE_IDS = ["f" * 32, "nonsense", "A" * 32, "0", "x" * 500, "%C3%A9", "%00", "%20", "..",
               "_design", "accounts", "undefined"]  # fmt: skip


@pytest.mark.parametrize(
    ("rest", "method"),
    [
        *((rest, method) for rest in ("", "/192.0.2.1") for method in ("GET", "POST", "DELETE")),
        *((rest, "GET") for rest in ("/assigned", "/zones", "/hosts", "/summary", "/history")),
    ],
)
def test_a_foreign_account_is_the_same_403_whether_it_exists_or_not(
    settings: Settings, alice: Any, bob: Any, operator: Any, rest: str, method: str
) -> None:
    now = time.time()
    api = CheckedApp(composition.create_app(settings, clock=lambda: now))
    headers = {**bob.headers, "X-Request-ID": "same"}
    replies = {
        (reply.status_code, reply.body, tuple(reply.headers.items()))
        for account_id in (alice.id, operator.id, *STRANGE_IDS)
        for reply in [
            api.request(
                f"/v2/accounts/{account_id}/ips{rest}",
                method=method,
                headers=headers,
                status=403,
            )
        ]
    }
    assert len(replies) == 1


def test_without_a_token_a_foreign_a_missing_and_a_malformed_account_are_the_same_401(
    settings: Settings, alice: Any
) -> None:
    now = time.time()
    api = CheckedApp(composition.create_app(settings, clock=lambda: now))
    replies = {
        reply.body
        for account_id in (alice.id, *STRANGE_IDS)
        for reply in [
            api.get(f"/v2/accounts/{account_id}/ips", headers={"X-Request-ID": "same"}, status=401)
        ]
    }
    assert len(replies) == 1


def test_a_refused_caller_gets_no_errors_of_its_body(api: TestApp, bob: Any) -> None:
    for headers, status in ((bob.headers, 403), ({}, 401)):
        reply = api.request(
            f"/v2/accounts/{'f' * 32}/ips", method="POST", body=b"{", headers=headers,
            status=status,
        )  # fmt: skip
        assert reply.json["error"] == str(status)
