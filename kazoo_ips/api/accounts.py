"""`/v2/ips/accounts`: the accounts that have addresses or can get them, for the operator."""

from collections.abc import Iterator, Sequence
from typing import Any

from flask import Response, g
from marshmallow import fields

from kazoo_ips.api import envelope
from kazoo_ips.api.queries import MAX_PAGE, AccountsSchema, load_accounts
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.model import Account

routes = Routes("accounts", __name__, url_prefix="/v2/ips/accounts")


class AccountListItemSchema(ReplySchema):
    """An account, without its secrets."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    realm = fields.String(required=True)
    tree = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "The accounts above it, the topmost first"},
    )
    enabled = fields.Boolean(required=True)
    expires = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Time when a trial ends, in Gregorian seconds"},
    )
    operator = fields.Boolean(required=True)
    is_reseller = fields.Boolean(required=True)
    reseller_id = fields.String(required=True, allow_none=True)
    language = fields.String(required=True, allow_none=True)


_ACCOUNT = AccountListItemSchema()


@routes.on(
    "GET",
    "",
    who=Who.OPERATOR,
    replies=AccountListItemSchema(many=True),
    query=AccountsSchema,
    operation_id="list_accounts",
    links=("list_assigned_ips",),
)
def list_accounts() -> Response:
    """The accounts, in the order of their realms.

    With `account`, only those that have this id, realm or name; with `ids`, only those with these
    ids.
    """
    query = load_accounts(g.query)
    if query.given is not None:
        return envelope.success(_dump(services().accounts.candidates(query.given)))
    if query.ids is not None:
        return envelope.success(_dump(services().accounts.of_ids(query.ids)))
    if query.limit is None:
        return envelope.stream(_dump(part) for part in _parts())
    page = services().accounts.page(query.limit, query.first)
    found = _dump(page.items)
    return envelope.success(
        found, page_size=len(found), start_key=query.first, next_start_key=page.next
    )


def _parts() -> Iterator[Sequence[Account]]:
    first: str | None = None
    while True:
        page = services().accounts.page(MAX_PAGE, first)
        yield page.items
        first = page.next
        if first is None:
            return


def _dump(accounts: Sequence[Account]) -> list[dict[str, Any]]:
    return [_ACCOUNT.dump(account) for account in accounts]
