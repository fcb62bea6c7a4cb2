"""Kazoo's token restrictions: one test for each rule, then all routes of an account over HTTP."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.model.token_restrictions import Access, level_rules
from kazoo_ips.repositories.accounts import account_database
from tests.api.every_route import ROUTES, operation, url
from tests.conftest import Member

OWN, BELOW, OTHER = "a" * 32, "b" * 32, "c" * 32
READ_ONLY = {"ips": [{"rules": {"#": ["GET"]}}]}
DENIED = {"message": "forbidden", "cause": "access denied by token restrictions"}


def access(path: str = "", verb: str = "GET", account: str = OWN) -> Access:
    arguments = tuple(path.split("/")) if path else ()
    return Access(OWN, account, account == BELOW, "ips", arguments, verb)


def rules(patterns: Any, **entry: Any) -> dict[str, Any]:
    return {"ips": [{**entry, "rules": patterns}]}


FIRST, SECOND = {"admin": {"ips": [1]}}, {"admin": {"ips": [2]}}


@pytest.mark.parametrize(
    ("templates", "method", "level", "chosen"),
    [
        pytest.param([{}, {}], "cb_user_auth", "admin", None, id="nothing is restricted"),
        pytest.param([{"cb_user_auth": FIRST, "_": SECOND}, {}], "cb_user_auth", "admin", [1],
                     id="the method of the token"),
        pytest.param([{"cb_user_auth": FIRST, "_": SECOND}, {}], "cb_api_auth", "admin", [2],
                     id="any other method"),
        pytest.param([{"cb_api_auth": FIRST}, {"cb_user_auth": SECOND}], "cb_user_auth", "admin",
                     [2], id="the system, if the account has none for the method"),
        pytest.param([{"_": FIRST}, {"cb_user_auth": SECOND}], "cb_user_auth", "admin", [1],
                     id="the account's catch-all before the system"),
        pytest.param([{"cb_user_auth": None}, {"_": FIRST}], "cb_user_auth", "admin", [1],
                     id="null is none"),
        pytest.param([{"_": {"user": {"ips": [1]}, "_": {"ips": [2]}}}], "m", "user", [1],
                     id="the level of the user"),
        pytest.param([{"_": {"user": {"ips": [1]}, "_": {"ips": [2]}}}], "m", "admin", [2],
                     id="any other level"),
        pytest.param([{"_": {"user": {"ips": [1]}}}], "m", "admin", None,
                     id="a level without rules is not restricted"),
        pytest.param([{"_": {}}, {"_": FIRST}], "m", "admin", None,
                     id="an account that restricts no level is not restricted by the system"),
    ],
)  # fmt: skip
def test_the_rules_are_chosen_by_template_method_and_level(
    templates: list[dict[str, Any]], method: str, level: str, chosen: list[int] | None
) -> None:
    found = level_rules(templates, method, level)
    assert (None if found is None else found["ips"]) == chosen


@pytest.mark.parametrize(
    ("found", "request_", "permitted"),
    [
        ({"ips": [{"rules": {"#": ["_"]}}], "_": []}, access(), True),
        ({"_": [{"rules": {"#": ["_"]}}]}, access(), True),
        ({"devices": [{"rules": {"#": ["_"]}}]}, access(), False),
        ({"ips": [], "_": [{"rules": {"#": ["_"]}}]}, access(), False),
        ({}, access(), False),
    ],
)
def test_the_rules_of_the_endpoint_apply(
    found: dict[str, Any], request_: Access, permitted: bool
) -> None:
    assert request_.is_permitted(found) is permitted


@pytest.mark.parametrize(
    ("allowed", "account", "permitted"),
    [
        (None, OTHER, True),
        (["_"], OTHER, True),
        (["{AUTH_ACCOUNT_ID}"], OWN, True),
        (["{AUTH_ACCOUNT_ID}"], BELOW, False),
        (["{DESCENDANT_ACCOUNT_ID}"], BELOW, True),
        (["{DESCENDANT_ACCOUNT_ID}"], OWN, False),
        (["{DESCENDANT_ACCOUNT_ID}"], OTHER, False),
        ([OTHER], OTHER, True),
        ([OTHER], OWN, False),
        (["{AUTH_ACCOUNT_ID}", "{DESCENDANT_ACCOUNT_ID}"], BELOW, True),
        ([], OWN, False),
    ],
)
def test_a_rule_applies_to_its_accounts(
    allowed: list[str] | None, account: str, permitted: bool
) -> None:
    entry = {} if allowed is None else {"allowed_accounts": allowed}
    assert access(account=account).is_permitted(rules({"#": ["_"]}, **entry)) is permitted


def test_only_the_first_entry_of_the_account_applies() -> None:
    found = {
        "ips": [
            {"allowed_accounts": ["{DESCENDANT_ACCOUNT_ID}"], "rules": {"#": ["_"]}},
            {"rules": {"#": ["GET"]}},
            {"rules": {"#": ["_"]}},
        ]
    }
    assert not access(verb="POST").is_permitted(found)
    assert access(verb="POST", account=BELOW).is_permitted(found)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("", "", True),
        ("/", "", True),
        ("", "zones", False),
        ("*", "", False),
        ("*", "192.0.2.1", True),
        ("*", "192.0.2.1/history", False),
        ("*/history", "192.0.2.1/history", True),
        ("#", "", True),
        ("#", "192.0.2.1/history", True),
        ("#/history", "192.0.2.1/history", True),
        ("#/history", "history", True),
        ("#/history", "192.0.2.1", False),
        ("zones", "zones", True),
        ("zones/", "zones", True),
        ("/zones", "zones", False),
        ("zones", "hosts", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::FFFF:c000:201", True),
        ("2001:DB8::1", "2001:db8:0:0::1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_pattern_matches_the_path(pattern: str, path: str, matches: bool) -> None:
    assert access(path).is_permitted(rules({pattern: ["_"]})) is matches


def test_only_the_first_matching_pattern_applies() -> None:
    found = rules({"zones": ["_"], "*": ["GET"], "#": ["_"]})
    assert access("zones", "POST").is_permitted(found)
    assert not access("192.0.2.1", "POST").is_permitted(found)
    assert access("", "POST").is_permitted(found)


def test_a_rule_for_one_address_applies_to_every_spelling() -> None:
    found = rules({"192.0.2.1": ["GET"], "#": ["_"]})
    for spelling in ("192.0.2.1", "::ffff:192.0.2.1", "0:0:0:0:0:FFFF:192.0.2.1"):
        assert not access(spelling, "POST").is_permitted(found)
    assert access("192.0.2.2", "POST").is_permitted(found)


@pytest.mark.parametrize(
    ("verbs", "permitted"),
    [(["GET"], False), (["GET", "POST"], True), (["_"], True), ([], False), (["GET", "_"], True)],
)
def test_a_rule_applies_to_its_verbs(verbs: list[str], permitted: bool) -> None:
    assert access(verb="POST").is_permitted(rules({"#": verbs})) is permitted


@pytest.mark.parametrize(
    "found",
    [{"ips": 1}, {"ips": [1]}, rules(None), rules({"#": "GET"}), rules({"#": None}),
     rules({"#": ["_"]}, allowed_accounts="_")],
)  # fmt: skip
def test_rules_of_another_form_permit_nothing(found: dict[str, Any]) -> None:
    assert not access().is_permitted(found)


# Over HTTP.

Restrict = Callable[..., None]


@pytest.fixture
def restrict(couch: Couch) -> Iterator[Restrict]:
    """A function that sets the token restrictions of an account, or of the system (None)."""
    written: dict[Member | None, Any] = {}

    def put(member: Member | None, **content: Any) -> None:
        if member is None:
            database, name = couch.database("system_config"), "crossbar.token_restrictions"
        else:
            database, name = couch.database(account_database(member.id)), "token_restrictions"
            content = {"pvt_type": "token_restrictions", "restrictions": content}
        before = database.find(name) or {}
        database.put({"_id": name, **content, **{k: before[k] for k in ("_rev",) if k in before}})
        written[member] = database, name

    yield put
    for database, name in written.values():
        database.remove(name, database.get(name)["_rev"])


def test_a_token_that_may_only_read_changes_nothing_on_any_route(
    api: TestApp, load: Any, add: Any, alice: Member, restrict: Restrict
) -> None:
    for n in (1, 2):
        add(f"192.0.2.{n}")
    ips = f"/v2/accounts/{alice.id}/ips"
    api.post_json(f"{ips}/192.0.2.1", {}, headers=alice.headers, status=200)
    restrict(alice, _={"_": READ_ONLY})
    some = {"data": {"ips": ["192.0.2.2"]}}
    for method, path, body in [
        ("POST", "", some),
        ("POST", "", {"data": {"quantity": 1}}),
        ("POST", "/192.0.2.2", {}),
        ("POST", "/192.0.2.2?dry_run=true", {}),
        ("DELETE", "", {"data": {"ips": ["192.0.2.1"]}}),
        ("DELETE", "", {}),
        ("DELETE", "/192.0.2.1", {}),
        ("POST", "/192.0.2.1", {"verb": "DELETE"}),
        ("POST", "?verb=delete", {}),
    ]:
        reply = api.request(
            f"{ips}{path}", method=method, body=str(body).replace("'", '"').encode(),
            headers=alice.headers, status=403,
        )  # fmt: skip
        assert (reply.json["message"], reply.json["data"]) == ("forbidden", DENIED)
    for path in ("", "/assigned", "/zones", "/hosts", "/192.0.2.1"):
        api.get(f"{ips}{path}", headers=alice.headers, status=200)
    # A tunnelled GET counts as a GET.
    api.post_json(f"{ips}/192.0.2.1", {"verb": "GET"}, headers=alice.headers, status=200)


ACCOUNT_ROUTES = [
    pytest.param(*route, id=" ".join(route))
    for route, rule in ROUTES.items()
    if operation(rule).who in {Who.ACCOUNT, Who.ABOVE}
]
"""Every route of an account, by its method and path."""
OPERATORS = ("PUT", "/v2/accounts/<account_id>/ips")
"""Restrictions do not apply to the operator, and only the operator may call this route."""


def test_every_path_below_an_account_is_a_route_of_the_account() -> None:
    below = {route for route in ROUTES if route[1].startswith("/v2/accounts/")}
    assert below == {each.values for each in ACCOUNT_ROUTES} | {OPERATORS}


Denied = Callable[..., bool]


@pytest.fixture
def denied(api: TestApp, load: Any, alice: Member, child: Member) -> Denied:
    """A function that sends a request of Alice, and returns whether restrictions refuse it.

    By default, the request is for an account below Alice's. It has an unknown parameter. So a
    permitted request is refused for the parameter, and changes nothing.
    """

    def send(
        method: str, path: str, account_id: str = child.id, *, verb: str | None = None
    ) -> bool:
        reply = api.request(
            f"{url(ROUTES[method, path], account_id)}?nothing=1",
            method=verb or method,
            body=json.dumps({"verb": method}).encode() if verb == "POST" else b"",
            headers={**alice.headers, "Content-Type": "application/json"},
            expect_errors=True,
        )
        if verb == "HEAD":
            return reply.status_int == 403
        message = reply.json["message"]
        assert (reply.status_int, message) in {(403, "forbidden"), (400, "validation error")}
        assert reply.status_int == 400 or reply.json["data"] == DENIED
        return bool(reply.status_int == 403)

    return send


def own_pattern(path: str) -> str:
    """The pattern of exactly this path: `*` in place of each variable."""
    return re.sub("<[^>]+>", "*", path.partition("/ips")[2].strip("/"))


@pytest.mark.parametrize(("method", "path"), ACCOUNT_ROUTES)
def test_every_rule_holds_on_every_route_of_an_account(
    denied: Denied, alice: Member, child: Member, restrict: Restrict, method: str, path: str
) -> None:
    def permits(found: Any, **more: Any) -> bool:
        restrict(alice, _={"_": found})
        return not denied(method, path, **more)

    segments = own_pattern(path)
    other = "POST" if method != "POST" else "DELETE"
    anything = {"#": ["_"]}
    # The endpoint.
    assert permits(rules(anything))
    assert permits({"_": [{"rules": anything}]})
    assert not permits({"devices": [{"rules": anything}]})
    assert not permits({"ips": [], "_": [{"rules": anything}]})
    # The account.
    for allowed, permitted in (
        (["_"], True),
        (["{DESCENDANT_ACCOUNT_ID}"], True),
        ([child.id], True),
        (["{AUTH_ACCOUNT_ID}"], False),
        ([alice.id], False),
        ([], False),
    ):
        assert permits(rules(anything, allowed_accounts=allowed)) is permitted
    first = {"allowed_accounts": [child.id], "rules": {"#": [other]}}
    assert not permits({"ips": [first, {"rules": anything}]})
    # The pattern: the first that matches, and no other.
    assert permits(rules({segments: [method]}))
    assert permits(rules({f"{segments}/#": [method]})) or not segments
    assert not permits(rules({f"{segments}/more".strip("/"): ["_"]}))
    assert not permits(rules({segments: [other], "#": ["_"]}))
    assert permits(rules({"more/than/this/has": [other], segments: [method]}))
    assert not permits(rules({}))
    # The verb.
    assert permits(rules({"#": [other, method]}))
    assert not permits(rules({"#": [other]}))
    assert not permits(rules({"#": []}))
    # HEAD counts as GET, and a tunnelled method as itself.
    if method == "GET":
        assert permits(rules({"#": ["GET"]}), verb="HEAD")
        assert not permits(rules({"#": ["POST", "HEAD"]}), verb="HEAD")
    if method != "POST":
        assert permits(rules({"#": [method]}), verb="POST")
        assert not permits(rules({"#": ["POST"]}), verb="POST")


def test_a_transfer_is_a_request_for_both_accounts(
    api: TestApp, load: Any, alice: Member, child: Member, restrict: Restrict
) -> None:
    body = {"data": {"ips": ["192.0.2.1"], "from": alice.id, "to": child.id}}

    def status(**entry: Any) -> int:
        restrict(alice, _={"_": rules({"transfer": ["POST"]}, **entry)})
        reply = api.post_json(
            "/v2/ips/transfer?nothing=1", body, headers=alice.headers, expect_errors=True
        )
        return int(reply.status_int)

    assert status() == 400
    assert status(allowed_accounts=["{AUTH_ACCOUNT_ID}"]) == 403
    assert status(allowed_accounts=["{DESCENDANT_ACCOUNT_ID}"]) == 403
    assert status(allowed_accounts=["{AUTH_ACCOUNT_ID}", "{DESCENDANT_ACCOUNT_ID}"]) == 400
    restrict(alice, _={"_": rules({"transfer": ["GET"]})})
    api.post_json("/v2/ips/transfer?nothing=1", body, headers=alice.headers, status=403)


def test_the_rules_are_of_the_tokens_account_and_of_the_account_in_the_path(
    api: TestApp, load: Any, alice: Member, child: Member, restrict: Restrict
) -> None:
    below = {"allowed_accounts": ["{DESCENDANT_ACCOUNT_ID}"], "rules": {"zones": ["GET"]}}
    restrict(alice, cb_user_auth={"_": {"ips": [below]}})
    zones = "/v2/accounts/{}/ips/zones"
    api.get(zones.format(child.id), headers=alice.headers, status=200)
    api.get(zones.format(alice.id), headers=alice.headers, status=403)
    api.get(zones.format(child.id), headers=child.headers, status=200)
    hosts = f"/v2/accounts/{child.id}/ips/hosts"
    api.get(hosts, headers=alice.headers, status=403)


def test_another_account_is_refused_as_before(
    api: TestApp, load: Any, alice: Member, bob: Member, restrict: Restrict
) -> None:
    restrict(alice, _={"_": {"ips": [{"rules": {"#": ["_"]}}]}})
    reply = api.get(f"/v2/accounts/{bob.id}/ips", headers=alice.headers, status=403)
    assert reply.json["data"] == {"message": "forbidden"}


@pytest.mark.parametrize("section", ["default", "kazoo@node.example.com", "zone-1"])
def test_the_systems_rules_hold_for_all_but_the_operator(
    api: TestApp, load: Any, alice: Member, operator: Member, restrict: Restrict, section: str
) -> None:
    restrict(None, **{section: {"_": {"_": READ_ONLY}}})
    for member, status in ((alice, 403), (operator, 200)):
        ips = f"/v2/accounts/{member.id}/ips"
        api.get(ips, headers=member.headers, status=200)
        api.delete(ips, headers=member.headers, status=status)


def test_the_level_is_the_users_or_the_default(
    api: TestApp, load: Any, services: Instance, couch: Couch, alice: Member, restrict: Restrict
) -> None:
    restrict(alice, _={"user": READ_ONLY})
    ips = f"/v2/accounts/{alice.id}/ips"
    api.delete(ips, headers=alice.headers, status=200)  # an admin
    database = couch.database(account_database(alice.id))
    for level in ("user", "admin"):
        database.put({**database.get(alice.user.id), "priv_level": level})
        api.delete(ips, headers=alice.headers, status=403 if level == "user" else 200)
    by_key = {"X-Auth-Token": services.auth.open_session(alice.account).token}
    api.delete(ips, headers=by_key, status=200)
    restrict(None, default={"default_priv_level": "user"})
    api.delete(ips, headers=by_key, status=403)


def test_basic_authentication_has_a_method_of_its_own(
    api: TestApp, load: Any, couch: Couch, alice: Member, restrict: Restrict
) -> None:
    hashed = couch.database(account_database(alice.id)).get(alice.user.id)["pvt_md5_auth"]
    restrict(alice, cb_basic_auth={"_": READ_ONLY})
    ips = f"/v2/accounts/{alice.id}/ips"
    api.authorization = ("Basic", (alice.id, hashed))
    api.get(ips, status=200)
    api.delete(ips, status=403)
    api.authorization = None
    api.delete(ips, headers=alice.headers, status=200)
