"""A request that comes twice is done once, when it names itself by an Idempotency-Key.

The first to write the key's record does the work; its reply is kept for a day and repeated to
whoever asks again. When an attempt comes to no end, the next takes its place under the same
request id, so that what was written already is known for its own.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kazoo_ips import process
from kazoo_ips.errors import IdempotencyMismatch, InProgress, KazooIPsError
from kazoo_ips.repositories.idempotency_records import (
    IdempotencyRecord,
    IdempotencyRecords,
    record_id,
)
from kazoo_ips.services.recovery import KEPT, LEASE
from kazoo_ips.services.retries import RetryQueue
from kazoo_ips.services.transactions import TransactionService

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
            worker=process.identity(),
        )
        known = self._records.find(mine.id)
        if known is None or now - known.created > KEPT:
            return self._take(replace(mine, revision=known.revision if known else None))
        if known.fingerprint != fingerprint:
            raise IdempotencyMismatch
        if known.reply is not None:
            return known
        if known.until > now and not process.is_dead(known.worker):
            raise InProgress
        return self._take(
            replace(
                known,
                attempt=known.attempt + 1,
                until=now + LEASE,
                worker=process.identity(),
            )
        )

    def _take(self, record: IdempotencyRecord) -> IdempotencyRecord:
        try:
            taken = self._records.put(record)
        except KazooIPsError:
            # It may be written after all, and says then that somebody is at it.
            self._retries.repeat(f"key {record.id}", lambda: self._leave(record))
            raise
        if taken is None:
            raise InProgress
        return taken

    def _leave(self, record: IdempotencyRecord) -> None:
        """End an attempt of which it was never certain that it had begun."""
        ended = replace(record, until=0)
        if self._records.put(ended):
            return  # it had not, and cannot any more
        known = self._records.find(record.id)
        begun = (record.worker, record.attempt, record.until)
        if known and known.reply is None and begun == (known.worker, known.attempt, known.until):
            self._records.put(replace(ended, revision=known.revision))

    def finish(self, record: IdempotencyRecord, reply: Mapping[str, Any]) -> None:
        """Keep the reply, now or as soon as the database allows."""
        self._end(replace(record, until=0, reply=reply))

    def abandon(self, record: IdempotencyRecord) -> None:
        """Let the next attempt try: this one came to no end that could be repeated."""
        self._end(replace(record, until=0))

    def _end(self, record: IdempotencyRecord) -> None:
        try:
            self._put(record)
        except KazooIPsError as error:
            log.warning("request %s: its key waits: %s", record.request_id, error)
            self._retries.repeat(f"key {record.id}", lambda: self._put(record))

    def _put(self, record: IdempotencyRecord) -> None:
        # When another attempt has begun meanwhile, the key is that one's, and it asks for ours.
        if self._records.put(record) and record.reply is not None:
            self._transactions.forget(record.current.key)

    def sweep(self) -> int:
        """Forget what was kept long enough; how many."""
        return self._records.sweep(self._now() - KEPT)
