"""Login and logout of the console, and what is refused: CSRF, other sites, stolen cookies."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.console import sessions
from kazoo_ips.model import DedicatedIP
from tests.conftest import Member
from tests.console.browsing import Browser


def test_a_login_leads_to_the_page_that_was_wanted(visitor: Browser, operator: Member) -> None:
    wanted = visitor.get("/console/addresses?zone=a%26b", status=303)
    form = visitor.get(wanted.location).forms["login"]
    form["account"], form["username"], form["password"] = operator.account.realm, "ADMIN", "secret"
    reply = form.submit(status=303)
    assert reply.location.endswith("/console/addresses?zone=a%26b")
    assert "All addresses" not in reply.follow().text


def test_a_login_by_the_name_of_the_account(
    visitor: Browser, member: Callable[..., Member], operator: Member
) -> None:
    made = member("Named. Only Here", operator)
    form = visitor.get("/console/login").forms["login"]
    form["account"], form["username"], form["password"] = made.account.name, "admin", "secret"
    assert form.submit(status=303).location.endswith("/console")


@pytest.mark.parametrize(
    ("account", "user", "password"),
    [
        ("", "", ""),
        ("nobody.example.com", "admin", "secret"),
        ("Operator", "admin", "not-the-one"),
    ],
)
def test_a_wrong_login_has_one_text(
    visitor: Browser, account: str, user: str, password: str
) -> None:
    form = visitor.get("/console/login").forms["login"]
    form["account"], form["username"], form["password"] = account, user, password
    reply = form.submit(status=401)
    assert "Account, user or password is wrong." in reply.text
    assert password == "" or password not in reply.text
    assert sessions.COOKIE not in visitor.cookies


def test_failed_logins_are_limited(settings: Settings, operator: Member) -> None:
    limited = replace(settings, login_limit=2)
    browser = Browser(composition.create_app(limited), {"REMOTE_ADDR": "203.0.113.77"})
    for _ in range(2):
        assert browser.log_in(operator, "wrong").status_int in (401, 429)
    reply = browser.log_in(operator, "wrong")
    assert reply.status_int == 429
    assert int(reply.headers["Retry-After"]) > 0
    assert "Too many logins have failed" in reply.text


def test_the_cookie_is_for_the_console_only(visitor: Browser, wsgi: Any, operator: Member) -> None:
    reply = visitor.log_in(operator)
    [cookie] = [c for c in reply.headers.getall("Set-Cookie") if c.startswith(sessions.COOKIE)]
    attributes = set(cookie.split("; ")[1:])
    assert attributes == {"HttpOnly", "Path=/console", "SameSite=Strict"}
    token = visitor.cookies[sessions.COOKIE]
    # The API reads no cookie.
    visitor.get("/v2/ips", headers={"Cookie": f"{sessions.COOKIE}={token}"}, status=401)


def test_over_tls_the_cookie_is_secure(visitor: Browser, operator: Member) -> None:
    form = visitor.get("/console/login").forms["login"]  # WebTest is no TLS client
    form["account"], form["username"], form["password"] = operator.account.realm, "admin", "secret"
    headers = {"X-Forwarded-Proto": "https"}
    [cookie] = form.submit(headers=headers, status=303).headers.getall("Set-Cookie")[-1:]
    assert cookie.startswith(f"{sessions.COOKIE}=eyJ")
    assert "; Secure" in cookie
    visitor.reset()
    assert "; Secure" in visitor.get("/console/login", headers=headers).headers["Set-Cookie"]


def test_a_logout_forgets_the_token(owner: Browser) -> None:
    token = owner.token()
    owner.post("/console/logout", {"csrf": token}, status=303)
    assert sessions.COOKIE not in owner.cookies
    owner.get("/console", status=303)


def test_a_disabled_account_is_logged_out(
    visitor: Browser, member: Callable[..., Member], operator: Member, services: Instance
) -> None:
    made = member("Disabled Later", operator)
    visitor.log_in(made)
    visitor.get(f"/console/accounts/{made.id}", status=200)
    services.accounts.set_enabled(made.id, False)
    assert "/console/login" in visitor.get("/console", status=303).location


@pytest.mark.parametrize("cookie", ["", "nonsense", "eyJ.eyJ.x"])
def test_a_forged_cookie_is_no_session(visitor: Browser, cookie: str) -> None:
    visitor.set_cookie(sessions.COOKIE, cookie)
    assert "/console/login" in visitor.get("/console/addresses", status=303).location


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/console", "//evil.example/console", "/\\evil.example/console",
        "/console\\@evil.example", "javascript:alert(1)", "/consoles", "/v2/ips", "/console/../v2",
        "console", "/\t/evil.example/console", "///console", "https:/console",
    ],
)  # fmt: skip
def test_no_login_leads_to_another_site(visitor: Browser, operator: Member, target: str) -> None:
    form = visitor.get("/console/login", {"next": target}).forms["login"]
    assert form["next"].value == "/console"
    form["next"].force_value(target)
    form["account"], form["username"], form["password"] = operator.account.realm, "admin", "secret"
    assert form.submit(status=303).headers["Location"] == "/console"


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"csrf": ""}, {}),
        ({"csrf": "0" * 64}, {}),
        ({"csrf": "TOKEN"}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": "TOKEN"}, {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_a_form_of_another_site_changes_nothing(
    owner: Browser,
    add: Callable[..., DedicatedIP],
    services: Instance,
    form: dict[str, str],
    headers: dict[str, str],
) -> None:
    ip = add()
    sent = {k: v.replace("TOKEN", owner.token()) for k, v in form.items()}
    sent |= {"confirmed": "yes", "revision": ip.revision or ""}
    path = f"/console/addresses/{ip.address}/delete"
    owner.post(path, sent, headers=headers, status=403)
    assert services.ips.fetch(ip.address).revision == ip.revision


def test_a_token_of_another_session_is_refused(
    owner: Browser, hers: Browser, add: Callable[..., DedicatedIP], services: Instance
) -> None:
    ip = add()
    sent = {"csrf": hers.token(), "confirmed": "yes", "revision": ip.revision}
    owner.post(f"/console/addresses/{ip.address}/delete", sent, status=403)
    assert services.ips.fetch(ip.address).revision == ip.revision


def test_the_login_needs_a_token_too(visitor: Browser, operator: Member) -> None:
    sent = {"account": operator.account.realm, "username": "admin", "password": "secret"}
    visitor.post("/console/login", sent, status=403)
    visitor.get("/console/login")
    visitor.post("/console/login", {**sent, "csrf": "0" * 64}, status=403)
    assert sessions.COOKIE not in visitor.cookies


def test_a_get_changes_nothing(owner: Browser, add: Callable[..., DedicatedIP]) -> None:
    ip = add()
    token = owner.token()
    for action in ("assign", "release", "delete"):
        path = f"/console/addresses/{ip.address}/{action}?csrf={token}&confirmed=yes"
        owner.get(path, status=404)
    owner.get("/console/logout", status=404)
    # The console ignores `verb`, by which a POST of the API names another method.
    owner.post("/console/addresses?verb=GET", {"csrf": token}, status=405)


def test_the_session_is_limited_as_the_api_is(settings: Settings, operator: Member) -> None:
    browser = Browser(composition.create_app(replace(settings, account_limit=1)))
    browser.log_in(operator)
    statuses = {browser.get("/console/accounts", status="*").status_int for _ in range(12)}
    assert statuses == {200, 429}
