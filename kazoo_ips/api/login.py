"""`/v2/user_auth` and `/v2/api_auth`: from a login to a token."""

from flask import Response, g

from kazoo_ips.api import envelope, schemas
from kazoo_ips.api.clients import client_address
from kazoo_ips.api.context import services
from kazoo_ips.api.routes import Routes, Who
from kazoo_ips.services.auth import Session

routes = Routes("login", __name__, url_prefix="/v2")


@routes.on("PUT", "/user_auth", who=Who.ANYONE)
def user_auth() -> Response:
    """A token for a user, by the hash of its credentials and its account's name or realm."""
    login = schemas.load_login(g.envelope.data())
    return _opened(services().auth.log_in(login, client_address()))


@routes.on("PUT", "/api_auth", who=Who.ANYONE)
def api_auth() -> Response:
    """A token for an account, by its API key."""
    api_key = schemas.load_api_key(g.envelope.data())
    return _opened(services().auth.log_in_with_key(api_key, client_address()))


def _opened(session: Session) -> Response:
    g.auth_token, g.caller = session.token, session.caller
    account, user_id = session.caller.account, session.caller.user_id
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
