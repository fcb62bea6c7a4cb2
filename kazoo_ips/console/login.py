"""Login and logout."""

import hashlib
from typing import Any

from flask import redirect, request, url_for

from kazoo_ips.api.client_address import client_address
from kazoo_ips.api.errors import headers
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import explanations, sessions
from kazoo_ips.console.pages import page, pages
from kazoo_ips.errors import InvalidCredentials, TooManyAttempts
from kazoo_ips.model import Login
from kazoo_ips.services.accounts.authentication import Session


@pages.on("GET", "/login", who=Who.ANYONE)
def show_login() -> str:
    """The form of the login."""
    return page("login.html", next=sessions.local_path(request.args.get("next")), given={})


@pages.on("POST", "/login", who=Who.ANYONE, confirm=False)
def log_in() -> Any:
    """Log in with Kazoo's user and password, and go to the page that the browser wanted."""
    given, path = request.form, sessions.local_path(request.form.get("next"))
    try:
        session = _session(given.get("account", "").strip(), given.get("username", ""))
    except InvalidCredentials:
        text = "Account, user or password is wrong."
        return page("login.html", next=path, given=given, problem=text), 401
    except TooManyAttempts as error:
        [text] = explanations.of_error(error, 429)
        return page("login.html", next=path, given=given, problem=text), 429, headers(error, 429)
    response: Any = redirect(path, 303)
    sessions.end(response, sessions.VISITOR)
    sessions.set_cookie(request, response, sessions.COOKIE, session.token)
    return response


@pages.on("POST", "/logout", who=Who.ANYONE, confirm=False)
def log_out() -> Any:
    """Delete the cookie. The token is nowhere else."""
    response: Any = redirect(url_for("console.show_login"), 303)
    sessions.end(response, sessions.COOKIE, sessions.VISITOR)
    return response


def _session(account: str, username: str) -> Session:
    """Log in at the account with this realm or name.

    A text that can be a realm is tried as a realm first, as realms are unique.

    :raises InvalidCredentials: the login is wrong
    :raises TooManyAttempts: too many logins of the client or the account have failed
    """
    # Kazoo stores the names of users in lower case, and hashes them so.
    credentials = f"{username.strip().lower()}:{request.form.get('password', '')}"
    hashed = hashlib.md5(credentials.encode(), usedforsecurity=False).hexdigest()
    auth, client = services().auth, client_address(request)
    if "." in account and " " not in account:
        try:
            return auth.log_in(Login(hashed, realm=account), client)
        except InvalidCredentials:
            pass
    return auth.log_in(Login(hashed, name=account), client)
