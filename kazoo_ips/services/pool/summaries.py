"""Summaries: how many addresses of each status the pool, a zone, a host or an account has."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kazoo_ips.model import Summary, SummaryPage
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.pool.low_zones import LowZoneService
from kazoo_ips.services.pool.usage import UsageService

_CHUNK = 500
"""Number of groups that are read in one request for a long list."""
ListSummaries = Callable[[str | None, int], SummaryPage]


class SummaryService:
    """Counts addresses. No count reads the addresses themselves.

    :param usage: knows when a zone runs out
    :param low_zones: knows which zones are low
    """

    def __init__(
        self,
        counts: CountRepository,
        accounts: AccountService,
        usage: UsageService,
        low_zones: LowZoneService,
    ) -> None:
        self._counts = counts
        self._accounts = accounts
        self._usage = usage
        self._low_zones = low_zones

    def pool(self) -> Summary:
        """Return the counts of the whole pool, and when it runs out."""
        zones = self._counts.by_zone()
        counts: Counter[str] = Counter()
        for zone in zones:
            counts.update(zone.counts)
        low = self._low_zones.low()
        return Summary(
            counts,
            low=any(low.get(zone.name) for zone in zones),
            forecast=self._usage.forecast_of_all(zones),
        )

    def zones(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next zones, by name, and when each runs out.

        :param after: the name after which they start; None for the first ones
        """
        found = [zone for zone in self._counts.by_zone() if after is None or zone.name > after]
        items = self.with_forecasts(found[:limit])
        return SummaryPage(items, items[-1].name if len(found) > limit else None)

    def zone(self, name: str) -> Summary:
        """Return the counts of one zone, and when it runs out; no counts if it has no address."""
        found = self.zone_count(name)
        return self.with_forecasts([found])[0] if found.counts else replace(found, low=False)

    def zone_counts(self) -> list[Summary]:
        """Return the counts of all zones, by name, without what the history says."""
        return self._counts.by_zone()

    def zone_count(self, name: str) -> Summary:
        """Return the counts of one zone, as `zone_counts` does."""
        found = (zone for zone in self._counts.by_zone() if zone.name == name)
        return next(found, Summary({}, name))

    def with_forecasts(self, zones: Sequence[Summary]) -> tuple[Summary, ...]:
        """Return counts of zones with when each runs out, and whether it is low."""
        low = self._low_zones.low() if zones else {}
        return tuple(
            replace(zone, low=low.get(zone.name, False), forecast=self._usage.forecast(zone))
            for zone in zones
        )

    def hosts(self, after: str | None, limit: int, zone: str | None = None) -> SummaryPage:
        """Return the counts of the next hosts, by name.

        :param zone: count only the addresses of this zone
        """
        return self._counts.by_host(after, limit, zone)

    def host(self, name: str) -> Summary:
        """Return the counts of one host; no counts if no address is on it."""
        return self._counts.of_host(name)

    def of_accounts(self, account_ids: Sequence[str]) -> Sequence[Summary]:
        """Return the counts of these accounts, in their order. Each takes a request of its own."""
        return self._counts.of_accounts(account_ids)

    def accounts(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next accounts that have addresses, by id."""
        return self._counts.by_account(after, limit)

    def account(self, account_id: str, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of an account, and of the accounts below it by id.

        :param after: the account after which they start; None for the account itself
        """
        ids = [account_id] if after is None else []
        start = None if after == account_id else after
        ids += [i for i, _ in self._accounts.below(account_id, start, limit + 1 - len(ids))]
        shown = ids[:limit]
        items = tuple(self._counts.of_accounts(shown))
        return SummaryPage(items, shown[-1] if len(ids) > limit else None)


def walk(list_page: ListSummaries) -> Iterator[Summary]:
    """Yield all summaries of a list, read in chunks."""
    after: str | None = None
    while True:
        page = list_page(after, _CHUNK)
        yield from page.items
        after = page.after
        if after is None:
            return
