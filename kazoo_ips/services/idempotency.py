"""Idempotency: a request with an Idempotency-Key that is sent several times is executed once.

The attempt that first writes the key's record executes the request. Its reply is kept for a day
and repeated to every later request with that key. If an attempt ends without a final outcome, the
next attempt takes over under the same request id. By that id it recognises the earlier attempt's
writes.
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
from kazoo_ips.model import KEY_SECONDS
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.idempotency_records import (
    IdempotencyRecord,
    IdempotencyRecords,
    record_id,
)
from kazoo_ips.services.accounts.rate_limits import RateLimits
from kazoo_ips.services.assigning.recovery import LEASE
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)


class IdempotencyService:
    """Claims keys for attempts, and stores the replies.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        records: IdempotencyRecords,
        transactions: TransactionService,
        retries: RetryQueue,
        limits: RateLimits,
        now: Callable[[], int],
    ) -> None:
        self._records = records
        self._transactions = transactions
        self._retries = retries
        self._limits = limits
        self._now = now

    def begin(
        self, account_id: str, user_id: str | None, key: str, fingerprint: str, request_id: str
    ) -> IdempotencyRecord:
        """Claim a key for an attempt, or return its record with the reply to repeat.

        :param account_id: the account of the caller that the key belongs to
        :param user_id: the user of that caller, if it has one; each caller has its own keys
        :param fingerprint: a digest of method, path, query and body of the request
        :returns: a record with the reply to repeat; or a record without a reply, and then this
            attempt has to execute the request, under the request id of the record
        :raises TooManyKeys: the account has used too many new keys
        :raises IdempotencyMismatch: the key was used for another request
        :raises InProgress: another attempt is running
        :raises DatastoreUnreachable: it is unknown whether the key is claimed
        """
        now, worker = self._now(), liveness.identity()
        new = IdempotencyRecord(
            record_id(f"{account_id}/{user_id or ''}", key),
            fingerprint,
            request_id,
            now,
            attempt=1,
            until=now + LEASE,
            worker=worker,
        )
        existing = self._records.find(new.id)
        if existing is None or now - existing.created > KEY_SECONDS:
            self._limits.take_key(account_id)
            return self._claim(replace(new, revision=existing.revision if existing else None))
        if existing.fingerprint != fingerprint:
            raise IdempotencyMismatch
        if existing.reply is not None:
            return existing
        if existing.until > now and not liveness.is_dead(existing.worker):
            raise InProgress
        following = existing.attempt + 1
        return self._claim(replace(existing, attempt=following, until=now + LEASE, worker=worker))

    def _claim(self, record: IdempotencyRecord) -> IdempotencyRecord:
        try:
            claimed = self._records.put(record)
        except KazooIPsError:
            # The record may have been written. Then it would block later attempts.
            self._retries.repeat(_attempt(record), lambda: self._cancel_claim(record))
            raise
        if claimed is None:
            raise InProgress
        return claimed

    def _cancel_claim(self, record: IdempotencyRecord) -> None:
        """End an attempt whose claim had an unknown outcome.

        :raises DatastoreUnreachable: it is unknown whether the attempt is ended
        """
        dropped = self._records.drop_if_taken(record)
        if dropped is None and self._now() <= record.until:
            raise DatastoreUnreachable(f"key {record.id}: the record may still appear")
        if dropped is not False:
            return
        # If the record exists, the new write ends its attempt. If not, the new write creates the
        # record, so that CouchDB refuses the claim if it arrives later.
        revision = self._records.revision_of(record)
        self._records.put(replace(record, until=0, revision=revision or record.revision))
        if self._records.revision_of(record):  # the read above has missed the record
            raise DatastoreUnreachable(f"key {record.id}: not known whether the attempt is ended")

    def finish(self, record: IdempotencyRecord, reply: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the reply now, or as soon as the database allows it.

        :returns: the reply for the client: this reply; or the reply of another attempt, which has
            considered this attempt dead and has finished
        :raises InProgress: another attempt has taken over and is running; its reply will be stored
        :raises DatastoreUnreachable: the reply is a refusal, and it is unknown whether it is
            stored. A later attempt may have another result then. After a success, a later attempt
            finds the same result
        """
        owned = self._end(replace(record, until=0, reply=reply))
        if owned is None and reply["status"] >= 400:
            raise DatastoreUnreachable(f"key {record.id}: not known whether the reply is stored")
        if owned is not False:
            return reply
        current = self._records.find(record.id)
        if current is None or current.attempt == record.attempt:
            return reply
        if current.reply is None:
            raise InProgress
        return current.reply

    def abandon(self, record: IdempotencyRecord) -> None:
        """End an attempt without a reply to repeat, so that the next attempt can run."""
        self._end(replace(record, until=0))

    def _end(self, record: IdempotencyRecord) -> bool | None:
        """End an attempt. Return whether the key still belongs to it; None if that is unknown."""
        try:
            return self._put(record)
        except KazooIPsError as error:
            log.warning("request %s: its key is not ended yet: %s", record.request_id, error)
            self._retries.repeat(_attempt(record), lambda: self._put(record))
            return None

    def _put(self, record: IdempotencyRecord) -> bool:
        if self._records.put(record) is None:
            return False
        if record.reply is not None:
            self._transactions.forget(record.current.key)
        return True

    def sweep(self) -> int:
        """Delete the records that are older than `KEY_SECONDS`; return their number."""
        return self._records.sweep(self._now() - KEY_SECONDS)


def _attempt(record: IdempotencyRecord) -> str:
    """Return the name of an attempt in the retry queue. Several attempts of one key may wait.

    A first attempt whose claim has an unknown outcome may be followed by another first attempt of
    the same request, when a read does not find the claim.
    """
    use = f"request {record.request_id} of {record.created}"
    return f"key {record.id}, {use}, attempt {record.attempt}"
