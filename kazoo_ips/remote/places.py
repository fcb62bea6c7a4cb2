"""Zones and hosts, their settings and drains, read and set over the API."""

from collections.abc import Iterator, Mapping
from typing import Any

from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model import Status, Summary
from kazoo_ips.model.places import PlaceSettings
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient, segment
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState


class RemotePlaces:
    """Shows and changes zones and hosts."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def fetch(self, place: Place) -> PlaceState:
        """Return a zone or a host.

        :raises BadIdentifier: the place has neither addresses nor settings
        """
        return _state(place, self._client.get(_path(place)).data)

    def set(self, command: ChangePlace, *, dry_run: bool = False) -> PlaceState:
        """Change the settings of a zone or a host. The service begins to change its addresses.

        :raises BadIdentifier: the place has neither addresses nor settings
        """
        given: dict[str, Any] = {
            "enabled": command.enabled,
            "reason": command.reason or None,
            "aging_seconds": command.aging_seconds,
            "low_percent": command.low_percent,
        }
        if command.takes_oldest is not None:
            given["when_empty"] = "oldest" if command.takes_oldest else "wait"
        data = {name: value for name, value in given.items() if value is not None}
        place = command.place
        reply = self._client.write("PATCH", _path(place), data, dry_run=dry_run or None)
        return _state(place, reply.data)


class RemoteDrains:
    """Lets the service change the addresses of drained places."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._places = RemotePlaces(client)

    def carry_out(self, place: Place, request_id: str) -> Iterator[int]:
        """Let the service change the addresses of a place as its settings say.

        A request changes addresses for a few seconds. It is repeated as long as it changes any.

        :returns: an iterator that sends the requests; it yields how many addresses have changed
            since the last one
        """
        state = self._places.fetch(place)
        drained = state.settings.drained
        data: dict[str, Any] = {"enabled": drained is None}
        if drained:
            data["reason"] = (
                drained.reason
            )  # the service keeps the reason with which the drain began
        while left := _left(state):
            reply = self._client.write("PATCH", _path(place), data, request_id=request_id)
            state = _state(place, reply.data)
            if _left(state) >= left:
                return
            yield left - _left(state)


def _left(state: PlaceState) -> int:
    """Return how many addresses may still have to be disabled or enabled."""
    if state.settings.drained:
        return state.pending
    return state.summary.counts.get(Status.DISABLED, 0)


def _path(place: Place) -> str:
    """Return the path of a zone or a host.

    :raises BadIdentifier: the name is empty; that is the path of the list
    """
    if not place.name:
        raise BadIdentifier(place.name)
    return f"/ips/{place.scope.value}s/{segment(place.name)}"


def _state(place: Place, given: Mapping[str, Any]) -> PlaceState:
    drained = given.get("disabled")
    settings = PlaceSettings(
        drained=resources.disabled(drained, place.scope) if drained else None,
        aging_seconds=given.get("aging_seconds", 0),
        takes_oldest=given.get("when_empty") == "oldest",
        low_percent=given.get("low_percent"),
    )
    return PlaceState(place, settings, Summary(given["counts"], place.name), given["pending"])
