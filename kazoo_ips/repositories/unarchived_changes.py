"""Reads the documents of the pool that have changed since the archive's follower read its feed."""

import time
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from kazoo_ips.couch.client import Couch
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.documents import POOL, from_document, is_ip
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.pool_feed import PoolFeed

_MOST = 2000
"""The number of changes that are read. If there are more, the latest of them."""
_CHECKPOINT_TTL = 2.0
"""Maximum number of seconds that the checkpoint is cached. From an older one, more is read."""
_START = "0"
_OWNERS = 20_000
"""The number of addresses whose accounts are remembered, at about 200 bytes each. After that, all
are forgotten."""


class PoolChanges(NamedTuple):
    """What has changed since the checkpoint.

    :param ips: the dedicated IPs, deleted ones included
    :param ids: the ids of all documents that have changed
    :param is_complete: whether these are all changes, and not only the latest ones
    """

    ips: list[DedicatedIP]
    ids: frozenset[str]
    is_complete: bool


class _Checkpoint(NamedTuple):
    """The checkpoint, and the history of the feed that it belongs to."""

    since: str
    history: str


class UnarchivedChanges:
    """Reads the changes feed from the checkpoint of the archive's follower.

    :param feed: the feed that the follower reads
    :param follower: the name of the follower that writes the archive
    """

    def __init__(
        self,
        couch: Couch,
        ips: IPRepository,
        feed: PoolFeed,
        checkpoints: Checkpoints,
        follower: str,
    ) -> None:
        self._pool = couch.database(POOL)
        self._ips = ips
        self._feed = feed
        self._checkpoints = checkpoints
        self._follower = follower
        self._lock = Lock()
        self._checkpoint = _Checkpoint(_START, "")
        self._until = 0.0
        self._owners: dict[str, str | None] = {}
        """The accounts that have addresses, by document id, as they were after the checkpoint."""

    def read(self) -> PoolChanges:
        """Return what has changed. Concurrent threads share one request."""
        return self._read(self._current().since)

    def _read(self, since: str) -> PoolChanges:
        feed = self._pool.changes_until_now(since=since, limit=_MOST + 1, include_docs=True)
        rows = feed["results"]
        is_complete = len(rows) <= _MOST
        if not is_complete:
            feed = self._pool.changes_until_now(descending=True, limit=_MOST, include_docs=True)
            rows = feed["results"]
        ips = [from_document(row["doc"]) for row in rows if is_ip(row["doc"])]
        return PoolChanges(ips, frozenset(row["id"] for row in rows), is_complete)

    def owners(self, ids: Iterable[str], changes: PoolChanges) -> Mapping[str, str | None]:
        """Return the accounts that have addresses, by document id, at the time of `changes`.

        The account of an address is remembered from an earlier call, if the address has not
        changed since. Every change after the checkpoint is in `changes`. When the checkpoint
        moves, the addresses are forgotten that have changed before.

        On a cluster the feed has what one replica of each shard has. So the documents are read.
        """
        wanted = frozenset(ids)
        remembered: dict[str, str | None] = {}
        checkpoint = self._current()
        if changes.is_complete and self._ips.replicas == 1:
            with self._lock:
                same = (wanted & self._owners.keys()) - changes.ids
                remembered = {each: self._owners[each] for each in same}
        missing = wanted - remembered.keys()
        if not missing:
            return remembered
        found = self._ips.by_id(missing)[0]
        owners = {each: found[each].assigned_to if each in found else None for each in missing}
        with self._lock:
            if self._checkpoint is checkpoint:
                if len(self._owners) > _OWNERS:
                    self._owners.clear()
                self._owners |= owners
        return remembered | owners

    def _current(self) -> _Checkpoint:
        """Return the sequence up to which the archive has all changes.

        Other threads use the last one while this thread reads it.
        """
        with self._lock:
            last = self._checkpoint
            if time.monotonic() < self._until:
                return last
            self._until = time.monotonic() + _CHECKPOINT_TTL
        stored, history = self._checkpoints.find(self._follower), self._feed.history()
        # A database that was created again has other sequences.
        is_valid = stored is not None and stored.history == history
        checkpoint = _Checkpoint(stored.since if stored and is_valid else _START, history)
        if checkpoint == last:
            return last
        changes = self._read(last.since) if history == last.history else None
        with self._lock:
            if self._checkpoint is not last:  # this took so long that another thread was faster
                return self._checkpoint
            if changes is None or not changes.is_complete:
                self._owners.clear()
            else:
                for each in changes.ids:
                    self._owners.pop(each, None)
            self._checkpoint = checkpoint
        return checkpoint
