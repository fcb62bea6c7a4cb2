"""The use of zones over time, read over the API."""

from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient, segment
from kazoo_ips.services.pool.usage import DAYS


class RemoteUsage:
    """Returns the use of zones over time."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def series(self, zone: str, days: int = DAYS) -> UsageSeries:
        """Return the use of a zone, day by day until today.

        :returns: a series without counts if no address has ever been in the zone
        """
        nothing = UsageSeries(zone, 0, {}, (), (), None)
        if not zone:
            return nothing
        try:
            data = self._client.get(f"/ips/zones/{segment(zone)}/usage", days=days).data
        except BadIdentifier:
            return nothing
        found = data["days"]
        return UsageSeries(
            zone,
            resources.day(found[0]["date"]),
            {status: [day["counts"][status] for day in found] for status in found[0]["counts"]},
            [day["assigned"] for day in found],
            [day["released"] for day in found],
            resources.forecast(data["exhausts_at"]),
        )
