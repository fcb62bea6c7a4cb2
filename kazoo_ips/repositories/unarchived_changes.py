"""Reads the documents of the pool that have changed since the archive's follower read its feed."""

import time

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.documents import POOL, TYPE, from_document
from kazoo_ips.repositories.pool_feed import PoolFeed

_MOST = 2000
"""The number of changes that are read. If there are more, the latest of them."""
_CHECKPOINT_TTL = 2.0
"""Maximum number of seconds that the checkpoint is cached. From an older one, more is read."""
_START = "0"


class UnarchivedChanges:
    """Reads the changes feed from the checkpoint of the archive's follower.

    :param feed: the feed that the follower reads
    :param follower: the name of the follower that writes the archive
    """

    def __init__(
        self, couch: Couch, feed: PoolFeed, checkpoints: Checkpoints, follower: str
    ) -> None:
        self._pool = couch.database(POOL)
        self._feed = feed
        self._checkpoints = checkpoints
        self._follower = follower
        self._since = _START
        self._until = 0.0

    def read(self) -> list[DedicatedIP]:
        """Return the documents that have changed, deleted ones included."""
        since = self._checkpoint()
        feed = self._pool.changes(since=since, limit=_MOST + 1, include_docs=True)
        rows = feed["results"]
        if len(rows) > _MOST:
            feed = self._pool.changes(descending=True, limit=_MOST, include_docs=True)
            rows = feed["results"]
        return [from_document(row["doc"]) for row in rows if _is_ip(row["doc"])]

    def _checkpoint(self) -> str:
        """Return the sequence up to which the archive has all changes."""
        if self._until < time.monotonic():
            until = time.monotonic() + _CHECKPOINT_TTL
            checkpoint = self._checkpoints.find(self._follower)
            # A database that was created again has other sequences.
            is_valid = checkpoint and checkpoint.history == self._feed.history()
            self._since = checkpoint.since if checkpoint and is_valid else _START
            self._until = until
        return self._since


def _is_ip(document: Document) -> bool:
    return document.get("pvt_type") == TYPE and not document.get("pvt_deleted")
