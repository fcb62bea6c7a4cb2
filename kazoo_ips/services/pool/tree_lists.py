"""The assigned addresses of an account and of all accounts below it.

The list goes from account to account: the account itself first, then those below it by id. So a
page reads only accounts that have addresses, and its cost does not depend on the size of the pool.
"""

from collections.abc import Iterator
from dataclasses import replace

from kazoo_ips.errors import AccountNotFound
from kazoo_ips.model import Listing, ListIPs, Page
from kazoo_ips.model.listings import ALL_OF_ACCOUNT
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.pool.lists import ListService

_BATCH = 100
"""Number of accounts whose addresses are counted at a time."""
_MOST_ACCOUNTS = 500
"""Number of accounts after which a page ends, even if it has fewer lines than it may have."""


class TreeListService:
    """Lists the addresses of several accounts."""

    def __init__(
        self, lists: ListService, accounts: AccountService, counts: CountRepository
    ) -> None:
        self._lists = lists
        self._accounts = accounts
        self._counts = counts

    def assigned(self, query: ListIPs, account_id: str) -> Page:
        """Return a page of the assigned addresses of an account and of the accounts below it.

        A page can have fewer lines than `limit`, or none, although more pages follow.

        :param query: its `limit` is not None
        """
        assert query.limit is not None
        items: list[Listing] = []
        owners = self._owners(account_id, query.after_account)
        for examined, (owner, is_known_empty) in enumerate(owners, 1):
            after = query.after if owner == query.after_account else None
            if not is_known_empty and after != ALL_OF_ACCOUNT:
                part = replace(
                    query, limit=query.limit - len(items), after=after, after_account=None
                )
                page = self._lists.assigned(part, owner)
                items += page.items
                if page.after is not None:
                    return Page(tuple(items), page.after, owner)
            if len(items) == query.limit or examined > _MOST_ACCOUNTS:
                return Page(tuple(items), ALL_OF_ACCOUNT, owner)
        return Page(tuple(items))

    def _owners(self, account_id: str, first: str | None) -> Iterator[tuple[str, bool]]:
        """Yield the accounts, each with whether it is known to have no address.

        :param first: the account to start with. It is left out if it is not in the tree: it was
            moved out of it, or the client has invented the id
        """
        last = None
        if first is None or first == account_id:
            yield account_id, False  # the view may lag, and the list of one account does not
        else:
            last = first
            if self._is_below(first, account_id):
                yield first, False
        while batch := [i for i, _ in self._accounts.below(account_id, last, _BATCH)]:
            for counted in self._counts.of_accounts(batch):
                yield counted.name, not counted.counts
            last = batch[-1]

    def _is_below(self, account_id: str, ancestor_id: str) -> bool:
        try:
            return self._accounts.fetch(account_id).is_within(ancestor_id)
        except AccountNotFound:
            return False
