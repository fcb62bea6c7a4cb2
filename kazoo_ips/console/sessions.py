"""The session of a browser: a cookie with Kazoo's token, and the tokens against CSRF.

The cookie is HttpOnly, SameSite=Strict and for `/console` only: no script can read it, no page of
another site can use it, and the API does not accept it. Each form has a token that is computed
from a cookie, so no session has to be stored, and every process accepts it.
"""

import hmac
import secrets

from flask import Request, Response, g

from kazoo_ips.errors import Forbidden, InvalidCredentials
from kazoo_ips.services.accounts.authentication import AuthenticationService, Session

PATH = "/console"
COOKIE = "kazoo_ips_console"
"""The cookie with the token."""
VISITOR = "kazoo_ips_visitor"
"""The cookie of a browser that has not logged in: a random text, for the form of the login."""
FIELD = "csrf"
"""The field of each form that has the token against CSRF."""
_FOREIGN = {"cross-site", "same-site"}
"""Values of Sec-Fetch-Site of a request that a page of another origin has caused."""


def read(incoming: Request, auth: AuthenticationService) -> Session | None:
    """Return the session of a request; None if its token is missing or not valid any more."""
    token = incoming.cookies.get(COOKIE, "")
    if not token:
        return None
    try:
        return Session(token, auth.authenticate(token))
    except InvalidCredentials:
        return None


def form_token(incoming: Request) -> str:
    """Return the token for the forms of a page.

    A browser without a session gets the cookie `VISITOR` with the page.
    """
    secret = incoming.cookies.get(COOKIE) or incoming.cookies.get(VISITOR)
    if not secret:
        secret = g.visitor = g.get("visitor") or secrets.token_urlsafe(24)
    return _token_of(secret)


def check_form(incoming: Request) -> None:
    """Refuse a form that no page of the console has sent.

    :raises Forbidden: the token is missing or wrong, or a page of another origin has sent the form
    """
    secret = incoming.cookies.get(COOKIE) or incoming.cookies.get(VISITOR) or ""
    given = incoming.form.get(FIELD, "")
    if incoming.headers.get("Sec-Fetch-Site") in _FOREIGN:
        raise Forbidden
    if not secret or not hmac.compare_digest(given.encode(), _token_of(secret).encode()):
        raise Forbidden


def _token_of(secret: str) -> str:
    return hmac.digest(secret.encode(), b"form of the console", "sha256").hex()


def set_cookie(incoming: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie of the console until the browser is closed.

    It is Secure if the request came by TLS. X-Forwarded-Proto is read without checking who has set
    it: a client that forges it affects its own cookie only.
    """
    by_tls = "https" in (incoming.scheme, incoming.headers.get("X-Forwarded-Proto", "").lower())
    response.set_cookie(name, value, path=PATH, secure=by_tls, httponly=True, samesite="Strict")


def end(response: Response, *names: str) -> None:
    """Let the browser delete cookies of the console."""
    for name in names:
        response.delete_cookie(name, path=PATH, httponly=True, samesite="Strict")


def local_path(given: str | None) -> str:
    """Return a path of the console to go to after a login; any other text becomes `/console`.

    >>> local_path("/console/addresses?zone=a"), local_path("//example.com/console")
    ('/console/addresses?zone=a', '/console')
    """
    given = given or ""
    is_inside = given == PATH or given.startswith((f"{PATH}/", f"{PATH}?"))
    is_unsafe = "\\" in given or ".." in given or not given.isprintable()
    return given if is_inside and not is_unsafe else PATH
