"""Accounts as operators name them: by id, realm or name."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from kazoo_ips.cli.backend import Backend
from kazoo_ips.cli.console import fail, reported
from kazoo_ips.model import Account

_CHUNK = 1000
"""Number of lines for which the names are read at once."""


def account_id(backend: Backend, given: str, failure: str) -> str:
    """Return the id of the account that an argument names.

    If no account has that name, the command ends. If several have it, the command prints them and
    ends.

    :param given: the account's id, realm or name; an id does not have to exist
    :param failure: what the command could not do, for the message
    """
    if re.fullmatch("[0-9a-f]{32}", given):
        return given
    return existing(backend, given, failure).id


def existing(backend: Backend, given: str, failure: str) -> Account:
    """Return the account that an argument names; parameters are those of `account_id`."""
    with reported(failure):
        candidates = backend.accounts.candidates(given)
    if not candidates:
        fail(f"{failure}: not_found")
    if len(candidates) > 1:
        listed = (f"  {a.id} {a.realm} {a.name}" for a in candidates)
        fail(f"{failure}: several accounts have this name; use an id or a realm:", *listed)
    return candidates[0]


class AccountNames:
    """The names of the accounts of a long list, each read once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, str | None] = {}

    def of(
        self, lines: Iterator[Sequence[str | None]]
    ) -> Iterator[tuple[Sequence[str | None], str | None]]:
        """Yield each line with the name of its account, or None.

        :param lines: the last cell of each is the id of an account, or None
        """
        while chunk := list(islice(lines, _CHUNK)):
            new = {line[-1] for line in chunk} - self._known.keys()
            ids = {account_id for account_id in new if account_id}
            self._known |= {**dict.fromkeys(ids), **self._backend.accounts.names(ids)}
            for line in chunk:
                yield line, self._known.get(line[-1] or "")


def names(backend: Backend, account_ids: Iterable[str | None]) -> dict[str, str]:
    """Return the names of accounts by id. Accounts that do not exist are left out."""
    return backend.accounts.names({each for each in account_ids if each})
