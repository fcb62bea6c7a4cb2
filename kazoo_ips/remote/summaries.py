"""The counts of addresses by status, zone, host and account, read over the API."""

from collections.abc import Mapping
from typing import Any

from kazoo_ips.model import Summary, SummaryPage
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient


class RemoteSummaries:
    """Counts addresses. In its lists, `after` is what the API calls `start_key`."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def pool(self) -> Summary:
        """Return the counts of the whole pool."""
        return _summary(self._client.get("/ips/summary").data)

    def zone(self, name: str) -> Summary:
        """Return the counts of one zone; no counts if no address is in it."""
        return _summary(self._client.get("/ips/summary", zone=name).data, name)

    def zones(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next zones, by name."""
        return self._page("zone", after, limit)

    def hosts(self, after: str | None, limit: int, zone: str | None = None) -> SummaryPage:
        """Return the counts of the next hosts, by name.

        :param zone: count only the addresses of this zone
        """
        return self._page("host", after, limit, zone=zone)

    def accounts(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next accounts that have addresses, by id."""
        return self._page("account", after, limit)

    def _page(self, by: str, after: str | None, limit: int, **more: Any) -> SummaryPage:
        page = self._client.get("/ips/summary", by=by, start_key=after, page_size=limit, **more)
        member = "account_id" if by == "account" else by
        items = tuple(_summary(each, each[member]) for each in page.data)
        return SummaryPage(items, page.next_start_key)


def _summary(data: Mapping[str, Any], name: str = "") -> Summary:
    forecast = resources.forecast(data.get("exhausts_at"))
    return Summary(data["counts"], name, data.get("low"), forecast)
