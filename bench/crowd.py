"""A pool that very many accounts share, for the rows about many accounts."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.couch import Document
from bench.world import OURS, World, gregorian_now
from kazoo_ips import app
from kazoo_ips.config import Settings
from kazoo_ips.repositories.accounts import ACCOUNTS, account_database

_WRITERS = 4
_FREE = 2
"""Number of available addresses for each account."""


class Crowd(World):
    """A pool whose accounts all have the same number of addresses.

    It also has two available addresses for each account.

    :param settings: the settings of the service, with a unique prefix
    :param accounts: the number of accounts
    :param each: the number of addresses of each account
    """

    def __init__(self, settings: Settings, accounts: int, each: int) -> None:
        self.ids = [hashlib.md5(b"%d" % n).hexdigest() for n in range(accounts)]
        self._each = each
        super().__init__(settings, accounts * (each + _FREE))

    def _load(self) -> None:
        app.databases(self.settings).create()
        services = app.build(self.settings)
        self.operator = self._member(services, "Operator")
        self.measured = self._member(services, "Measured")
        self._owners = [self._owner(n) for n in range(self.size)]
        documents = self.documents()
        self.couch.database(ACCOUNTS).load([self._account(each) for each in self.ids])
        with ThreadPoolExecutor(_WRITERS) as writers:
            loading = [
                writers.submit(self._load_account, n, documents) for n in range(len(self.ids))
            ]
            for each in loading:
                each.result()
        self.pool.delete()
        self.pool.create()
        self.pool.load(documents)
        self.couch.wait_until_idle()
        self.seconds["ours"] = sum(self.pool.build(self.couch.design(name)) for name in OURS)
        self.couch.wait_until_idle()

    def _owner(self, number: int) -> str | None:
        account, place = divmod(number, self._each + _FREE)
        return self.ids[account] if place < self._each else None

    def numbers_of(self, account: int) -> list[int]:
        """Return the numbers of the addresses of an account."""
        first = account * (self._each + _FREE)
        return list(range(first, first + self._each))

    def _load_account(self, number: int, documents: Sequence[Document]) -> None:
        account_id = self.ids[number]
        database = self.couch.database(account_database(account_id))
        database.create()
        copies = [documents[n] for n in self.numbers_of(number)]
        database.load([self._account(account_id), *copies])

    def _account(self, account_id: str) -> Document:
        return {
            "_id": account_id,
            "pvt_type": "account",
            "name": f"Account {account_id[:8]}",
            "realm": f"{account_id[:8]}.example.com",
            "pvt_tree": [self.operator.account.id],
            "pvt_enabled": True,
            "pvt_created": gregorian_now(),
        }
