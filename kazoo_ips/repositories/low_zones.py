"""Which zones are low: one document of the service's own database."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kazoo_ips.model.low_zones import LowMark
from kazoo_ips.repositories.records import Records

_MARKS = "low_zones"
_SETTINGS = "place-settings"
"""The settings of zones and hosts."""


@dataclass(frozen=True, slots=True)
class LowMarks:
    """The marks of all zones that have ever been low."""

    zones: Mapping[str, LowMark] = field(default_factory=dict)
    revision: str | None = None


class LowMarkRepository:
    """Reads and writes the marks of all zones: one document, so that each change happens once."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def percentages(self) -> dict[str, float]:
        """Return the percentages at which zones are low, of those that have one of their own."""
        document = self._records.find_settled(_SETTINGS) or {}
        zones = (document.get("zones") or {}).items()
        return {name: zone["low_percent"] for name, zone in zones if "low_percent" in zone}

    def read(self) -> LowMarks:
        """Return the marks."""
        document = self._records.find_settled(_MARKS)
        if document is None:
            return LowMarks()
        zones = {zone: LowMark(**_known(mark)) for zone, mark in document["zones"].items()}
        return LowMarks(zones, document["_rev"])

    def put(self, marks: LowMarks) -> LowMarks | None:
        """Write marks at the revision that they carry (compare-and-swap).

        :returns: the marks at their new revision; None if another process has changed them
        :raises DatastoreUnreachable: it is unknown whether they were written
        """
        zones = {zone: mark._asdict() for zone, mark in marks.zones.items()}
        document = self._records.put_settled(
            {"_id": _MARKS, "_rev": marks.revision, "type": "low_zones", "zones": zones}
        )
        return replace(marks, revision=document["_rev"]) if document else None


def _known(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {name: mark[name] for name in LowMark._fields}
