"""Databases for direct writes of the documents that the service would write."""

from collections.abc import Sequence
from itertools import count
from uuid import uuid4

from bench.couch import Document
from bench.world import OURS, World, addresses, document


class Scratch:
    """A new pool and a new account database for a world."""

    def __init__(self, world: World) -> None:
        name = uuid4().hex[:8]
        self.account_id = world.measured.account.id
        self.pool = world.couch.database(f"pool-{name}")
        self.account = world.couch.database(f"account-{name}")
        self._used = count(1_000_000)
        for made in (self.pool, self.account):
            made.create()
        # The pool's documents are indexed in the background, so they are indexed here too.
        for design in OURS:
            self.pool.build(self.pool.couch.design(design))

    def some(self, numbers: Sequence[int], *, assigned: bool) -> list[Document]:
        """Return documents of these addresses, with ids that were not used before."""
        owner = self.account_id if assigned else None
        return [{**document(n, owner), "_id": addresses([next(self._used)])[0]} for n in numbers]

    def stored(self, numbers: Sequence[int], *, assigned: bool) -> list[Document]:
        """Write documents of these addresses to the pool; return them when they are indexed."""
        stored = self.pool.load(self.some(numbers, assigned=assigned))
        self.pool.resolve(OURS)
        return stored

    def changed(self, stored: Sequence[Document], *, assigned: bool) -> list[Document]:
        """Return stored documents as they are to be written next: assigned, or available."""
        new = document(0, self.account_id if assigned else None)
        kept = ("_id", "_rev", "pvt_zone", "pvt_host", "pvt_created")
        return [{**new, **{k: each[k] for k in kept}} for each in stored]
