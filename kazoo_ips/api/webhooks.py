"""Webhooks: `/v2/accounts/{account_id}/ips/webhooks`, and `/v2/ips/webhooks` of the operator.

They have the form of Kazoo's webhooks API (`cb_webhooks.erl`). Both paths have the same handlers;
the operator's have no account.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Response, g

from kazoo_ips.api import envelope, webhook_schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Handler, Routes, services, write
from kazoo_ips.errors import Conflict, WebhookLimitReached
from kazoo_ips.services.webhooks.management import WebhookStatus

routes = Routes("webhooks", __name__, url_prefix="/v2")

_OF_ACCOUNT, _OF_POOL = "/accounts/<account_id>/ips/webhooks", "/ips/webhooks"
_ONE = "/<webhook:webhook_id>"
_WEBHOOK = webhook_schemas.WebhookSchema()
_WEBHOOKS = webhook_schemas.WebhookListItemSchema(many=True)
_WITH_SECRET = webhook_schemas.WebhookWithSecretSchema()
_ATTEMPT = webhook_schemas.WebhookAttemptSchema()
_ATTEMPTS = webhook_schemas.WebhookAttemptListItemSchema(many=True)


def _on(method: str, path: str, operation: str, **more: Any) -> Callable[[Handler], Handler]:
    """Return a decorator that registers a handler for an account and for the operator.

    :param operation: the operation's id, with `{}` where the operator's has `pool_`
    """

    def register(handler: Handler) -> Handler:
        def of_pool(**path: str) -> Response:
            return handler(account_id=None, **path)

        of_pool.__name__, of_pool.__doc__ = f"{handler.__name__}_of_pool", handler.__doc__
        ids = operation.format(""), operation.format("pool_")
        account = {"who": Who.ACCOUNT, "operation_id": ids[0], **more}
        pool = {"who": Who.OPERATOR, "operation_id": ids[1], **more}
        routes.on(method, _OF_ACCOUNT + path, **account)(handler)
        routes.on(method, _OF_POOL + path, **pool)(of_pool)
        return handler

    return register


@_on("GET", "", "list_{}webhooks", replies=_WEBHOOKS)
def list_all(account_id: str | None) -> Response:
    """The webhooks, the oldest first, each with the state of its delivery."""
    return _list(services().webhooks.list(account_id))


@_on(
    "PUT",
    "",
    "create_{}webhook",
    replies=_WITH_SECRET,
    status=201,
    body=(webhook_schemas.WebhookContentSchema,),
    dry_run=True,
    raises=(Conflict, WebhookLimitReached),
)
def create(account_id: str | None) -> Response:
    """Create a webhook. The reply has its secret, which is not shown again.

    It gets the events from now on. A webhook of an account gets the events of the addresses that
    the account has, and with `include_subaccounts` of those of the accounts below it. A webhook of
    the operator gets all events.
    """
    content = webhook_schemas.load(g.envelope.data(), g.envelope.other_members)
    webhook = services().webhooks.create(account_id, content, **write())
    return envelope.success(webhook_schemas.dump_with_secret(webhook), status=201)


@_on(
    "PATCH",
    "",
    "enable_{}webhooks",
    replies=_WEBHOOKS,
    body=(webhook_schemas.ReEnableSchema,),
    dry_run=True,
    raises=(Conflict,),
)
def enable_all(account_id: str | None) -> Response:
    """Enable the webhooks that the service has disabled. The reply has these webhooks."""
    webhook_schemas.load_re_enable(g.envelope.data(), g.envelope.other_members)
    return _list(services().webhooks.enable_all(account_id, **write()))


@_on("GET", "/attempts", "list_all_{}webhook_attempts", replies=_ATTEMPTS)
def list_all_attempts(account_id: str | None) -> Response:
    """The last attempts to deliver events to all webhooks, the newest first."""
    return _attempts(services().webhooks.list(account_id))


@_on("GET", _ONE, "get_{}webhook", replies=_WEBHOOK)
def fetch(account_id: str | None, webhook_id: str) -> Response:
    """One webhook."""
    return _one(services().webhooks.fetch(account_id, webhook_id))


@_on(
    "POST",
    _ONE,
    "replace_{}webhook",
    replies=_WEBHOOK,
    body=(webhook_schemas.WebhookContentSchema,),
    dry_run=True,
    raises=(Conflict,),
)
def replace_one(account_id: str | None, webhook_id: str) -> Response:
    """Replace a webhook. What the request leaves out has its default; the secret stays.

    An event that waits after a failure is sent again at once, unless nothing was changed.
    """
    content = webhook_schemas.load(g.envelope.data(), g.envelope.other_members)
    return _one(
        services().webhooks.change(
            account_id,
            webhook_id,
            lambda webhook: webhook_schemas.replaced(webhook, content),
            **write(),
        )
    )


@_on(
    "PATCH",
    _ONE,
    "patch_{}webhook",
    replies=_WEBHOOK,
    body=(webhook_schemas.PatchWebhookSchema,),
    dry_run=True,
    raises=(Conflict,),
)
def patch_one(account_id: str | None, webhook_id: str) -> Response:
    """Change some members of a webhook.

    An event that waits after a failure is sent again at once, unless nothing was changed.
    """
    data, other_members = g.envelope.data(), g.envelope.other_members
    return _one(
        services().webhooks.change(
            account_id,
            webhook_id,
            lambda webhook: webhook_schemas.patched(webhook, data, other_members),
            **write(),
        )
    )


@_on("DELETE", _ONE, "delete_{}webhook", replies=_WEBHOOK, dry_run=True, raises=(Conflict,))
def delete_one(account_id: str | None, webhook_id: str) -> Response:
    """Delete a webhook. Deliveries end within seconds."""
    return _one(services().webhooks.delete(account_id, webhook_id, **write()))


@_on("GET", f"{_ONE}/attempts", "list_{}webhook_attempts", replies=_ATTEMPTS)
def list_attempts(account_id: str | None, webhook_id: str) -> Response:
    """The last attempts to deliver events to a webhook, the newest first."""
    return _attempts([services().webhooks.fetch(account_id, webhook_id)])


@_on("POST", f"{_ONE}/test", "test_{}webhook", replies=_ATTEMPT, dry_run=False)
def test_one(account_id: str | None, webhook_id: str) -> Response:
    """Send an event of the kind `test` now. The reply is the attempt, successful or not."""
    attempt = services().webhooks.test(account_id, webhook_id)
    return envelope.success(webhook_schemas.dump_attempt(webhook_id, attempt))


@_on(
    "POST",
    f"{_ONE}/replay",
    "replay_{}webhook",
    replies=_WEBHOOK,
    body=(webhook_schemas.ReplaySchema,),
    dry_run=True,
    raises=(Conflict,),
)
def replay_one(account_id: str | None, webhook_id: str) -> Response:
    """Deliver the events since a time again. Earlier events that wait are left out."""
    since = webhook_schemas.load_since(g.envelope.data(), g.envelope.other_members)
    return _one(services().webhooks.replay(account_id, webhook_id, since, **write()))


@_on(
    "POST",
    f"{_ONE}/rotate",
    "rotate_{}webhook_secret",
    replies=_WITH_SECRET,
    dry_run=True,
    raises=(Conflict,),
)
def rotate_one(account_id: str | None, webhook_id: str) -> Response:
    """Create a new secret, which the reply has. For a day the old one signs deliveries too."""
    webhook = services().webhooks.rotate(account_id, webhook_id, **write())
    return envelope.success(webhook_schemas.dump_with_secret(webhook))


def _one(status: WebhookStatus) -> Response:
    return envelope.success(webhook_schemas.dump(status))


def _list(found: Iterable[WebhookStatus]) -> Response:
    return envelope.success([webhook_schemas.dump(status) for status in found])


def _attempts(found: Iterable[WebhookStatus]) -> Response:
    dumped = [
        webhook_schemas.dump_attempt(status.webhook.id, attempt)
        for status in found
        if status.progress
        for attempt in status.progress.attempts
    ]
    return envelope.success(sorted(dumped, key=lambda each: each["timestamp"], reverse=True))
