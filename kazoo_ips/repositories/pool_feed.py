"""The changes feed of the pool, with the revisions of its documents."""

from typing import NamedTuple

from kazoo_ips.couch.client import Couch
from kazoo_ips.model import generation
from kazoo_ips.repositories.documents import POOL


class Revision(NamedTuple):
    """A document of the pool that was written, created or deleted.

    :param address: its id
    :param generation: the generation of the revision that is the winner after that
    """

    address: str
    generation: int


class PoolFeed:
    """Reads the feed. Implements the feed of a change follower."""

    def __init__(self, couch: Couch) -> None:
        self._pool = couch.database(POOL)

    def history(self) -> str:
        """Return an id of the database, which changes if the database is created again."""
        return str(self._pool.info().get("instance_start_time", ""))

    def changed(self, since: str, limit: int) -> tuple[str, list[Revision], bool]:
        """Return the position after the next changes, these changes, and whether more follow."""
        feed = self._pool.changes(since=since, limit=limit)
        rows = feed["results"]
        changed = [
            Revision(row["id"], generation(row["changes"][0]["rev"]))
            for row in rows
            if not row["id"].startswith("_")
        ]
        return str(feed["last_seq"]), changed, len(rows) == limit
