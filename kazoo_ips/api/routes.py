"""Routes, with an authorisation rule for each of them.

Before a handler is called, this module reads the envelope and the token, replaces the method if a
POST names another one (`verb`), authorises the caller, and negotiates the media type of the reply.
"""

import base64
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, cast

from flask import Blueprint, Flask, Request, Response, current_app, g, request
from marshmallow import Schema
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotAcceptable
from werkzeug.routing import BaseConverter, MapAdapter

from kazoo_ips.api import envelope, idempotency, rate_limits, schemas
from kazoo_ips.api.client_address import client_address
from kazoo_ips.api.route_descriptions import ANY, Operation, Shape, Who
from kazoo_ips.api.subscriptions import Authority
from kazoo_ips.errors import (
    AccountNotFound,
    Forbidden,
    InvalidCredentials,
    KazooIPsError,
    TokenRestricted,
)
from kazoo_ips.model import Account, Caller
from kazoo_ips.observability import request_context
from kazoo_ips.services import Services

Handler = Callable[..., Response]


class AddressConverter(BaseConverter):
    """A path segment that is an address, and not the name of another resource."""

    regex = (
        r"(?!(?:accounts|assigned|zones|hosts|summary|export|limits|reservations|history|changes"
        r"|import|webhooks|transfer|jobs|status|restore)\Z)[^/]+"
    )
    part_isolating = True


class WebhookConverter(BaseConverter):
    """A path segment that is the id of a webhook, and not `attempts`."""

    regex = r"(?!attempts\Z)[^/]+"
    part_isolating = True


class GuardedBlueprint(Blueprint):
    """A blueprint each of whose routes has an authorisation rule, which `on` requires."""

    def add_guarded(self, method: str, rule: str, name: str, authorised: Handler) -> None:
        """Register a route.

        :param authorised: authorises the caller, then handles the request
        """
        super().add_url_rule(
            rule,
            endpoint=name,
            view_func=authorised,
            methods=[method],
            provide_automatic_options=False,
        )

    def add_url_rule(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse Flask's own decorators, such as `route`, which need no authorisation rule.

        :raises TypeError: always
        """
        raise TypeError("use on() to register a route: it requires who may call it")


class Routes(GuardedBlueprint):
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
                invalid = _read(incoming, state, operation, query)
                _authorise(incoming, state, operation, path)
                if invalid:
                    raise invalid
                if method != "GET" and not operation.body and not operation.ignores_body:
                    _check_members(state.envelope, query)
                if method != "GET" and _is_dry_run(state.envelope, operation.dry_run):
                    state.dry_run = True
                    with request_context.dry_run():
                        return handler(**path)
                key = incoming.environ.get("HTTP_IDEMPOTENCY_KEY")
                if method == "GET" or who is Who.ANYONE or key is None:
                    return handler(**path)
                service = services().idempotency
                return idempotency.once(service, state.caller, key, partial(handler, **path))

            authorised.operation = operation  # type: ignore[attr-defined]
            self.add_guarded(method, rule, handler.__name__, authorised)
            return handler

        return register


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
    """Return the token of a request without X-Auth-Token, from the places that Crossbar reads."""
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


def _read(
    incoming: Request, state: Any, operation: Operation, query: tuple[Schema, ...]
) -> Exception | None:
    """Read the query and the Accept header, and check the envelope.

    The rate limit depends on them, so they are read before the authorisation.

    :returns: the error of an invalid request; only a caller who may call the route gets it
    """
    state.query, state.media = {}, operation.offered[0]
    try:
        if incoming.query_string:
            given = incoming.args.items(multi=True)
            state.query = schemas.load_query(query, given, write=operation.method != "GET")
        if state.envelope.problem is None:
            state.media = _negotiate(incoming, operation.offered)
    except (KazooIPsError, HTTPException) as error:
        return error
    return cast(Exception | None, state.envelope.problem)


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
    provided = services()
    state.operation = operation
    state.caller = caller = _authenticate(provided, incoming, state)
    request_context.identify(caller.account.id, caller.user_id)
    tokens = rate_limits.cost(state, operation)
    rate_limits.charge(provided.rate_limits, caller.account.id, incoming, state, tokens)
    if operation.who is Who.BETWEEN:
        state.account = None
        _permit_between(provided, caller, state.envelope.members.get("data"))
    else:
        state.account = _permit(provided, caller, operation.who, path, incoming)


def _permit(
    provided: Services, caller: Caller, who: Who, path: Mapping[str, str], incoming: Request
) -> Account | None:
    """Check that a caller may call a route; return the account in its path, if it has one.

    :raises Forbidden: the caller may not call this route, or not for this account
    :raises TokenRestricted: the restrictions of the caller's token do not permit the request
    :raises AccountNotFound: the account does not exist, and the caller is the operator
    """
    if who is Who.OPERATOR:
        if not caller.is_operator:
            raise Forbidden
        return None
    endpoint, *arguments = incoming.path.strip("/").split("/")[3:]  # after v2/accounts/{id}
    verb = "GET" if incoming.method == "HEAD" else incoming.method
    account = permitted_account(provided, caller, path["account_id"], arguments, verb, endpoint)
    if who is Who.ABOVE:
        require_above(caller, account)
    return account


def require_above(caller: Caller, account: Account) -> None:
    """Check that a caller is above an account, or the operator.

    :raises Forbidden: it is neither
    """
    if caller.account.id == account.id and not caller.is_operator:
        raise Forbidden


def permitted_account(  # noqa: PLR0913, PLR0917 - one for each part of a request
    provided: Services,
    caller: Caller,
    account_id: str,
    arguments: Sequence[str],
    verb: str,
    endpoint: str = "ips",
) -> Account:
    """Return an account, if the caller may send it this request.

    :param arguments: the path segments after the endpoint
    :param verb: the HTTP method
    :raises Forbidden: the caller may not act on this account
    :raises TokenRestricted: the restrictions of the caller's token do not permit the request
    :raises AccountNotFound: the account does not exist, and the caller is the operator
    """
    account = _account(provided, caller, account_id)
    if not caller.may_request(account, endpoint, arguments, verb):
        raise TokenRestricted
    return account


def _permit_between(provided: Services, caller: Caller, data: Any) -> None:
    """Check that a caller may act on both accounts in the body.

    For the operator the account `from` may have been deleted: its addresses are still assigned.

    :raises Forbidden: the caller may not act on both accounts
    :raises TokenRestricted: the restrictions of the caller's token do not permit it
    :raises AccountNotFound: `to` does not exist, and the caller is the operator
    """
    given = data if isinstance(data, dict) else {}
    for name in ("to",) if caller.is_operator else ("from", "to"):
        account_id = given.get(name)
        if isinstance(account_id, str) and account_id:
            account = _account(provided, caller, account_id)
            if not caller.may_request(account, "ips", ["transfer"], "POST"):
                raise TokenRestricted
        elif not caller.is_operator:
            raise Forbidden


def permission() -> Authority:
    """Return the permission of the current request, which can be checked after its end."""
    incoming, state = envelope.request_and_state()
    provided, token, who = services(), state.auth_token, state.operation.who
    path, client = dict(incoming.view_args or {}), client_address(incoming)
    account_id, credentials = (None if token else _basic()) or ("", "")

    def check() -> None:
        if token:
            caller = provided.auth.authenticate(token)
        else:
            caller = provided.auth.authenticate_basic(account_id, credentials, client)
        _permit(provided, caller, who, path, incoming)

    return Authority((token, account_id, credentials, incoming.path), check)


def _authenticate(provided: Services, incoming: Request, state: Any) -> Caller:
    if state.auth_token:
        return provided.auth.authenticate(state.auth_token)
    basic = _basic()
    if basic:
        return provided.auth.authenticate_basic(*basic, client_address(incoming))
    raise InvalidCredentials


def _account(provided: Services, caller: Caller, account_id: str) -> Account:
    if caller.account.id == account_id:
        return caller.account
    try:
        account = provided.accounts.fetch(account_id)
    except AccountNotFound:
        # Only the operator may find out whether an account exists.
        if caller.is_operator:
            raise
        raise Forbidden from None
    if not caller.may_see(account):
        raise Forbidden
    return account


def _check_members(given: envelope.Envelope, query: tuple[Schema, ...]) -> None:
    """Refuse the unknown members of the body of a write that needs no data.

    :param query: the parameters that the body may have in place of the query
    :raises ValidationFailed: with every member that is unknown
    """
    data = given.members.get("data")
    members = {*given.other_members, *(data if isinstance(data, dict) else ())}
    known = sorted({name for schema in query for name in schema.fields} - schemas.IN_BODIES)
    schemas.check_members(known, members)


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
