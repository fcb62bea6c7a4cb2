"""Routes, with an authorisation rule for each of them.

Before a handler is called, this module reads the envelope and the token, replaces the method if a
POST names another one (`verb`), authorises the caller, and negotiates the media type of the reply.
"""

import base64
import inspect
from collections.abc import Callable
from typing import Any, NoReturn, cast

from flask import Blueprint, Flask, Request, Response, current_app, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotAcceptable
from werkzeug.routing import BaseConverter, MapAdapter

from kazoo_ips.api import envelope, idempotency, rate_limits, schemas
from kazoo_ips.api.client_address import client_address, external_client
from kazoo_ips.api.route_descriptions import ANY, Operation, Shape, Who
from kazoo_ips.errors import AccountNotFound, Forbidden, InvalidCredentials, TokenRestricted
from kazoo_ips.model import Account, Caller
from kazoo_ips.observability import request_context
from kazoo_ips.services import Services

Handler = Callable[..., Response]


class AddressConverter(BaseConverter):
    """A path segment that is an address, and not `assigned`, `zones` or `hosts`."""

    regex = r"(?!(?:assigned|zones|hosts)\Z)[^/]+"
    part_isolating = True


class Routes(Blueprint):
    """A blueprint that requires an authorisation rule and the form of the reply for each route.

    A write must also declare whether it supports dry runs.
    """

    def on(
        self, method: str, rule: str, *, who: Who, replies: Shape | None, **more: Any
    ) -> Callable[[Handler], Handler]:
        """Return a decorator that registers a handler.

        A handler that supports dry runs passes `write()` to a service. In a dry run the service
        returns what it would have written. An attempt to write raises WriteInDryRun.

        :param who: who may call the route
        :param replies: the form of `data` in the reply; None for a reply without an envelope
        :param more: further fields of `Operation`
        :raises TypeError: `dry_run` is missing for a write, or given for a GET
        """
        if (method == "GET") == ("dry_run" in more):
            raise TypeError(f"{method} {rule}: dry_run is required for writes, and only for them")

        def register(handler: Handler) -> Handler:
            summary = inspect.getdoc(handler) or ""
            operation = Operation(method=method, who=who, summary=summary, replies=replies, **more)
            query = tuple(schema() for schema in operation.parameters)

            def authorised(**path: str) -> Response:
                incoming, state = envelope.request_and_state()
                _authorise(incoming, state, operation, path)
                state.query = {}
                if incoming.query_string:
                    given = incoming.args.items(multi=True)
                    state.query = schemas.load_query(query, given, write=method != "GET")
                state.envelope.check()
                state.media = _negotiate(incoming, operation.offered)
                if method != "GET" and _is_dry_run(state.envelope, operation.dry_run):
                    state.dry_run = True
                    with request_context.dry_run():
                        return handler(**path)
                if method == "GET" or who is Who.ANYONE:
                    return handler(**path)
                service = services().idempotency
                return idempotency.once(service, state.caller, lambda: handler(**path))

            authorised.operation = operation  # type: ignore[attr-defined]
            super(Routes, self).add_url_rule(
                rule,
                endpoint=handler.__name__,
                view_func=authorised,
                methods=[method],
                provide_automatic_options=False,
            )
            return handler

        return register

    def add_url_rule(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse Flask's own decorators, such as `route`, which need no authorisation rule.

        :raises TypeError: always
        """
        raise TypeError("use on() to register a route: it requires who may call it")


def services() -> Services:
    """Return the services of the application."""
    return cast(Services, current_app.extensions["kazoo_ips"])


def caller() -> Caller:
    """Return the caller, after the authentication."""
    return cast(Caller, g.caller)


def write() -> dict[str, Any]:
    """Return the arguments that every write of a service takes.

    They are the request id, the attempt (None without an Idempotency-Key), and whether it is a dry
    run.
    """
    return {
        "request_id": g.request_id,
        "attempt": g.get("attempt"),
        "dry_run": g.get("dry_run", False),
    }


def read_request(app: Flask) -> None:
    """Read the envelope and the token, and replace the method if a POST names another one.

    :raises MethodNotAllowed: the POST names HEAD
    """
    incoming, state = envelope.request_and_state()
    state.envelope = envelope.read()
    state.auth_token = incoming.environ.get("HTTP_X_AUTH_TOKEN") or _token()
    method = incoming.method
    verb = (state.envelope.text("verb") or "").upper() if method == "POST" else ""
    if verb == "HEAD":
        # A reply to HEAD has no body, but the client of a POST expects one.
        if request.url_rule:
            raise MethodNotAllowed(_adapter(app).allowed_methods())
    elif verb:
        _tunnel(app, verb)


def _tunnel(app: Flask, verb: str) -> None:
    """Route the request as if that verb was its method."""
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
    """Return the token of a request without X-Auth-Token, from where Crossbar reads it."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    bearer = word.strip() if scheme.lower() == "bearer" else None
    return g.envelope.text("auth_token") or bearer or None


def _basic() -> tuple[str, str] | None:
    """Return the account id and the MD5 hash of `user:password`, from Basic authentication."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        account_id, _, credentials = base64.b64decode(word.strip()).decode().partition(":")
    except ValueError:
        return None
    return account_id, credentials


def _authorise(incoming: Request, state: Any, operation: Operation, path: dict[str, str]) -> None:
    """Identify the caller, and check that the caller may call the route.

    :raises InvalidCredentials: the token is missing or invalid
    :raises TooManyRequests: the account of the token or the client has sent too many requests
    :raises Forbidden: the caller may not call this route, or not for this account
    :raises TokenRestricted: the restrictions of the caller's token do not permit the request
    :raises AccountNotFound: the account does not exist, and the caller is the operator
    """
    if operation.who is Who.ANYONE:
        return
    state.caller = _authenticate(state.auth_token)
    request_context.identify(state.caller.account.id, state.caller.user_id)
    state.balances = services().rate_limits.take(
        state.caller.account.id,
        external_client(),
        rate_limits.cost(incoming, state.envelope, operation),
    )
    rate_limits.check(state.balances)
    if operation.who is Who.OPERATOR:
        if not state.caller.is_operator:
            raise Forbidden
        return
    state.account = _account(state.caller, path["account_id"])
    if state.caller.restrictions is not None:
        endpoint, *arguments = incoming.path.strip("/").split("/")[3:]  # after v2/accounts/{id}
        verb = "GET" if incoming.method == "HEAD" else incoming.method
        if not state.caller.may_request(state.account, endpoint, arguments, verb):
            raise TokenRestricted


def _authenticate(token: str | None) -> Caller:
    if token:
        return services().auth.authenticate(token)
    basic = _basic()
    if basic:
        return services().auth.authenticate_basic(*basic, client_address())
    raise InvalidCredentials


def _account(caller: Caller, account_id: str) -> Account:
    if caller.account.id == account_id:
        return caller.account
    try:
        account = services().accounts.fetch(account_id)
    except AccountNotFound:
        # Only the operator may find out whether an account exists.
        if caller.is_operator:
            raise
        raise Forbidden from None
    if not caller.may_see(account):
        raise Forbidden
    return account


def _is_dry_run(given: envelope.Envelope, supported: bool) -> bool:
    """Return whether a write is a dry run.

    :raises ValidationFailed: `dry_run` is not a boolean, or is true where no dry run is possible
    """
    values = given.all("dry_run")
    if not values or not schemas.load_dry_run(values):
        return False
    if not supported:
        envelope.fail("dry_run", "forbidden", "this request supports no dry run", value=True)
    if "Idempotency-Key" in request.headers:
        text = "a dry run cannot have an Idempotency-Key, because its reply is not stored"
        envelope.fail("dry_run", "forbidden", text, value=True)
    return True


def _negotiate(incoming: Request, offered: tuple[str, ...]) -> str:
    """Return the media type of the reply: of those offered, the one that the client prefers.

    :param offered: the first one is for clients that accept anything
    :raises NotAcceptable: the client accepts none of them
    """
    accepted = incoming.environ.get("HTTP_ACCEPT", "")
    if accepted in ("", "*/*", "application/json") or offered == (ANY,):
        return offered[0]
    if not incoming.accept_mimetypes:
        return offered[0]
    best: str | None = incoming.accept_mimetypes.best_match(offered)
    if best is None:
        raise NotAcceptable
    return best
