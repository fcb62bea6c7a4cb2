"""A request that comes twice is done once, when it names itself by an Idempotency-Key.

The first to write the key's record does the work; its reply is kept for a day and repeated to
whoever asks again. When an attempt comes to no end, the next takes its place under the same
request id, so that what was written already is known for its own.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kazoo_ips.errors import (
    DatastoreUnreachable,
    IdempotencyMismatch,
    InProgress,
    KazooIPsError,
)
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.idempotency_records import (
    IdempotencyRecord,
    IdempotencyRecords,
    record_id,
)
from kazoo_ips.services.assigning.recovery import KEPT, LEASE
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)


class IdempotencyService:
    """Keys, and the replies that belong to them.

    :param now: the time in Gregorian seconds
    """

    def __init__(
        self,
        records: IdempotencyRecords,
        transactions: TransactionService,
        retries: RetryQueue,
        now: Callable[[], int],
    ) -> None:
        self._records = records
        self._transactions = transactions
        self._retries = retries
        self._now = now

    def begin(self, caller: str, key: str, fingerprint: str, request_id: str) -> IdempotencyRecord:
        """Take a key, or find what it led to.

        :param caller: whose key it is; other callers' keys are other keys
        :param fingerprint: of all that the request asks for
        :returns: with a reply when there is one to repeat; else the request is ours to do, under
            the request id it says
        :raises IdempotencyMismatch: the key came with another request
        :raises InProgress: somebody is at it
        :raises DatastoreUnreachable: it is not certain whether the key is ours
        """
        now = self._now()
        mine = IdempotencyRecord(
            record_id(caller, key),
            fingerprint,
            request_id,
            now,
            attempt=1,
            until=now + LEASE,
            worker=liveness.identity(),
        )
        known = self._records.find(mine.id)
        if known is None or now - known.created > KEPT:
            return self._take(replace(mine, revision=known.revision if known else None))
        if known.fingerprint != fingerprint:
            raise IdempotencyMismatch
        if known.reply is not None:
            return known
        if known.until > now and not liveness.is_dead(known.worker):
            raise InProgress
        return self._take(
            replace(
                known,
                attempt=known.attempt + 1,
                until=now + LEASE,
                worker=liveness.identity(),
            )
        )

    def _take(self, record: IdempotencyRecord) -> IdempotencyRecord:
        try:
            taken = self._records.put(record)
        except KazooIPsError:
            # It may be written after all, and says then that somebody is at it.
            self._retries.repeat(_attempt(record), lambda: self._leave(record))
            raise
        if taken is None:
            raise InProgress
        return taken

    def _leave(self, record: IdempotencyRecord) -> None:
        """End an attempt of which it was never certain that it had begun.

        :raises DatastoreUnreachable: it is not certain that it has ended
        """
        dropped = self._records.yield_to_others(record)
        if dropped is None and self._now() <= record.until:
            raise DatastoreUnreachable(f"key {record.id}: it may yet show")
        if dropped is not False:
            return
        # On what is there of it; where nothing is, in its place, so that it cannot arrive.
        there = self._records.begun(record)
        left = self._records.put(replace(record, until=0, revision=there or record.revision))
        if left is None and self._records.begun(record):  # what was there did not show
            raise DatastoreUnreachable(f"key {record.id}: under way still")

    def finish(self, record: IdempotencyRecord, reply: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the reply, now or as soon as the database allows.

        :returns: what the caller is told: this reply, or that of another attempt, which took this
            one for dead and has come to its end
        :raises InProgress: another attempt is at work by now, and has the last word
        """
        if self._end(replace(record, until=0, reply=reply)):
            return reply
        now = self._records.find(record.id)
        if now is None or now.attempt == record.attempt:
            return reply
        if now.reply is None:
            raise InProgress
        return now.reply

    def abandon(self, record: IdempotencyRecord) -> None:
        """Let the next attempt try: this one came to no end that could be repeated."""
        self._end(replace(record, until=0))

    def _end(self, record: IdempotencyRecord) -> bool:
        """Whether the key is still this attempt's, as far as can be told."""
        try:
            return self._put(record)
        except KazooIPsError as error:
            log.warning("request %s: its key waits: %s", record.request_id, error)
            self._retries.repeat(_attempt(record), lambda: self._put(record))
            return True

    def _put(self, record: IdempotencyRecord) -> bool:
        if self._records.put(record) is None:
            return False
        if record.reply is not None:
            self._transactions.forget(record.current.key)
        return True

    def sweep(self) -> int:
        """Forget what was kept long enough; how many."""
        return self._records.sweep(self._now() - KEPT)


def _attempt(record: IdempotencyRecord) -> str:
    """Names an attempt. Of one key there may be several that have to be ended."""
    return f"key {record.id}, request {record.request_id}, attempt {record.attempt}"
