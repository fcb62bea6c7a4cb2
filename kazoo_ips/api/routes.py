"""Who may call what, and what it replies: a route that does not say so cannot be made.

Every request passes here before its handler: verbs tunnelled through POST, the token, the account
in the path, and what the reply may look like.
"""

import base64
import inspect
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote_to_bytes

from flask import Blueprint, Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotAcceptable
from werkzeug.routing import BaseConverter, MapAdapter

from kazoo_ips.api import envelope, idempotency, schemas
from kazoo_ips.api.client_address import client_address
from kazoo_ips.api.request_state import here, services
from kazoo_ips.api.route_descriptions import ANY, CSV, Operation, Shape, Who
from kazoo_ips.errors import AccountNotFound, Forbidden, InvalidCredentials
from kazoo_ips.model import Account, Caller
from kazoo_ips.observability import request_context

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Handler = Callable[..., Response]


class AddressConverter(BaseConverter):
    """A segment that stands for an address: not the name of one of the lists beside it."""

    regex = r"(?!(?:assigned|zones|hosts)\Z)[^/]+"
    part_isolating = True


class Routes(Blueprint):
    """A blueprint whose routes cannot forget to say who may call them and what they reply, nor,
    where they write, whether they can be asked for a dry run.
    """

    def on(
        self, method: str, rule: str, *, who: Who, replies: Shape | None, **told: Any
    ) -> Callable[[Handler], Handler]:
        """Register a handler.

        One that can be asked for a dry run hands `write()` to a service, which decides as ever
        and returns what it would have written. A write in a dry run is refused (WriteInDryRun).

        :param who: who may call it
        :param replies: the form of its reply's `data`; None: a file, in no envelope
        :param told: what else there is to know of it: the fields of `Operation`
        :raises TypeError: `dry_run` is missing where the method is no GET, or is there where it is
        """
        if (method == "GET") == ("dry_run" in told):
            raise TypeError(
                f"{method} {rule}: dry_run is told of what writes, and of nothing else"
            )

        def register(handler: Handler) -> Handler:
            summary = inspect.getdoc(handler) or ""
            operation = Operation(method=method, who=who, summary=summary, replies=replies, **told)

            def guarded(**path: str) -> Response:
                asked, known = here()
                _admit(known, who, path)
                known.envelope.check()
                known.csv = operation.media != ANY and _negotiate(asked, operation.offered)
                if method != "GET" and _is_dry_run(known.envelope, operation.dry_run):
                    known.dry_run = True
                    with request_context.dry_run():
                        return handler(**path)
                if method == "GET" or who is Who.ANYONE:
                    return handler(**path)
                return idempotency.once(lambda: handler(**path))

            guarded.operation = operation  # type: ignore[attr-defined]
            super(Routes, self).add_url_rule(
                rule,
                endpoint=handler.__name__,
                view_func=guarded,
                methods=[method],
                provide_automatic_options=False,
            )
            return handler

        return register

    def add_url_rule(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse what `route` and its kin would register: they do not ask."""
        raise TypeError("a route is made by on(), which asks who may call it")


def keep_slashes(wsgi: "WSGIApplication") -> "WSGIApplication":
    """An encoded slash belongs to its segment, where the server tells the path as it was sent."""

    def call(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        sent = environ.get("RAW_URI", "").partition("?")[0]
        if sent.startswith("/") and "%2f" in sent.lower():
            kept = re.sub("%2f", "%252F", sent, flags=re.IGNORECASE)
            environ["PATH_INFO"] = unquote_to_bytes(kept).decode("latin-1")
        return wsgi(environ, start)

    return call


def read(app: Flask) -> None:
    """Read the envelope and the token and, where the request says so, replace its verb."""
    asked, known = here()
    known.envelope = envelope.read()
    known.auth_token = asked.environ.get("HTTP_X_AUTH_TOKEN") or _token()
    method = asked.method
    verb = (known.envelope.text("verb") or "").upper() if method == "POST" else ""
    if "HEAD" in (verb, method):
        # Crossbar does not know HEAD; the framework adds it to every GET.
        if request.url_rule:
            raise MethodNotAllowed(_adapter(app).allowed_methods())
    elif verb:
        _tunnel(app, verb)


def _tunnel(app: Flask, verb: str) -> None:
    """Route the request as if it had come with that verb."""
    try:
        rule, arguments = _adapter(app).match(method=verb, return_rule=True)
        request.url_rule, request.view_args = rule, dict(arguments)
        request.routing_exception = None
        request.environ["REQUEST_METHOD"] = verb
        request.method = verb
    except HTTPException as error:
        request.routing_exception = error


def _adapter(app: Flask) -> MapAdapter:
    adapter = app.create_url_adapter(request)
    assert adapter is not None
    return adapter


def _token() -> str | None:
    """The token, from the places where Crossbar looks after `X-Auth-Token`, in its order."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    bearer = word.strip() if scheme.lower() == "bearer" else None
    return g.envelope.text("auth_token") or bearer or None


def _basic() -> tuple[str, str] | None:
    """`account_id:md5 of user:password`, from Basic authentication."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        account_id, _, credentials = base64.b64decode(word.strip()).decode().partition(":")
    except ValueError:
        return None
    return account_id, credentials


def _admit(known: Any, who: Who, path: dict[str, str]) -> None:
    """Let through whoever may pass.

    :raises InvalidCredentials: no token, or not a good one
    :raises Forbidden: the token's account may not do this, or act on this account
    :raises AccountNotFound: the operator asks for an account that is not there
    """
    if who is Who.ANYONE:
        return
    known.caller = _authenticate(known.auth_token)
    if who is Who.OPERATOR:
        if not known.caller.is_operator:
            raise Forbidden
        return
    known.account = _account(known.caller, path["account_id"])


def _authenticate(token: str | None) -> Caller:
    if token:
        return services().auth.authenticate(token)
    basic = _basic()
    if basic:
        return services().auth.authenticate_basic(*basic, client_address())
    raise InvalidCredentials


def _account(who: Caller, account_id: str) -> Account:
    if who.account.id == account_id:
        return who.account
    try:
        account = services().accounts.fetch(account_id)
    except AccountNotFound:
        # Whether an account exists is the operator's to know.
        if who.is_operator:
            raise
        raise Forbidden from None
    if not who.may_see(account):
        raise Forbidden
    return account


def _is_dry_run(given: envelope.Envelope, possible: bool) -> bool:
    """Whether a write is only to be spoken of.

    :raises ValidationFailed: neither a yes nor a no, or a yes that cannot be honoured
    """
    values = given.all("dry_run")
    if not values or not schemas.load_dry_run(values):
        return False
    if not possible:
        envelope.fail("dry_run", "forbidden", "no dry run of this is possible", value=True)
    if "Idempotency-Key" in request.headers:
        text = "a dry run is not kept, so it goes without an Idempotency-Key"
        envelope.fail("dry_run", "forbidden", text, value=True)
    return True


def _negotiate(asked: Request, offered: tuple[str, ...]) -> bool:
    """Whether the reply shall be CSV.

    :raises NotAcceptable: the caller takes nothing that we have
    """
    if asked.environ.get("HTTP_ACCEPT", "") in ("", "*/*", "application/json"):
        return False
    if not asked.accept_mimetypes:
        return False
    best: Any = asked.accept_mimetypes.best_match(offered)
    if best is None:
        raise NotAcceptable
    return bool(best == CSV)
