"""Webhooks of an account and of the operator: created, changed, tested, replayed, deleted."""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from kazoo_ips.errors import (
    Conflict,
    TooManyRequests,
    ValidationFailed,
    WebhookLimitReached,
    WebhookNotFound,
)
from kazoo_ips.model import GREGORIAN_EPOCH, Attempt
from kazoo_ips.model.history import Author, HistoryEvent, State
from kazoo_ips.model.webhooks import (
    DeliveryAttempt,
    DeliveryProgress,
    Secret,
    SecretValue,
    Start,
    Webhook,
)
from kazoo_ips.observability import audit
from kazoo_ips.outbound.destinations import Destinations
from kazoo_ips.repositories.webhooks import WebhookRepository
from kazoo_ips.services.history import json_objects
from kazoo_ips.services.webhooks.delivery import Deliverer
from kazoo_ips.services.webhooks.shared_feed import EventFeed

LIMIT_OF_OPERATOR = 100
"""Maximum number of webhooks of the operator."""
_TRIES = 5
_TESTS = 2
"""Test deliveries of one process at once. Each may take a thread for ten seconds."""
_TEST_PAUSE = 10
_SECRET_BYTES = 32
TEST_EVENT = "test"
"""The kind of the event of a test delivery."""


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """A webhook, and how far its delivery is.

    :param progress: None if the sender has not begun
    """

    webhook: Webhook
    progress: DeliveryProgress | None


Change = Callable[[Webhook], Webhook]


class WebhookService:
    """The use cases of webhooks. An `account_id` of None is the operator.

    :param feed: the feed of events, from whose end a new webhook reads
    :param destinations: the addresses that deliveries may be sent to
    :param clock: returns the time in Unix seconds
    :param limit: maximum number of webhooks of an account. Requests at the same time may exceed it
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        webhooks: WebhookRepository,
        feed: EventFeed,
        deliverer: Deliverer,
        destinations: Destinations,
        *,
        clock: Callable[[], float],
        limit: int,
    ) -> None:
        self._webhooks = webhooks
        self._feed = feed
        self._deliverer = deliverer
        self._destinations = destinations
        self._clock = clock
        self._limit = limit
        self._tests = BoundedSemaphore(_TESTS)

    def list(self, account_id: str | None) -> Sequence[WebhookStatus]:
        """Return all webhooks, the oldest first."""
        found = self._webhooks.list(account_id)
        return [WebhookStatus(each, self._webhooks.progress(each.id)) for each in found]

    def fetch(self, account_id: str | None, webhook_id: str) -> WebhookStatus:
        """Return one webhook.

        :raises WebhookNotFound: there is none with this id
        """
        webhook = self._find(account_id, webhook_id)
        return WebhookStatus(webhook, self._webhooks.progress(webhook.id))

    def create(
        self,
        account_id: str | None,
        content: Mapping[str, Any],
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
        **_: Any,
    ) -> Webhook:
        """Create a webhook. It gets the events from now on.

        :param content: fields of `Webhook` that clients choose
        :raises ValidationFailed: the destination is an address that is not permitted
        :raises WebhookLimitReached: there are too many
        """
        self._check(content)
        now = self._now()
        key = _key(attempt)
        webhook_id = hashlib.sha256(key.encode()).hexdigest()[:32] if key else uuid4().hex
        existing = self._webhooks.find(account_id, webhook_id) if key else None
        if existing:  # an earlier attempt of this request has created it
            return existing
        used = len(self._webhooks.list(account_id))
        limit = LIMIT_OF_OPERATOR if account_id is None else self._limit
        if used >= limit:
            raise WebhookLimitReached(limit, used)
        webhook = Webhook(
            id=webhook_id,
            account_id=account_id,
            secrets=(Secret(_new_secret()),),
            start=Start(uuid4().hex, self._end()),
            created=now,
            modified=now,
            attempt=key,
            **content,
        )
        if dry_run:
            return webhook
        written = self._webhooks.put(webhook)
        if written is None:
            raise Conflict
        audit.webhook_changed(audit.Change.WEBHOOK_CREATED, written)
        return written

    def change(
        self, account_id: str | None, webhook_id: str, change: Change, **write: Any
    ) -> WebhookStatus:
        """Change what a client chooses of a webhook.

        A webhook that the service has disabled, and that is enabled again, loses its
        `disable_reason`. A changed webhook is delivered at once, without waiting for the pause. If
        nothing is different, nothing is written.

        :param change: returns the changed webhook; it may raise ValidationFailed
        :raises WebhookNotFound: there is none with this id
        :raises ValidationFailed: the destination is an address that is not permitted
        :raises Conflict: other requests change it all the time
        """

        def checked(webhook: Webhook) -> Webhook:
            changed = change(webhook)
            if changed.uri != webhook.uri or (changed.enabled and not webhook.enabled):
                self._check({"uri": changed.uri})
            return replace(changed, disable_reason=None) if changed.enabled else changed

        webhook = self._update(
            audit.Change.WEBHOOK_CHANGED, account_id, webhook_id, checked, **write
        )
        return WebhookStatus(webhook, self._webhooks.progress(webhook.id))

    def enable_all(self, account_id: str | None, **write: Any) -> Sequence[WebhookStatus]:
        """Enable the webhooks that the service has disabled; return them."""
        key = _key(write.get("attempt"))
        disabled = [
            webhook
            for webhook in self._webhooks.list(account_id)
            if webhook.disable_reason or (key and webhook.attempt == key)
        ]
        return [
            self.change(account_id, each.id, lambda w: replace(w, enabled=True), **write)
            for each in disabled
        ]

    def rotate(self, account_id: str | None, webhook_id: str, **write: Any) -> Webhook:
        """Give a webhook a new secret. The previous one signs deliveries too, for a day.

        :raises WebhookNotFound: there is none with this id
        """
        now = self._now()
        return self._update(
            audit.Change.WEBHOOK_ROTATED,
            account_id,
            webhook_id,
            lambda webhook: webhook.with_new_secret(_new_secret(), now),
            **write,
        )

    def replay(
        self, account_id: str | None, webhook_id: str, since: int, **write: Any
    ) -> WebhookStatus:
        """Deliver the events since a time again. Events before it that wait are left out.

        :param since: Gregorian seconds; a time in the future means now
        :raises WebhookNotFound: there is none with this id
        """
        start = Start(uuid4().hex, "0", min(since, self._now()))
        webhook = self._update(
            audit.Change.WEBHOOK_REPLAYED,
            account_id,
            webhook_id,
            lambda webhook: replace(webhook, start=start),
            **write,
        )
        return WebhookStatus(webhook, self._webhooks.progress(webhook.id))

    def delete(
        self,
        account_id: str | None,
        webhook_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
        **_: Any,
    ) -> WebhookStatus:
        """Delete a webhook; return it as it was.

        :raises WebhookNotFound: there is none with this id
        :raises Conflict: other requests change it all the time
        """
        key = _key(attempt)
        for _try in range(_TRIES):
            webhook = self._webhooks.find(account_id, webhook_id)
            if webhook is None and key:
                deleted = self._webhooks.deleted_by(account_id, webhook_id, key)
                if deleted:
                    return WebhookStatus(deleted, None)
            if webhook is None:
                raise WebhookNotFound(webhook_id)
            if dry_run:
                return WebhookStatus(webhook, self._webhooks.progress(webhook.id))
            if self._webhooks.delete(replace(webhook, attempt=key)):
                audit.webhook_changed(audit.Change.WEBHOOK_DELETED, webhook)
                return WebhookStatus(webhook, None)
        raise Conflict

    def test(self, account_id: str | None, webhook_id: str) -> DeliveryAttempt:
        """Send an event of the kind `test` now, also if the webhook is disabled.

        :raises WebhookNotFound: there is none with this id
        :raises TooManyRequests: other test deliveries are running
        """
        webhook = self._find(account_id, webhook_id)
        if not self._tests.acquire(blocking=False):
            raise TooManyRequests(_TEST_PAUSE)
        try:
            event = sample(webhook, self._now())
            return self._deliverer.attempt(webhook, event.id, json_objects.of_event(event))
        finally:
            self._tests.release()

    def _update(  # noqa: PLR0913, PLR0917 - one for each part of a write
        self,
        what: audit.Change,
        account_id: str | None,
        webhook_id: str,
        change: Change,
        attempt: Attempt | None = None,
        dry_run: bool = False,
        **_: Any,
    ) -> Webhook:
        """Change a webhook by compare-and-swap. A change that changes nothing writes nothing."""
        key = _key(attempt)
        for _try in range(_TRIES):
            webhook = self._find(account_id, webhook_id)
            if key and webhook.attempt == key:  # an earlier attempt of this request has changed it
                return webhook
            wanted = change(webhook)
            if wanted == webhook:
                return webhook
            changed = replace(wanted, modified=self._now(), attempt=key)
            if dry_run:
                return changed
            written = self._webhooks.put(changed)
            if written:
                audit.webhook_changed(what, written)
                return written
        raise Conflict

    def _find(self, account_id: str | None, webhook_id: str) -> Webhook:
        webhook = self._webhooks.find(account_id, webhook_id)
        if webhook is None:
            raise WebhookNotFound(webhook_id)
        return webhook

    def _check(self, content: Mapping[str, Any]) -> None:
        """Refuse an address that is not permitted. A name is resolved at each delivery."""
        host = urlsplit(content["uri"]).hostname or ""
        try:
            ip_address(host)
        except ValueError:
            return
        if not self._destinations.permit(host):
            text = "the address of the host is not permitted"
            raise ValidationFailed({"uri": {"forbidden": {"message": text, "cause": host}}})

    def _end(self) -> str:
        """Return the end of the feed."""
        return self._feed.changed("now", 1)[0]

    def _now(self) -> int:
        return int(self._clock()) + GREGORIAN_EPOCH


def sample(webhook: Webhook, now: int) -> HistoryEvent:
    """Return the event of a test delivery, about an address of the documentation (RFC 5737).

    :param now: the time in Gregorian seconds
    """
    state = State("assigned", webhook.account_id, "test", "test")
    return HistoryEvent(
        id=f"test-{uuid4().hex}",
        address="192.0.2.1",
        event=TEST_EVENT,
        at=now,
        account_id=webhook.account_id,
        before=None,
        after=state,
        by=Author(),
        request_id=None,
    )


def _new_secret() -> SecretValue:
    text = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    return SecretValue(f"whsec_{text}")


def _key(attempt: Attempt | None) -> str | None:
    return attempt.key if attempt else None
