"""Webhooks: which events a receiver gets, the progress of its delivery, and the next attempt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from kazoo_ips.model.history import HistoryEvent, HistoryEventKind

PAUSES = (5, 300, 1800, 7200, 18_000, 36_000, 43_200)
"""Seconds from each failed attempt to the next one. The last pause is repeated until the delivery
succeeds. The others are those that Standard Webhooks recommends."""
MAX_PAUSE = PAUSES[-1]
ROTATION_SECONDS = 86_400
"""Seconds after a rotation for which the previous secret still signs."""
MAX_SECRETS = 3
"""Maximum number of secrets that sign one delivery."""
MAX_ATTEMPTS = 20
"""Number of the latest attempts that the progress of a webhook records."""
MAX_URI = 2048
MAX_CUSTOM_DATA = 16
MAX_CUSTOM_TEXT = 256
"""Maximum number of characters of a URI, of members of custom data, and of characters of the name
or value of such a member."""

ALL_HOOKS = "all"
_HOOK_PREFIX = "ips_"
_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]{0,251}[0-9A-Za-z.])?|[0-9A-Fa-f:.]+")
_URI = re.compile(r"[\x21-\x7e]+")


def hooks() -> tuple[str, ...]:
    """Return the values of `hook`: `all`, and one for each kind of event, such as
    `ips_assigned`.
    """
    return ALL_HOOKS, *(_hook(kind.value) for kind in HistoryEventKind)


def _hook(kind: str) -> str:
    return f"{_HOOK_PREFIX}{kind.replace('.', '_')}"


def uri_problem(uri: str) -> str | None:
    """Return why a URI cannot be the destination of a webhook, as a clause, or None.

    >>> uri_problem("https://example.com/hook?a=1")
    >>> uri_problem("https://user@example.com/")
    'has a user or a password'
    """
    if not _URI.fullmatch(uri):
        return "has characters that are not visible ASCII"
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return "is not a URI"
    if parts.scheme.lower() not in ("http", "https"):
        return "is neither http nor https"
    if "@" in parts.netloc:
        return "has a user or a password"
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        return "has no valid host and port"
    return "has a fragment" if "#" in uri else None


class SecretValue(str):
    """A secret that `repr` does not show, so that no log line or traceback has it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that signs deliveries.

    :param value: `whsec_` and the key in base64, as in Standard Webhooks
    :param until: the time in Gregorian seconds until which it signs; None for the newest secret
    """

    value: SecretValue
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The position in the feed at which the delivery starts, after a creation or a replay.

    :param id: a unique id of this start
    :param since: the position in the feed; `0` is the beginning of the feed
    :param not_before: events before this time, in Gregorian seconds, are not delivered
    """

    id: str
    since: str = "0"
    not_before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook, with the members of Kazoo's schema `webhooks` and further ones.

    :param account_id: the account that it belongs to; None for a webhook of the operator, which
        gets the events of the whole pool
    :param uri: where the events are sent
    :param hook: which events it gets: one of `hooks()`
    :param http_verb: the HTTP method of a delivery
    :param format: the format of its body
    :param retries: stored for Kazoo's clients, and not used: a delivery is repeated until it
        succeeds
    :param include_subaccounts: whether it also gets the events of the account's descendants
    :param custom_data: members that are added to the event, or replace members of it
    :param zones: the zones whose events it gets; empty for all
    :param events: the kinds of events that it gets; empty for all
    :param disable_reason: why the service has disabled it; None if it has not
    :param secrets: the newest first
    :param start: where the delivery starts
    :param created: in Gregorian seconds, as `modified`
    :param attempt: the key of the attempt that wrote this revision; None if the request had no
        Idempotency-Key
    """

    id: str
    account_id: str | None
    name: str
    uri: str
    hook: str
    http_verb: str = "post"
    format: str = "json"
    retries: int = 2
    enabled: bool = True
    include_subaccounts: bool = False
    custom_data: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    disable_reason: str | None = None
    secrets: tuple[Secret, ...] = ()
    start: Start = Start("")
    created: int = 0
    modified: int = 0
    attempt: str | None = None
    revision: str | None = None

    @property
    def scope(self) -> str:
        """Whose webhook it is, as a label of metrics: `operator` or `account`."""
        return "operator" if self.account_id is None else "account"

    def wants(self, event: HistoryEvent) -> bool:
        """Return whether the webhook gets an event, by its kind and zone.

        An event whose zone is not known counts for every zone, so that no event is missed. A
        retraction counts for every kind.
        """
        if event.event != HistoryEventKind.RETRACTED:
            if self.hook not in (ALL_HOOKS, _hook(event.event)):
                return False
            if self.events and event.event not in self.events:
                return False
        zones = event.zones
        return not self.zones or not zones or not {*zones}.isdisjoint(self.zones)

    def signing_secrets(self, now: int) -> list[SecretValue]:
        """Return the secrets that sign a delivery, the newest first.

        :param now: the time in Gregorian seconds
        """
        return [s.value for s in self.secrets if s.until is None or now < s.until]

    def with_new_secret(self, value: SecretValue, now: int) -> "Webhook":
        """Return the webhook after a rotation of its secret.

        The previous secret expires after `ROTATION_SECONDS`. An earlier one signs until its own
        end: if the reply to the previous rotation was lost, no receiver knows the previous secret.

        :param value: the new secret
        :param now: the time in Gregorian seconds
        """
        previous = [
            replace(secret, until=secret.until or now + ROTATION_SECONDS)
            for secret in self.secrets[: MAX_SECRETS - 1]
            if secret.until is None or now < secret.until
        ]
        return replace(self, secrets=(Secret(value), *previous))


class DeliveryResult(StrEnum):
    """The result of an attempt, as in Kazoo's schema `webhook_attempts`."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One attempt to deliver an event, with the members of Kazoo's `webhook_attempts`.

    :param timestamp: when it began, in Gregorian seconds
    :param response_code: the HTTP status of the response; None if there was no response
    :param response_body: the beginning of the body of a response that is not a success
    :param reason: why it failed, in a few words; None for a success
    :param client_error: the error of the sender; None if there was a response
    :param milliseconds: the duration of the attempt
    """

    event_id: str
    timestamp: int
    result: DeliveryResult
    response_code: int | None = None
    response_body: str | None = None
    reason: str | None = None
    client_error: str | None = None
    milliseconds: int = 0

    @property
    def is_gone(self) -> bool:
        """Whether the receiver says that it wants no more deliveries (410, Standard Webhooks)."""
        return self.response_code == 410


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryProgress:
    """How far the delivery of a webhook is. Only the sender writes it.

    All times are Gregorian seconds.

    :param account_id: the account of the webhook; None for a webhook of the operator
    :param start_id: the id of the `Start` that the delivery began with
    :param history: the id of the feed that `since` belongs to
    :param since: the position in the feed up to which all events are delivered
    :param not_before: events before this time are not delivered
    :param delivered: the ids of the events after `since` that are delivered
    :param seen: the revision of the webhook at the last attempt
    :param failures: the number of consecutive failed attempts of the current event
    :param next_attempt: the earliest time of the next attempt
    :param waiting_since: the time of the oldest event that waits after a failed attempt; None if
        no event waits
    :param last_event_at: the time of the last delivered event
    :param last_success: when the last delivery succeeded; None if none has
    :param attempts: the latest attempts, the latest one first
    :param writes: the number of writes of the document. Of conflicting revisions, the one with the
        most writes counts
    """

    webhook_id: str
    account_id: str | None
    start_id: str
    history: str
    since: str = "0"
    not_before: int = 0
    delivered: tuple[str, ...] = ()
    seen: str | None = None
    failures: int = 0
    next_attempt: int = 0
    waiting_since: int | None = None
    last_event_at: int = 0
    last_success: int | None = None
    attempts: tuple[DeliveryAttempt, ...] = ()
    writes: int = 0
    revision: str | None = None

    def after(self, attempt: DeliveryAttempt, event: HistoryEvent, now: int) -> "DeliveryProgress":
        """Return the progress after a successful or failed attempt to deliver an event.

        :param now: the time in Gregorian seconds
        """
        attempts = (attempt, *self.attempts)[:MAX_ATTEMPTS]
        if attempt.result is DeliveryResult.FAILURE:
            pause = PAUSES[min(self.failures, len(PAUSES) - 1)]
            return replace(
                self,
                attempts=attempts,
                failures=self.failures + 1,
                next_attempt=now + pause,
                waiting_since=event.at,
            )
        return replace(
            self,
            attempts=attempts,
            delivered=(*self.delivered, event.id),
            failures=0,
            next_attempt=0,
            waiting_since=None,
            last_event_at=event.at,
            last_success=now,
        )

    def at(self, since: str) -> "DeliveryProgress":
        """Return the progress after all events up to a position in the feed are delivered."""
        return replace(self, since=since, delivered=())

    def retried_at_once(self, webhook: Webhook) -> "DeliveryProgress":
        """Return the progress with its next attempt at once, because the webhook was changed."""
        return replace(self, seen=webhook.revision, failures=0, next_attempt=0)
