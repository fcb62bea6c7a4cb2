"""The limits of accounts, read and set over the API."""

from kazoo_ips.model.limits import Limits
from kazoo_ips.remote.client import APIClient, segment
from kazoo_ips.remote.replies import Reply
from kazoo_ips.services.assigning.limits import LimitStatus


class RemoteLimits:
    """Shows and sets the limits of accounts."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def status(self, account_id: str) -> LimitStatus:
        """Return the limits of an account, and what counts against them."""
        return _status(self._client.get(_path(account_id)))

    def set(
        self, account_id: str, limits: Limits, request_id: str, *, dry_run: bool = False
    ) -> LimitStatus:
        """Set the limits of an account, in place of all that it had."""
        given = {"max": limits.max, "descendants_max": limits.descendants_max}
        data = {name: number for name, number in given.items() if number is not None}
        reply = self._client.write(
            "POST",
            _path(account_id),
            {**data, "zones": dict(limits.zones)},
            request_id=request_id,
            dry_run=dry_run or None,
        )
        return _status(reply)


def _path(account_id: str) -> str:
    return f"/accounts/{segment(account_id)}/ips/limits"


def _status(reply: Reply) -> LimitStatus:
    data, used = reply.data, reply.data["used"]
    limits = Limits(data.get("max"), data["zones"], data.get("descendants_max"))
    return LimitStatus(
        limits, used["total"], used["zones"], used.get("descendants"), data["exceeded_by"]
    )
