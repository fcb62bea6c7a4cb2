"""The sender of all webhooks: one process of all instances, with a fixed number of threads.

Each webhook has its own progress, and at most one thread at a time. Webhooks take turns, the one
that has waited longest first. A webhook whose receiver fails or is slow takes its turns in a lane
of its own, so it does not delay the others.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

from kazoo_ips.background.lanes import Lane
from kazoo_ips.background.lease import Lease
from kazoo_ips.background.rounds import run_round
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model.webhooks import DeliveryProgress, Webhook
from kazoo_ips.observability import request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.webhooks import WebhookRepository
from kazoo_ips.services.webhooks.delivery import Deliverer, DeliveryState, TakenOver
from kazoo_ips.services.webhooks.shared_feed import SharedFeed

log = logging.getLogger(__name__)

ROUND = 0.25
"""Seconds between two rounds of the process that has the lease."""
IDLE_ROUND = 2.0
"""Seconds between two rounds of the other processes."""
LOOK = 1.0
"""Seconds between two reads of the feed."""
RELOAD = 5.0
"""Seconds between two reads of all webhooks."""
THREADS, SLOW_THREADS = 8, 4
"""Threads for receivers that respond, and for receivers that failed or were slow the last time."""
_SLOW = 2000
"""Milliseconds of a delivery after which a receiver is slow."""
_TURN, _TURN_SECONDS = 20, 2.0
"""Maximum number of deliveries in a turn, and seconds after which none begins. In the slow lane a
turn is one delivery."""
_PAUSE_AFTER_ERROR = 5.0
"""Seconds until a webhook has its next turn after CouchDB failed."""


class WebhookSender:
    """Decides which webhook has a turn next.

    :param lease: the lease of the sender
    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        lease: Lease,
        webhooks: WebhookRepository,
        feed: SharedFeed,
        deliverer: Deliverer,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._lease = lease
        self._webhooks = webhooks
        self._feed = feed
        self._deliverer = deliverer
        self._now = now
        self._metrics = metrics
        self._fast = Lane("webhooks", THREADS, THREADS // 2)
        self._slow = Lane("webhooks-slow", SLOW_THREADS, SLOW_THREADS // 2)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Forget everything that is in memory, because another process may have changed it."""
        with self._lock:
            self._generation = uuid4().hex
            self._states: dict[str, DeliveryState] = {}
            self._running: set[str] = set()
            self._last_turn: dict[str, float] = {}
            self._not_before: dict[str, float] = {}
        self._next_reload = self._next_look = 0.0
        self._feed.forget()

    def step(self) -> bool:
        """Start the turns that are due, and return whether this process has the lease.

        :raises DatastoreError: CouchDB failed
        """
        if not self._lease.hold():
            if self._states:
                self._forget()
            self._metrics.show_webhooks({}, {}, {})
            return False
        self._metrics.webhook_rounds.inc()
        if time.monotonic() >= self._next_reload:
            self._reload()
            self._next_reload = time.monotonic() + RELOAD
        if time.monotonic() >= self._next_look:
            self._feed.look()
            self._next_look = time.monotonic() + LOOK
        for webhook_id in self._due():
            self._start_turn(webhook_id)
        self._show()
        return True

    def _reload(self) -> None:
        """Read all webhooks, and the progress of those that are not in memory."""
        webhooks = {each.id: each for each in self._webhooks.all()}
        with self._lock:
            known = set(self._states) | self._running
        stored = {}
        if not known and webhooks:
            stored = {each.webhook_id: each for each in self._webhooks.all_progress()}
            for webhook_id in stored.keys() - webhooks.keys():
                self._remove(stored[webhook_id])
        for webhook in webhooks.values():
            if webhook.id not in known and webhook.enabled:
                progress = stored.get(webhook.id) or self._webhooks.progress(webhook.id)
                state = DeliveryState(
                    webhook=webhook, progress=self._deliverer.resume(webhook, progress)
                )
                with self._lock:
                    self._states[webhook.id] = state
        self._update(webhooks)

    def _update(self, webhooks: dict[str, Webhook]) -> None:
        """Apply what clients have changed. A webhook that has a turn now is updated later."""
        with self._lock:
            deleted = [w for w in self._states.values() if w.webhook.id not in webhooks]
            deleted = [w for w in deleted if w.webhook.id not in self._running]
            for state in deleted:
                del self._states[state.webhook.id]
            for webhook_id in self._states.keys() - self._running:
                state, webhook = self._states[webhook_id], webhooks[webhook_id]
                if webhook.revision != state.webhook.revision:
                    progress = self._deliverer.resume(webhook, state.progress)
                    self._states[webhook_id] = replace(
                        state, webhook=webhook, progress=progress, idle=False, oldest=None
                    )
        for state in deleted:
            self._remove(state.progress)

    def _remove(self, progress: DeliveryProgress) -> None:
        """Delete the progress of a deleted webhook. A list may lag, so the webhook is read."""
        if progress.revision and not self._webhooks.find(progress.account_id, progress.webhook_id):
            self._webhooks.remove_progress(progress)

    def _due(self) -> list[str]:
        """Return the webhooks that may have a turn, those first that have waited longest."""
        now, time_ = self._now(), time.monotonic()
        with self._lock:
            due = [
                webhook_id
                for webhook_id, state in self._states.items()
                if webhook_id not in self._running
                and state.webhook.enabled
                and state.progress.next_attempt <= now
                and self._not_before.get(webhook_id, 0) <= time_
                and not (state.idle and self._feed.is_end(state.progress.since))
            ]
            return sorted(due, key=lambda webhook_id: self._last_turn.get(webhook_id, 0))

    def _start_turn(self, webhook_id: str) -> None:
        with self._lock:
            state, generation = self._states[webhook_id], self._generation
            self._running.add(webhook_id)
        slow = state.progress.failures > 0 or state.slow > _SLOW
        lane = self._slow if slow else self._fast
        limit = 1 if slow else _TURN

        def turn() -> None:
            self._turn(state, limit, generation)

        if not lane.offer(state.webhook.account_id or "", turn):
            with self._lock:
                self._running.discard(webhook_id)

    def _turn(self, state: DeliveryState, limit: int, generation: str) -> None:
        """Deliver events of one webhook, in a thread of a lane."""
        webhook_id = state.webhook.id
        request_context.begin(f"webhook-{uuid4().hex[:16]}", by="background")
        after: DeliveryState | None = None
        try:
            after = self._deliverer.turn(state, limit=limit, seconds=_TURN_SECONDS)
        except TakenOver:
            log.info("webhook %s: its progress was written by another process", webhook_id)
        except KazooIPsError as error:
            log.warning("webhook %s: %s", webhook_id, error)
        except Exception:
            self._metrics.background_failures.inc()
            log.exception("webhook %s: unexpected error", webhook_id)
        with self._lock:
            if generation != self._generation:
                return
            self._running.discard(webhook_id)
            self._last_turn[webhook_id] = time.monotonic()
            if after is not None:
                self._states[webhook_id] = after
                return
            # The progress is read again before the next turn, which is not at once.
            self._states.pop(webhook_id, None)
            self._not_before[webhook_id] = time.monotonic() + _PAUSE_AFTER_ERROR

    def _show(self) -> None:
        """Set the gauges: the oldest event that waits, and the webhooks that fail, by scope."""
        now = self._now()
        lag: dict[str, int] = {}
        count: dict[str, int] = {}
        failing: dict[str, int] = {}
        with self._lock:
            states = list(self._states.values())
        for state in states:
            scope = state.webhook.scope
            if not state.webhook.enabled:
                continue
            count[scope] = count.get(scope, 0) + 1
            if state.oldest is not None:
                lag[scope] = max(lag.get(scope, 0), now - state.oldest)
            if state.progress.failures:
                failing[scope] = failing.get(scope, 0) + 1
        self._metrics.show_webhooks(lag, count, failing)

    def start(self) -> None:
        """Start the thread that begins the turns. It runs as long as the process."""
        threading.Thread(target=self._run, name="webhook-sender", daemon=True).start()

    def _run(self) -> None:
        holds = False

        def step() -> None:
            nonlocal holds
            holds = self.step()

        while True:
            time.sleep(ROUND if holds else IDLE_ROUND)
            if not run_round("webhook round", step, self._metrics.background_failures.inc):
                time.sleep(IDLE_ROUND)
