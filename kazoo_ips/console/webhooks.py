"""Webhooks of an account and of the operator, with their deliveries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from flask import request, url_for

from kazoo_ips.api import webhook_schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console import forms
from kazoo_ips.console.pages import (
    Confirmation,
    Handler,
    account_of,
    ask,
    done,
    is_partial,
    page,
    pages,
)
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import Account, Attempt
from kazoo_ips.model.webhooks import hooks

_ONE = "/<webhook_id>"


def _on(method: str, rule: str, *arguments: str, **more: Any) -> Callable[[Handler], Handler]:
    """Return a decorator that registers a page for an account and for the operator.

    :param arguments: the path segments of the API's route after `webhooks`
    """

    def register(handler: Handler) -> Handler:
        def of_account(account_id: str, **path: str) -> Any:
            segments = [path.get(each, each) for each in arguments]
            verb = more.get("verb", "GET")
            return handler(account_of(account_id, "webhooks", *segments, verb=verb), **path)

        def of_pool(**path: str) -> Any:
            return handler(None, **path)

        of_account.__name__, of_pool.__name__ = handler.__name__, f"{handler.__name__}_of_pool"
        of_account.__doc__ = of_pool.__doc__ = handler.__doc__
        rest = {name: value for name, value in more.items() if name != "verb"}
        pages.on(method, f"/accounts/<account_id>/webhooks{rule}", who=Who.ACCOUNT, **rest)(
            of_account
        )
        pages.on(method, f"/webhooks{rule}", who=Who.OPERATOR, **rest)(of_pool)
        return handler

    return register


def _id(account: Account | None) -> str | None:
    return account.id if account else None


def _url(account: Account | None, endpoint: str, **path: str) -> str:
    values: dict[str, Any] = {**path}
    if account is None:
        return url_for(f"console.{endpoint}_of_pool", **values)
    return url_for(f"console.{endpoint}", account_id=account.id, **values)


@_on("GET", "")
def list_webhooks(account: Account | None) -> str:
    """The webhooks, and the form to create one."""
    return _list(account, {})


def _list(account: Account | None, given: Any, problems: list[str] | None = None) -> str:
    return page(
        "webhooks.html",
        account=account,
        found=services().webhooks.list(_id(account)),
        url=lambda endpoint, **path: _url(account, endpoint, **path),
        hooks=hooks(),
        given=given,
        problems=problems,
        key=uuid4().hex,
    )


@_on("POST", "", verb="PUT", confirm=False)
def create_webhook(account: Account | None) -> Any:
    """Create a webhook, and show its secret."""
    form = request.form
    data: dict[str, Any] = {name: form.get(name, "").strip() for name in ("name", "uri", "hook")}
    if form.get("zones", "").strip():
        data["zones"] = [each.strip() for each in form["zones"].split(",") if each.strip()]
    if account:
        data["include_subaccounts"] = form.get("include_subaccounts") == "yes"
    try:
        content = webhook_schemas.load(data)
        # A form that is sent twice creates one webhook, because its id is made from the key.
        attempt = Attempt(f"console-{_id(account)}-{form.get('key', '')[:64]}", 1)
        webhook = services().webhooks.create(_id(account), content, attempt=attempt)
    except ValidationFailed as error:
        return _list(account, form, [forms.problem(error)]), 400
    return page(
        "webhook_secret.html",
        account=account,
        webhook=webhook,
        path=_url(account, "show_webhook", webhook_id=webhook.id),
    )


@_on("GET", _ONE, "webhook_id")
def show_webhook(account: Account | None, webhook_id: str) -> str:
    """One webhook, and its latest deliveries."""
    return _show(account, webhook_id)


def _show(account: Account | None, webhook_id: str, **more: Any) -> str:
    return page(
        "_deliveries.html" if is_partial() else "webhook.html",
        account=account,
        status=services().webhooks.fetch(_id(account), webhook_id),
        url=lambda endpoint, **path: _url(account, endpoint, **path),
        **more,
    )


@_on("POST", f"{_ONE}/test", "webhook_id", "test", verb="POST", confirm=False)
def test_webhook(account: Account | None, webhook_id: str) -> str:
    """Send a test event now, and show what the receiver has replied."""
    attempt = services().webhooks.test(_id(account), webhook_id)
    return _show(account, webhook_id, test=attempt)


@_on("POST", f"{_ONE}/enable", "webhook_id", verb="PATCH", confirm=False)
def enable_webhook(account: Account | None, webhook_id: str) -> Any:
    """Enable a webhook, or disable it."""
    enabled = request.form.get("enabled") == "yes"
    services().webhooks.change(
        _id(account), webhook_id, lambda webhook: replace(webhook, enabled=enabled)
    )
    return done(_url(account, "show_webhook", webhook_id=webhook_id), "webhook_changed")


@_on("POST", f"{_ONE}/rotate", "webhook_id", "rotate", verb="POST")
def rotate_webhook(account: Account | None, webhook_id: str) -> Any:
    """Give a webhook a new secret, and show it."""
    webhook = services().webhooks.rotate(_id(account), webhook_id, **write())
    path = _url(account, "show_webhook", webhook_id=webhook_id)
    if not write()["dry_run"]:
        return page("webhook_secret.html", account=account, webhook=webhook, path=path)
    return ask(
        Confirmation(
            f"Give {webhook.name} a new secret",
            "Make a new secret",
            path,
            notes=["The present secret signs too for another day. The new one is shown once."],
        )
    )


@_on("POST", f"{_ONE}/replay", "webhook_id", "replay", verb="POST")
def replay_webhook(account: Account | None, webhook_id: str) -> Any:
    """Deliver the events since a time again."""
    since = webhook_schemas.load_since({"since": request.form.get("since", "").strip()})
    status = services().webhooks.replay(_id(account), webhook_id, since, **write())
    path = _url(account, "show_webhook", webhook_id=webhook_id)
    if not write()["dry_run"]:
        return done(path, "webhook_replayed")
    when = request.form["since"]
    return ask(
        Confirmation(
            f"Deliver the events since {when} to {status.webhook.name} again",
            "Deliver again",
            path,
            notes=["The receiver gets events that it may have already. Their ids are the same."],
        )
    )


@_on("POST", f"{_ONE}/delete", "webhook_id", verb="DELETE")
def delete_webhook(account: Account | None, webhook_id: str) -> Any:
    """Delete a webhook."""
    status = services().webhooks.delete(_id(account), webhook_id, **write())
    if not write()["dry_run"]:
        return done(_url(account, "list_webhooks"), "webhook_deleted")
    return ask(
        Confirmation(
            f"Delete the webhook {status.webhook.name}",
            "Delete",
            _url(account, "show_webhook", webhook_id=webhook_id),
            [(status.webhook.uri, "gets events", "gets no events")],
            danger=True,
        )
    )
