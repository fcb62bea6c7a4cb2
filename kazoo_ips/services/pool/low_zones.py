"""Zones with few available addresses: an event when a zone becomes low, and when it recovers.

The mark of a zone is changed by compare-and-swap, together with the id of its event. The event is
archived after that, and the archive stores an event with the same id once. So each crossing has
exactly one event, with any number of instances and if any of them is killed.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from secrets import token_hex

from kazoo_ips.model import Summary
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, PoolLevel
from kazoo_ips.model.low_zones import LowMark, is_low
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.repositories.history_archive import HistoryArchive
from kazoo_ips.repositories.low_zones import LowMarkRepository, LowMarks


class LowZoneService:
    """Marks zones as low.

    :param low_percent: the percentage for zones whose settings have none; 0 is never
    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        counts: CountRepository,
        marks: LowMarkRepository,
        archive: HistoryArchive,
        low_percent: float,
        now: Callable[[], int],
    ) -> None:
        self._counts = counts
        self._marks = marks
        self._archive = archive
        self._low_percent = low_percent
        self._now = now

    def low(self) -> dict[str, bool]:
        """Return whether each zone that has ever been low is low now, as far as it was noticed."""
        return {zone: mark.low for zone, mark in self._marks.read().zones.items()}

    def check(self) -> None:
        """Compare the zones with their marks, and publish an event for each crossing.

        :raises DatastoreError: CouchDB failed; the next check goes on
        """
        marks = self._publish(self._marks.read())
        if marks is None:
            return
        zones = {zone.name: zone for zone in self._counts.by_zone()}
        crossed = self._crossed(zones, marks.zones, self._marks.percentages())
        # The mark of a zone without addresses is removed without an event: the zone is gone.
        kept = {zone: mark for zone, mark in marks.zones.items() if zone in zones}
        if crossed or len(kept) < len(marks.zones):
            written = self._marks.put(replace(marks, zones=kept | crossed))
            if written:
                self._publish(written)

    def _crossed(
        self,
        zones: Mapping[str, Summary],
        marks: Mapping[str, LowMark],
        percentages: Mapping[str, float],
    ) -> dict[str, LowMark]:
        """Return the new mark of each zone that has become low or has recovered."""
        crossed = {}
        for name, zone in zones.items():
            percent = percentages.get(name, self._low_percent)
            was_low = name in marks and marks[name].low
            if is_low(zone.available, zone.total, percent, was_low=was_low) != was_low:
                now = self._now()
                crossed[name] = LowMark(
                    not was_low, now, f"{now}-{token_hex(4)}", zone.available, zone.total, percent
                )
        return crossed

    def _publish(self, marks: LowMarks) -> LowMarks | None:
        """Archive the events that are not known to be archived.

        :returns: the marks after that; None if another process has changed them meanwhile
        """
        waiting = {zone: mark for zone, mark in marks.zones.items() if not mark.published}
        if not waiting:
            return marks
        self._archive.append([_event(zone, mark) for zone, mark in waiting.items()])
        published = {zone: mark._replace(published=True) for zone, mark in waiting.items()}
        return self._marks.put(replace(marks, zones={**marks.zones, **published}))


def _event(zone: str, mark: LowMark) -> HistoryEvent:
    """Return the event of a mark. The same mark always has the same event."""
    return HistoryEvent(
        id=mark.event_id,
        address="",
        event=HistoryEventKind.POOL_LOW if mark.low else HistoryEventKind.POOL_RECOVERED,
        at=mark.since,
        account_id=None,
        before=None,
        after=None,
        by=Author(command="background"),
        request_id=None,
        level=PoolLevel(zone, mark.available, mark.total, mark.low_percent),
    )
