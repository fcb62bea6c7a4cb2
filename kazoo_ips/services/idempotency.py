"""A request that comes twice is done once, when it names itself by an Idempotency-Key.

The first to note the key does the work; what it replied is kept for a day and repeated to whoever
asks again. When the first died at it, the next takes its place under the same request id, so that
what was written already is known for its own.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kazoo_ips import process
from kazoo_ips.errors import IdempotencyMismatch, InProgress, KazooIPsError
from kazoo_ips.repositories.journal import JournalRepository, KeptReply, reply_id

log = logging.getLogger(__name__)

KEPT = 24 * 3600
"""Seconds that a reply is kept."""
LEASE = 120
"""Seconds after which a request without a reply is taken for dead: longer than any takes.
Where its process is known to have died, nobody waits for that."""


class IdempotencyService:
    """Keys, and the replies that belong to them.

    :param now: the time in Gregorian seconds
    """

    def __init__(self, journal: JournalRepository, now: Callable[[], int]) -> None:
        self._journal = journal
        self._now = now

    def begin(self, caller: str, key: str, fingerprint: str, request_id: str) -> KeptReply:
        """Take a key, or find what it led to.

        :param caller: whose key it is; other callers' keys are other keys
        :param fingerprint: of all that the request asks for
        :returns: with a reply when there is one to repeat; else the request is ours to do, under
            the request id it says
        :raises IdempotencyMismatch: the key came with another request
        :raises InProgress: somebody is at it
        """
        now = self._now()
        mine = KeptReply(
            reply_id(caller, key),
            fingerprint,
            request_id,
            now,
            now + LEASE,
            process.identity(),
            reply=None,
        )
        known = self._journal.find(mine.id)
        if known is None or now - known.created > KEPT:
            return self._take(replace(mine, revision=known.revision if known else None))
        if known.fingerprint != fingerprint:
            raise IdempotencyMismatch
        if known.reply is not None:
            return known
        if known.until > now and not process.is_dead(known.worker):
            raise InProgress
        return self._take(replace(known, until=now + LEASE, worker=process.identity()))

    def _take(self, kept: KeptReply) -> KeptReply:
        taken = self._journal.keep(kept)
        if taken is None:
            raise InProgress
        return taken

    def finish(self, kept: KeptReply, reply: Mapping[str, Any]) -> None:
        """Keep the reply. When that fails the next one does the work again, to the same end."""
        self._let_go(replace(kept, until=0, reply=reply))

    def abandon(self, kept: KeptReply) -> None:
        """Let the next one try: the request came to no end that could be repeated."""
        self._let_go(replace(kept, until=0))

    def _let_go(self, kept: KeptReply) -> None:
        # The request has come to its end, whatever becomes of the memory of it.
        try:
            self._journal.keep(kept)
        except KazooIPsError as error:
            log.warning("request %s: its reply is not kept: %s", kept.request_id, error)

    def sweep(self) -> int:
        """Forget what was kept long enough; how many."""
        return self._journal.sweep(self._now() - KEPT)
