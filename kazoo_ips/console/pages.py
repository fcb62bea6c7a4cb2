"""The blueprint of the console: who may open a page, forms, and what every template can use.

A page is registered with `on`, which requires an authorisation rule, as the routes of the API do.
A browser sends a form that changes something twice. The first time is a dry run: the service
returns what it would write, and a page shows that. The form of that page has the field
`confirmed`. With this field, the service writes.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Response, g, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from kazoo_ips.api import envelope, rate_limits
from kazoo_ips.api import errors as replies
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import GuardedBlueprint, permitted_account, services
from kazoo_ips.console import explanations, formats, sessions
from kazoo_ips.errors import DatastoreError, Forbidden, InvalidCredentials
from kazoo_ips.model import Account, Caller
from kazoo_ips.model.names import visible_page
from kazoo_ips.observability import request_context

Handler = Callable[..., Any]

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
"""A page runs and loads files of this service only, and no other page can show it in a frame."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Vary": "HX-Request",
}
_UNCHANGED = re.compile(r"[0-9a-f-]{1,80}")


class Pages(GuardedBlueprint):
    """A blueprint that requires an authorisation rule for each page."""

    def on(
        self, method: str, rule: str, *, who: Who, confirm: bool = True
    ) -> Callable[[Handler], Handler]:
        """Return a decorator that registers a page, or the target of a form.

        :param who: who may open it; `ACCOUNT` is everybody who is logged in, and the page itself
            checks which accounts the caller may see
        :param confirm: whether a form without the field `confirmed` is a dry run
        """

        def register(handler: Handler) -> Handler:
            def authorised(**path: str) -> Any:
                _authorise(who)
                if method == "GET":
                    return handler(**path)
                sessions.check_form(request)
                g.dry_run = confirm and request.form.get("confirmed") != "yes"
                if not g.dry_run:
                    return handler(**path)
                with request_context.dry_run():
                    return handler(**path)

            authorised.__doc__ = inspect.getdoc(handler)
            self.add_guarded(method, rule, handler.__name__, authorised)
            return handler

        return register


pages = Pages("console", __name__, url_prefix=sessions.PATH, template_folder="templates")
formats.register(pages)


def _authorise(who: Who) -> None:
    """Identify the caller, and check that the caller may open the page.

    :raises InvalidCredentials: the browser is not logged in
    :raises TooManyRequests: the account of the caller or the client has sent too many requests
    :raises Forbidden: the page is the operator's
    """
    g.session = None
    # Files and the login need no database: a page that says that CouchDB is down needs its styles.
    with suppress(DatastoreError) if who is Who.ANYONE else nullcontext():
        g.session = sessions.read(request, services().auth)
    if who is Who.ANYONE:
        return
    if g.session is None:
        raise InvalidCredentials
    caller = g.session.caller
    request_context.identify(caller.account.id, caller.user_id)
    rate_limits.charge(services().rate_limits, caller.account.id, request, g, tokens=1)
    if who is Who.OPERATOR and not caller.is_operator:
        raise Forbidden


def caller() -> Caller:
    """Return the caller, after the authorisation."""
    return cast(Caller, g.session.caller)


def account_of(account_id: str, *arguments: str, verb: str = "GET") -> Account:
    """Return an account that the caller may see, if its token permits the request of the API.

    :param arguments: the path segments that the route of the API has after `ips`
    :raises Forbidden: the caller may not see the account, or the token does not permit the request
    :raises AccountNotFound: the account does not exist, and the caller is the operator
    """
    return permitted_account(services(), caller(), account_id, arguments, verb)


def is_partial() -> bool:
    """Whether htmx requests a part of the page, to replace that part in the browser."""
    return "HX-Request" in request.headers


def page(template: str, **values: Any) -> str:
    """Render a page. Names may have control characters, which are shown escaped."""
    return visible_page(render_template(template, **values))


@dataclass(frozen=True)
class Confirmation:
    """What a form would change, for the page that asks to confirm it.

    :param title: what is going to be done, as a sentence without a full stop
    :param button: the text of the button that does it
    :param back: the path to go to if the user cancels
    :param lines: what changes: a name, the state before and the state after
    :param notes: what else the user should know before
    :param danger: whether it cannot be undone
    """

    title: str
    button: str
    back: str
    lines: Sequence[tuple[str, str, str]] = ()
    notes: Sequence[str] = ()
    danger: bool = False
    fields: Sequence[tuple[str, str]] = field(default=())


def ask(confirmation: Confirmation) -> str:
    """Return the page that shows what the form would change. Its button sends the form again."""
    ours = {sessions.FIELD, "confirmed"}
    fields = confirmation.fields or [
        (name, value) for name, value in request.form.items(multi=True) if name not in ours
    ]
    return page("confirm.html", confirmation=confirmation, fields=fields)


def done(path: str, message: str) -> Response:
    """Return the reply to a form that has changed something: go to a page that says so.

    :param message: a name in `explanations.DONE`
    """
    return cast(Response, redirect(f"{path}{'&' if '?' in path else '?'}done={message}", 303))


def revision() -> tuple[str, ...]:
    """Return the revision that the form was made for, as If-Match of the API."""
    given = request.form.get("revision", "")
    return (given,) if _UNCHANGED.fullmatch(given) else ("",)


@pages.context_processor
def _context() -> dict[str, Any]:
    """Return what every template can use."""
    session = g.get("session")
    return {
        "viewer": session.caller if session else None,
        "form_token": lambda: sessions.form_token(request),
        "done": explanations.DONE.get(request.args.get("done", "")),
        "version": envelope.VERSION,
        "now": formats.now(),
        "is_partial": is_partial(),
        "left_out": g.get("left_out", ()),
    }


@pages.after_request
def _complete(response: Response) -> Response:
    """Add the headers of every page."""
    response.headers.update(HEADERS)
    if "visitor" in g:
        sessions.set_cookie(request, response, sessions.VISITOR, g.visitor)
    return response


@pages.errorhandler(Exception)
def _failed(error: Exception) -> Any:
    """Return the page of an error. A browser that is not logged in goes to the login."""
    if isinstance(error, InvalidCredentials):
        return _to_login()
    if isinstance(error, HTTPException):
        code = error.code or 400
        texts = [explanations.of_status(code)]
    else:
        code, _, _ = replies.describe(error)
        texts = explanations.of_error(error, code)
    template = "_error.html" if is_partial() else "error.html"
    g.pop("left_out", None)  # this page has no parts
    content = page(template, code=code, texts=texts, request_id=g.get("request_id"))
    return content, code, replies.headers(error, code)


def _to_login() -> Response:
    """Return a redirect to the login, which leads back to the page that was requested."""
    path = request.full_path.rstrip("?") if request.method == "GET" else sessions.PATH
    target = url_for("console.show_login", next=path)
    if is_partial():
        return Response(status=401, headers={"HX-Redirect": url_for("console.show_login")})
    return cast(Response, redirect(target, 303))
