"""The state of all instances of the service, read over the API."""

from collections.abc import Mapping
from typing import Any

from kazoo_ips.remote.client import APIClient


class RemoteStatus:
    """Collects the state of all instances."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def as_json(self) -> Mapping[str, Any]:
        """Return the state of all instances as a JSON object."""
        return dict(self._client.get("/ips/status").data)
