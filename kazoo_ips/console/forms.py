"""What forms and lists of several pages share: parameters, accounts by name, the next page."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import request
from werkzeug.datastructures import MultiDict

from kazoo_ips.api import fields
from kazoo_ips.api.routes import services
from kazoo_ips.console import explanations
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import Account

_OF_PAGES = {"done", "account"}
"""Parameters that only the console has."""


def given() -> Sequence[tuple[str, str]]:
    """Return the parameters of the URL that are not empty, without those of the console itself."""
    return [(k, v) for k, v in request.args.items(multi=True) if v and k not in _OF_PAGES]


def problem(error: ValidationFailed) -> str:
    """Return what is wrong with the parameters, as one text."""
    return "; ".join(explanations.of_rules(error))


def account_named(text: str) -> tuple[Account | None, str]:
    """Return the account with this id, realm or name, and what is wrong with the text.

    An empty text is no account, and nothing is wrong with it.
    """
    text = text.strip()
    if not text:
        return None, ""
    found = services().accounts.candidates(text)
    if len(found) == 1:
        return found[0], ""
    if not found:
        return None, f"No account has the id, the realm or the name {text}."
    realms = ", ".join(sorted(account.realm for account in found))
    return None, f"Several accounts have the name {text}. Their realms are: {realms}."


def account_from_form() -> Account:
    """Return the account that the field `account` of a form names.

    :raises ValidationFailed: none or several have this name
    """
    text = request.form.get("account", "")
    account, unknown = account_named(text)
    if account is None:
        message = unknown or "Field is required but missing"
        raise ValidationFailed({"account": {"not_found": {"message": message}}})
    return account


def next_page(after: Any) -> str | None:
    """Return the URL of the next page of a list.

    :param after: the position where this page ends; None if it is the last one
    """
    return page_from(None if after is None else fields.start_key(after))


def page_from(start_key: str | None) -> str | None:
    """Return the URL of the page of a list that starts at a key; None if there is none."""
    if start_key is None:
        return None
    query = MultiDict(request.args)
    query["start_key"] = start_key
    query.pop("done", None)
    return f"{request.path}?{urlencode(list(query.items(multi=True)))}"


def whole_number(name: str, most: int) -> int:
    """Return a field of a form that is a number from 1.

    :raises ValidationFailed: it is not, or it is greater than `most`
    """
    text = request.form.get(name, "").strip()
    if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= most:
        return int(text)
    message = f"a number from 1 to {most} is required"
    raise ValidationFailed({name: {"type": {"message": message, "value": text}}})
