"""Changes of the states of many addresses, in batches: each address independently of the others.

A batch may be repeated. It leaves out an address that another writer has changed since it was
read. The caller that repeats the batch reads that address again.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from kazoo_ips.errors import RuleBroken
from kazoo_ips.model import DedicatedIP
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader

log = logging.getLogger(__name__)

BATCH = 500
"""Number of addresses of a batch."""

ChangeOne = Callable[[DedicatedIP], DedicatedIP | None]
"""Returns an address as it is to be, or None if it is to stay. It may raise `RuleBroken`."""


class BatchWriter:
    """Changes the states of addresses."""

    def __init__(self, reader: IPReader, writer: PoolWriter) -> None:
        self._reader = reader
        self._writer = writer

    def change(
        self, addresses: Sequence[str], kind: Change, change: ChangeOne, *, dry_run: bool = False
    ) -> list[DedicatedIP]:
        """Change these addresses, as far as their states permit it.

        :returns: the addresses that were changed, as they are now
        :raises DatastoreUnreachable: they cannot be read, or nothing was written
        """
        before, after = [], []
        for ip in self._reader.find_each(addresses).values():
            with suppress(RuleBroken):
                changed = change(ip)
                if changed is not None:
                    before.append(ip)
                    after.append(changed)
        if not before or dry_run:
            return after
        results = self._writer.write(before, after)
        done = [n for n, each in enumerate(results) if each.outcome is FinalOutcome.DONE]
        by_reason: dict[str, list[int]] = {}
        for n in done:
            by_reason.setdefault(after[n].trail[-1].reason, []).append(n)
        for reason, group in by_reason.items():
            audit.changed(kind, [before[n] for n in group], [after[n] for n in group], reason)
        return [results[n].ip for n in done]
