"""The delivery of the events of one webhook: one after the other, each until it succeeds.

The progress is written by compare-and-swap after each delivery and before the next one. So a
sender that is killed between a delivery and this write repeats one delivery, with the same id, and
no event is lost. If two senders run, each event is still delivered for the first time in the order
of the feed.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.errors import AccountNotFound, SinceGone, ValidationFailed
from kazoo_ips.model import GREGORIAN_EPOCH, Account
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.webhooks import (
    DeliveryAttempt,
    DeliveryProgress,
    DeliveryResult,
    Webhook,
)
from kazoo_ips.observability import audit
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.outbound.http_sender import HTTPResult, HTTPSender
from kazoo_ips.repositories.webhooks import WebhookRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.history import json_objects
from kazoo_ips.services.webhooks import signed_requests
from kazoo_ips.services.webhooks.shared_feed import Segment, SharedFeed

log = logging.getLogger(__name__)

GONE = "the receiver has replied 410 Gone"
_BODY_SHOWN = 256
"""Characters of a response's body that an attempt keeps."""
_SAVE_SECONDS = 300
"""Seconds after which the position is written although no event was delivered. After a restart,
the sender reads the events after the written position again."""


_OVERLAP = 86_400
"""Seconds of events that are delivered again if the position in the feed is lost."""


class TakenOver(Exception):
    """Another sender has written the progress of the webhook."""


class Deliverer:
    """Sends events to receivers, and keeps the progress.

    :param clock: returns the time in Unix seconds
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        webhooks: WebhookRepository,
        accounts: AccountService,
        feed: SharedFeed,
        sender: HTTPSender,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        user_agent: str = "",
    ) -> None:
        self._webhooks = webhooks
        self._accounts = accounts
        self._feed = feed
        self._sender = sender
        self._clock = clock
        self._metrics = metrics
        self._user_agent = user_agent

    def attempt(
        self, webhook: Webhook, event_id: str, content: Mapping[str, Any]
    ) -> DeliveryAttempt:
        """Send an event once, and return the attempt with its result.

        :param content: the event as the API shows it
        """
        now = self._clock()
        request = signed_requests.request(webhook, event_id, content, now, self._user_agent)
        return _attempt(event_id, int(now) + GREGORIAN_EPOCH, self._sender.send(request))

    def resume(self, webhook: Webhook, stored: DeliveryProgress | None) -> DeliveryProgress:
        """Return the progress from which the delivery continues: the stored one, or a new one.

        A new webhook and a replay get a new one. If the feed was created again, the stored
        position is not valid. Then the progress starts at the beginning of the feed, and leaves
        out the events before the last delivered one.
        """
        history = self._feed.history()
        if stored is None or stored.start_id != webhook.start.id:
            start = webhook.start
            return DeliveryProgress(
                webhook_id=webhook.id,
                account_id=webhook.account_id,
                start_id=start.id,
                history=history,
                since=start.since,
                not_before=start.not_before,
                seen=webhook.revision,
                attempts=stored.attempts if stored else (),
                last_success=stored.last_success if stored else None,
                writes=stored.writes if stored else 0,
                revision=stored.revision if stored else None,
            )
        if stored.history != history:
            log.warning("webhook %s: the history was created again", webhook.id)
            stored = _restarted(stored, stored.last_event_at or webhook.created, history)
        return stored if stored.seen == webhook.revision else stored.retried_at_once(webhook)

    def turn(self, state: "DeliveryState", *, limit: int, seconds: float) -> "DeliveryState":
        """Deliver the next events, until one fails, nothing follows, or a limit is reached.

        :param limit: maximum number of deliveries
        :param seconds: no delivery begins after this time
        :raises TakenOver: another sender has written the progress
        :raises DatastoreError: CouchDB failed; what is stored is the progress to go on with
        """
        end = time.monotonic() + seconds
        sent = 0
        while True:
            segment, state = self._segment(state)
            for event in segment.events:
                content = self._content(state, event)
                if content is None:
                    continue
                if sent >= limit or time.monotonic() >= end:
                    return replace(state, oldest=event.at, idle=False)
                state = self._deliver(state, event, content)
                if state.progress.failures or not state.webhook.enabled:
                    return state
                sent += 1
            state = self._advance(state, segment)
            if not segment.events and not segment.more:
                return replace(self._caught_up(state), oldest=None, idle=True)
            if time.monotonic() >= end:
                return replace(state, idle=False)

    def _segment(self, state: "DeliveryState") -> tuple[Segment, "DeliveryState"]:
        progress = state.progress
        try:
            return self._feed.read(progress.since), state
        except (SinceGone, ValidationFailed) as error:
            # Years are deleted after the time that the operator has set, or the database of a year
            # was created again. The events that are left are delivered.
            log.warning("webhook %s: the history starts later: %r", state.webhook.id, error)
            self._feed.forget()
            progress = _restarted(progress, progress.last_event_at, progress.history)
            return self._feed.read(progress.since), replace(state, progress=progress)

    def _content(self, state: "DeliveryState", event: HistoryEvent) -> dict[str, Any] | None:
        """Return the event as the receiver gets it, or None if the event is not for it."""
        webhook, progress = state.webhook, state.progress
        if event.id in progress.delivered or event.at < progress.not_before:
            return None
        if not webhook.wants(event):
            return None
        seen: HistoryEvent | None = event
        if webhook.account_id is not None:
            seen = event.seen_by(lambda account_id: self._sees(webhook, account_id))
        return json_objects.of_event(seen) if seen else None

    def _sees(self, webhook: Webhook, account_id: str) -> bool:
        """Return whether the receiver may see an account: its own, and those below it."""
        assert webhook.account_id is not None
        if account_id == webhook.account_id:
            return True
        account = self._account(account_id) if webhook.include_subaccounts else None
        return account is not None and account.is_within(webhook.account_id)

    def _account(self, account_id: str) -> Account | None:
        try:
            return self._accounts.fetch(account_id)
        except AccountNotFound:
            return None

    def _deliver(
        self, state: "DeliveryState", event: HistoryEvent, content: Mapping[str, Any]
    ) -> "DeliveryState":
        """Send an event once, and write the progress."""
        attempt = self.attempt(state.webhook, event.id, content)
        self._metrics.webhook_deliveries.labels(state.webhook.scope, attempt.result.value).inc()
        progress = state.progress.after(attempt, event, self._now())
        webhook = self._disable(state.webhook) if attempt.is_gone else state.webhook
        state = DeliveryState(
            webhook=webhook,
            progress=self._store(progress),
            saved=self._now(),
            slow=attempt.milliseconds,
            oldest=progress.waiting_since,
            idle=False,
        )
        if attempt.result is DeliveryResult.FAILURE:
            log.info("webhook %s: %s", webhook.id, attempt.reason)
        return state

    def _disable(self, webhook: Webhook) -> Webhook:
        disabled = replace(webhook, enabled=False, disable_reason=GONE, modified=self._now())
        written = self._webhooks.put(disabled)
        if written is None:  # a client has changed it, perhaps its URI: deliveries go on
            return webhook
        audit.webhook_changed(audit.Change.WEBHOOK_DISABLED, written)
        return written

    def _advance(self, state: "DeliveryState", segment: Segment) -> "DeliveryState":
        if segment.end == state.progress.since:
            return state
        state = replace(state, progress=state.progress.at(segment.end))
        if self._now() - state.saved < _SAVE_SECONDS:
            return state
        return replace(state, progress=self._store(state.progress), saved=self._now())

    def _caught_up(self, state: "DeliveryState") -> "DeliveryState":
        """Return the state without a limit of time, which is only for events of the past."""
        if not state.progress.not_before:
            return state
        progress = self._store(replace(state.progress, not_before=0))
        return replace(state, progress=progress, saved=self._now())

    def _store(self, progress: DeliveryProgress) -> DeliveryProgress:
        written = self._webhooks.put_progress(progress)
        if written is None:
            raise TakenOver
        return written

    def _now(self) -> int:
        return int(self._clock()) + GREGORIAN_EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryState:
    """A webhook and its progress, as the sender has them in memory.

    :param saved: when the progress was written, in Gregorian seconds
    :param slow: milliseconds that the last attempt took
    :param oldest: the time of the oldest event that waits, in Gregorian seconds; None if none does
    :param idle: whether nothing followed when the feed was read last
    """

    webhook: Webhook
    progress: DeliveryProgress
    saved: int = 0
    slow: int = 0
    oldest: int | None = None
    idle: bool = False


def _restarted(progress: DeliveryProgress, last: int, history: str) -> DeliveryProgress:
    """Return the progress at the beginning of the feed, without what was delivered long ago.

    :param last: the time of the last delivered event, in Gregorian seconds. Earlier events may
        have reached the feed after it, so those of a day are delivered again
    """
    not_before = max(progress.not_before, last - _OVERLAP)
    return replace(progress, since="0", not_before=not_before, delivered=(), history=history)


def _attempt(event_id: str, timestamp: int, result: HTTPResult) -> DeliveryAttempt:
    milliseconds = int(result.seconds * 1000)
    if result.status is not None and 200 <= result.status < 300:
        return DeliveryAttempt(
            event_id, timestamp, DeliveryResult.SUCCESS, result.status, milliseconds=milliseconds
        )
    reason = f"response {result.status}" if result.status else result.error
    body = result.body.decode(errors="replace")[:_BODY_SHOWN]
    return DeliveryAttempt(
        event_id,
        timestamp,
        DeliveryResult.FAILURE,
        result.status,
        body or None,
        reason,
        result.error,
        milliseconds,
    )
