"""The settings of zones and hosts, in one document of the service's own database."""

from collections.abc import Callable, Mapping
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import Conflict, DatastoreMissing
from kazoo_ips.model.places import Places, PlaceSettings
from kazoo_ips.repositories.documents import dump_disabled, load_disabled
from kazoo_ips.repositories.records import Records

_ID = "place-settings"
_TRIES = 10
"""Maximum number of tries of a change, while others change the document."""
_KNOWN = frozenset({"drained", "enabled_at", "aging_seconds", "takes_oldest", "low_percent"})


class PlaceSettingsRepository:
    """Reads and changes the settings of zones and hosts."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def read(self) -> Places:
        """Return all settings. A pool without settings has no document."""
        return _places(self._find() or {})

    def change(self, change: Callable[[Places], Places]) -> Places:
        """Change the settings by compare-and-swap, and return them.

        :param change: returns the new settings; called again if another writer was faster
        :raises Conflict: other writers were faster each time
        :raises DatastoreUnreachable: it is unknown whether they are changed
        """
        for _ in range(_TRIES):
            document = self._find() or {}
            before = _places(document)
            after = change(before)
            if after == before or self._records.put_settled(_document(after, document)):
                return after
        raise Conflict(_ID)

    def _find(self) -> Document | None:
        try:
            return self._records.find_settled(_ID)
        except DatastoreMissing:  # then no request can have changed a setting
            return None


def _places(document: Document) -> Places:
    zones, hosts = (
        {name: _settings(stored) for name, stored in (document.get(each) or {}).items()}
        for each in ("zones", "hosts")
    )
    return Places(zones, hosts)


def _settings(stored: Mapping[str, Any]) -> PlaceSettings:
    drained = stored.get("drained")
    return PlaceSettings(
        drained=load_disabled(drained) if drained else None,
        enabled_at=stored.get("enabled_at"),
        aging_seconds=int(stored.get("aging_seconds") or 0),
        takes_oldest=bool(stored.get("takes_oldest")),
        low_percent=stored.get("low_percent"),
        others={name: value for name, value in stored.items() if name not in _KNOWN},
    )


def _document(places: Places, replaced: Document) -> Document:
    return {
        **replaced,
        "_id": _ID,
        "type": "place_settings",
        "zones": {name: _dump(settings) for name, settings in places.zones.items()},
        "hosts": {name: _dump(settings) for name, settings in places.hosts.items()},
    }


def _dump(settings: PlaceSettings) -> Document:
    known = {
        "drained": settings.drained and dump_disabled(settings.drained),
        "enabled_at": settings.enabled_at,
        "aging_seconds": settings.aging_seconds,
        "takes_oldest": settings.takes_oldest,
    }
    # 0 is a percentage that the operator has set; None is none.
    low = {} if settings.low_percent is None else {"low_percent": settings.low_percent}
    return {**settings.others, **{name: value for name, value in known.items() if value}, **low}
