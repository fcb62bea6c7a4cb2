"""Accounts as operators name them: by id, realm or name."""

import re
from collections.abc import Iterable

from kazoo_ips.app import Instance
from kazoo_ips.cli.console import fail, reported
from kazoo_ips.model import Account


def account_id(instance: Instance, given: str, failure: str) -> str:
    """Return the id of the account that an argument names.

    The command ends if no account or several have that name. Then it prints the candidates.

    :param given: the account's id, realm or name; an id does not have to exist
    :param failure: what the command could not do, for the message
    """
    if re.fullmatch("[0-9a-f]{32}", given):
        return given
    return existing(instance, given, failure).id


def existing(instance: Instance, given: str, failure: str) -> Account:
    """Return the account that an argument names; parameters are those of `account_id`."""
    with reported(failure):
        candidates = instance.accounts.candidates(given)
    if not candidates:
        fail(f"{failure}: not_found")
    if len(candidates) > 1:
        listed = (f"  {a.id} {a.realm} {a.name}" for a in candidates)
        fail(f"{failure}: several accounts have this name; use an id or a realm:", *listed)
    return candidates[0]


def names(instance: Instance, account_ids: Iterable[str | None]) -> dict[str, str]:
    """Return the names of accounts by id. Accounts that do not exist are left out."""
    return instance.accounts.names({each for each in account_ids if each})
