"""`/v2/user_auth` and `/v2/api_auth`: logins, which return a token."""

from typing import Any

from flask import Response, g, request
from marshmallow import fields

from kazoo_ips.api import bodies, envelope
from kazoo_ips.api.client_address import client_address
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.errors import (
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreMissing,
    DatastoreMissingView,
    DatastoreUnreachable,
    InvalidCredentials,
    TooManyRequests,
)
from kazoo_ips.observability import request_context
from kazoo_ips.services.accounts.authentication import Session

routes = Routes("login", __name__, url_prefix="/v2")


class SessionSchema(ReplySchema):
    """The account and the user of a token. The token is `auth_token` in the envelope."""

    account_id = fields.String(required=True)
    owner_id = fields.String(metadata={"description": "The user; missing after `api_auth`"})
    account_name = fields.String(required=True)
    is_master_account = fields.Boolean(required=True)
    is_reseller = fields.Boolean(required=True)
    reseller_id = fields.String(required=True)
    language = fields.String(required=True)
    apps = fields.List(fields.Dict(), required=True)
    capabilities = fields.Dict(required=True)
    ui_config = fields.Dict(required=True)


_LOGIN: dict[str, Any] = {
    "who": Who.ANYONE,
    "replies": SessionSchema(),
    "status": 201,
    "dry_run": False,
    "links": ("list_available_ips", "list_assigned_ips"),
    "raises": (
        InvalidCredentials,
        TooManyRequests,
        DatastoreUnreachable,
        DatastoreForbidden,
        DatastoreLoginRefused,
        DatastoreMissing,
        DatastoreMissingView,
    ),
}
"""The description that both login routes have."""


@routes.on("PUT", "/user_auth", body=(bodies.UserAuthSchema,), **_LOGIN)
def user_auth() -> Response:
    """A token for a user, for the hash of the credentials and the account's name or realm."""
    login = bodies.load_login(g.envelope.data())
    return _reply(services().auth.log_in(login, client_address(request)))


@routes.on("PUT", "/api_auth", body=(bodies.ApiAuthSchema,), **_LOGIN)
def api_auth() -> Response:
    """A token for an account, for its API key."""
    api_key = bodies.load_api_key(g.envelope.data())
    return _reply(services().auth.log_in_with_key(api_key, client_address(request)))


def _reply(session: Session) -> Response:
    g.auth_token, g.caller = session.token, session.caller
    account, user_id = session.caller.account, session.caller.user_id
    request_context.identify(account.id, user_id)
    root = account.tree[0] if account.tree else account.id
    data = {
        "account_id": account.id,
        **({"owner_id": user_id} if user_id else {}),
        "account_name": account.name,
        "is_master_account": account.operator and not account.tree,
        "is_reseller": account.is_reseller,
        "reseller_id": account.reseller_id or (account.id if account.is_reseller else root),
        "language": account.language or "en-US",
        "apps": [],
        "capabilities": {},
        "ui_config": {},
    }
    return envelope.success(data, status=201)
