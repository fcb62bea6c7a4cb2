"""The operator disables or enables one address, or ends its rest, over the API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kazoo_ips.model import Disabled, DisableIP, EnableIP, EndRest, Scope, Status
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient, address_segment


@dataclass(frozen=True, slots=True)
class ChangedIP:
    """An address after a change of its state.

    :param disabled: why it is disabled, or will be when it is released
    """

    address: str
    status: str
    assigned_to: str | None
    disabled: Disabled | None


class RemoteOperatorChanges:
    """Changes the state of one address."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def disable(self, command: DisableIP, request_id: str, *, dry_run: bool = False) -> ChangedIP:
        """Disable an address. If it is assigned, it stays assigned until it is released.

        :raises BadIdentifier: the pool does not have the address
        :raises ValidationFailed: its state does not permit the change
        """
        return self._change(command, {"enabled": False}, request_id, dry_run)

    def enable(self, command: EnableIP, request_id: str, *, dry_run: bool = False) -> ChangedIP:
        """Enable an address again; errors are those of `disable`."""
        return self._change(command, {"enabled": True}, request_id, dry_run)

    def end_rest(self, command: EndRest, request_id: str, *, dry_run: bool = False) -> ChangedIP:
        """End the rest of an address before its time; errors are those of `disable`."""
        return self._change(command, {"status": Status.AVAILABLE.value}, request_id, dry_run)

    def _change(
        self,
        command: DisableIP | EnableIP | EndRest,
        change: Mapping[str, Any],
        request_id: str,
        dry_run: bool,
    ) -> ChangedIP:
        reason = {"reason": command.reason} if command.reason else {}
        data = self._client.write(
            "PATCH",
            f"/ips/{address_segment(command.address)}",
            {**change, **reason},
            request_id=request_id,
            dry_run=dry_run or None,
        ).data
        why = data.get("disabled")
        return ChangedIP(
            data["ip"],
            data["status"],
            data.get("assigned_to"),
            resources.disabled(why, Scope(why["scope"])) if why else None,
        )
