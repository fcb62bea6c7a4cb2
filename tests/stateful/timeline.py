"""A timeline of the pool that the tests record, and the archive, which must agree with it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.history_documents import from_document
from tests.clocks import ManualClock
from tests.history.kills import Killed, killed_at
from tests.stateful.model import Entry

STEPS = 5
"""Seconds within which the archiver reads all changes and archives them."""
Change = tuple[str, str | None]
"""The kind of a change of an address, and the account that has the address or had it."""
AVAILABLE = "-"
"""Stands for the account of an address that no account has."""


def changes(before: Entry | None, after: Entry | None, ids: Mapping[str, str]) -> list[Change]:
    """Return the changes that lead from one state of an address to the next one."""
    if before == after:
        return []
    owner = before.owner if before else None
    if after is None:
        released: list[Change] = [("released", ids[owner])] if owner else []
        return [*released, ("deleted", None)]
    if before is None:
        return [("created", None)]
    if after.owner and after.owner != owner:
        return [("transferred" if owner else "assigned", ids[after.owner])]
    if owner and not after.owner:
        return [("released", ids[owner])]
    return [("changed", None)]


def replay(changes: Iterable[Change]) -> str:
    """Return the account that has an address after changes, `AVAILABLE`, or empty if deleted.

    :raises AssertionError: a change does not follow from the one before
    """
    owner = ""
    for kind, account_id in changes:
        match kind:
            case "created":
                assert not owner
                owner = AVAILABLE
            case "assigned":
                assert owner == AVAILABLE
                owner = account_id or ""
            case "released":
                assert owner == account_id
                owner = AVAILABLE
            case "deleted":
                assert owner == AVAILABLE
                owner = ""
            case _:
                raise AssertionError(kind)
    return owner


@dataclass
class Archive:
    """The archive, and an archiver that tests kill and start again."""

    settings: Settings
    couch: Couch
    clock: ManualClock
    lives: int = 0
    _known: set[str] = field(default_factory=set)
    _process: Any = None

    def restart(self) -> None:
        """Start another process, with empty caches."""
        self._process = None

    def run(self) -> None:
        """Let the archiver archive all changes."""
        if self._process is None:
            self.lives += 1
            self.clock.now += 60  # until the lease of the killed process ends
            self._process = composition.build(self.settings, clock=self.clock)
        for _ in range(STEPS):
            self._process.background.archive()
            self.clock.now += 1

    def run_killed(self, number: int, *, answered: bool) -> None:
        """Kill the archiver at one of its requests, unless it finishes before.

        :param answered: whether CouchDB gets the request
        """
        with suppress(Killed), killed_at(number, answered=answered):
            self.run()
        self.restart()

    def skip(self) -> None:
        """Archive all changes so far, and ignore their events from now on."""
        self.run()
        self._known = {document["_id"] for document in self._documents()}

    def timelines(self) -> dict[str, list[Change]]:
        """Return the events in effect, by address."""
        documents = [d for d in self._documents() if d["_id"] not in self._known]
        events = [from_document(document) for document in documents]
        retracted = {event.retracts for event in events}
        found: dict[str, list[Change]] = {}
        for event in sorted(events, key=lambda event: event.id):
            if event.id not in retracted and not event.retracts:
                made = (str(event.event), event.account_id)
                found.setdefault(event.address, []).append(made)
        return found

    def _documents(self) -> list[dict[str, Any]]:
        names = [n for n in self.couch.databases() if n.startswith("kazoo_ips_history_")]
        return [d for n in names for d in self.couch.database(n).range("4", "7")]
