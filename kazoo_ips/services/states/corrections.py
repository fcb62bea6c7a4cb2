"""Corrects addresses that another program has made available against the rules.

Kazoo's `release` makes any address available: one that rests, that is reserved, that is disabled,
or whose host is drained. The release before this one does so too, and so does an instance that
does not know a new setting yet. An address that an account has by now stays as it is. The archiver
of the history calls this module for the changes that it has read.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from kazoo_ips.errors import DatastoreError, DatastoreForbidden
from kazoo_ips.model import DedicatedIP, Status
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, Source
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter
from kazoo_ips.services.states.places import PlaceService

log = logging.getLogger(__name__)

_AUTHOR = Author(command="background")


@dataclass(frozen=True, slots=True)
class ReadChange:
    """An address as the archiver has read it, and the latest event that is not archived yet."""

    ip: DedicatedIP
    last: HistoryEvent | None


class CorrectionService:
    """Corrects the states of addresses.

    :param now: returns the time in Gregorian seconds
    :param metrics: counts the writes that broke the rules, and the corrections
    """

    def __init__(
        self,
        ips: IPRepository,
        writer: PoolWriter,
        places: PlaceService,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._writer = writer
        self._places = places
        self._now = now
        self._metrics = metrics

    def correct(self, changes: Mapping[str, ReadChange]) -> set[str]:
        """Correct these addresses where it is necessary.

        :returns: the addresses of which it is not known whether they are corrected
        """
        try:
            return self._correct(changes)
        except DatastoreForbidden as error:  # the archive must not wait for it
            log.error("states that another program has changed are not corrected: %s", error)
            return set()
        except DatastoreError as error:
            log.warning("addresses are not corrected yet: %s", error)
            return set(changes)

    def _correct(self, changes: Mapping[str, ReadChange]) -> set[str]:
        self._count_taken(changes)
        due = {a: each for a, each in changes.items() if self._corrected(each.ip, each.last)}
        if not due:
            return set()
        current = self._ips.by_id(list(due))[0]
        before, after = [], []
        for address, ip in current.items():
            corrected = None if ip.conflicted else self._corrected(ip, due[address].last)
            if corrected:
                before.append(ip)
                after.append(corrected)
        results = self._writer.write(before, after) if before else []
        for n, result in enumerate(results):
            if result.outcome is FinalOutcome.DONE:
                self._record(before[n], result.ip, due[before[n].address].last)
        unknown = (FinalOutcome.UNKNOWN, FinalOutcome.UNDONE)
        return {each.ip.address for each in results if each.outcome in unknown}

    def _corrected(self, ip: DedicatedIP, last: HistoryEvent | None) -> DedicatedIP | None:
        if ip.status is not Status.AVAILABLE:
            return None
        return ip.corrected(
            _released_by(last),
            self._places.rules(ip),
            at=self._now(),
            request_id=f"correction-{uuid4().hex[:16]}",
            by=_AUTHOR,
        )

    def _record(self, before: DedicatedIP, after: DedicatedIP, last: HistoryEvent | None) -> None:
        kind = after.trail[-1].kind
        audit.changed(Change(str(kind)), [before], [after], after.trail[-1].reason)
        if last is not None and last.source is not Source.SERVICE:
            log.warning("%s: it was made available, and is %s again", after.address, after.status)
            self._metrics.states_bypassed.labels("corrected").inc()
        self._metrics.states_corrected.labels(str(after.status)).inc()

    def _count_taken(self, changes: Mapping[str, ReadChange]) -> None:
        """Count the addresses that another program has assigned against the rules."""
        for address, each in changes.items():
            last = each.last
            if last is None or last.source is Source.SERVICE:
                continue
            if last.event != HistoryEventKind.ASSIGNED or last.account_after is None:
                continue
            held_back = last.before is not None and last.before.status in {
                Status.AGING, Status.RESERVED, Status.DISABLED,
            }  # fmt: skip
            if held_back or self._places.rules(each.ip).drained:
                log.warning("%s: another program has assigned it against the rules", address)
                self._metrics.states_bypassed.labels("taken").inc()


def _released_by(last: HistoryEvent | None) -> str | None:
    """Return the account from which an address was released, if that is the latest event.

    The previous release may have released it, or an instance that did not know a new setting.
    """
    if last is None or last.event != HistoryEventKind.RELEASED:
        return None
    return last.account_before
