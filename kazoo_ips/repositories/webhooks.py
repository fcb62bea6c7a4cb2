"""Webhooks, and how far the delivery of each is, in the service's own database.

A webhook has two documents. Requests of clients write the first, the sender writes the second. So
neither waits for the other, and a change by a client cannot move the checkpoint.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model.webhooks import (
    DeliveryAttempt,
    DeliveryProgress,
    DeliveryResult,
    Secret,
    SecretValue,
    Start,
    Webhook,
)
from kazoo_ips.repositories.records import Records

_WEBHOOK = "webhook-"
_PROGRESS = "delivery-"
_OPERATOR = "operator"
_OWN = {"id", "account_id", "secrets", "start", "revision"}
"""Fields of a webhook that a document has in another form."""
_PLAIN = tuple(field.name for field in fields(Webhook) if field.name not in _OWN)
_TUPLES = ("zones", "events")
_OWN_OF_PROGRESS = {"webhook_id", "attempts", "revision"}
_PLAIN_OF_PROGRESS = tuple(
    field.name for field in fields(DeliveryProgress) if field.name not in _OWN_OF_PROGRESS
)


class WebhookRepository:
    """Reads and writes webhooks, and their progress."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, account_id: str | None, webhook_id: str) -> Webhook | None:
        """Return a webhook of an account, or of the operator if that is None; None if missing."""
        document = self._records.find(_document_id(account_id, webhook_id), _rank)
        return _webhook(document) if document else None

    def list(self, account_id: str | None) -> list[Webhook]:
        """Return the webhooks of an account or of the operator, the oldest first.

        On a cluster the list may lag.
        """
        found = map(_webhook, self._records.range(f"{_WEBHOOK}{account_id or _OPERATOR}-"))
        return sorted(found, key=lambda webhook: (webhook.created, webhook.id))

    def all(self) -> Iterator[Webhook]:
        """Return the webhooks of all accounts and of the operator. On a cluster they may lag."""
        return map(_webhook, self._records.range(_WEBHOOK))

    def put(self, webhook: Webhook) -> Webhook | None:
        """Write a webhook at the revision it carries (compare-and-swap).

        :returns: the webhook at its new revision; None if another writer has changed it
        :raises DatastoreUnreachable: it is unknown whether the webhook was written
        """
        document = self._records.put(_document(webhook))
        return replace(webhook, revision=document["_rev"]) if document else None

    def delete(self, webhook: Webhook) -> Webhook | None:
        """Delete a webhook at the revision it carries.

        The tombstone keeps everything but the secrets, so that `deleted_by` finds it.

        :returns: the webhook; None if another writer has changed it
        :raises DatastoreUnreachable: it is unknown whether the webhook was deleted
        """
        tombstone = {**_document(replace(webhook, secrets=())), "_deleted": True}
        return webhook if self._records.put(tombstone) else None

    def deleted_by(self, account_id: str | None, webhook_id: str, attempt: str) -> Webhook | None:
        """Return the webhook that this attempt of a request has deleted, as it was; or None."""
        for leaf in self._records.leaves(_document_id(account_id, webhook_id)):
            if leaf.get("_deleted") and leaf.get("attempt") == attempt:
                return _webhook(leaf)
        return None

    def progress(self, webhook_id: str) -> DeliveryProgress | None:
        """Return the progress of a webhook; None if the sender has not begun."""
        document = self._records.find(_PROGRESS + webhook_id, _rank_of_progress)
        return _progress(document) if document else None

    def all_progress(self) -> Iterator[DeliveryProgress]:
        """Return the progress of all webhooks, and of webhooks that were deleted."""
        return map(_progress, self._records.range(_PROGRESS))

    def put_progress(self, progress: DeliveryProgress) -> DeliveryProgress | None:
        """Write the progress at the revision it carries (compare-and-swap).

        :returns: the progress at its new revision; None if another sender has changed it
        :raises DatastoreUnreachable: it is unknown whether it was written
        """
        progress = replace(progress, writes=progress.writes + 1)
        document = self._records.put(_progress_document(progress))
        return replace(progress, revision=document["_rev"]) if document else None

    def remove_progress(self, progress: DeliveryProgress) -> None:
        """Delete the progress of a webhook that was deleted."""
        self._records.remove([{"_id": _PROGRESS + progress.webhook_id, "_rev": progress.revision}])


def _document_id(account_id: str | None, webhook_id: str) -> str:
    return f"{_WEBHOOK}{account_id or _OPERATOR}-{webhook_id}"


def _rank(document: Document) -> tuple[int, ...]:
    return (document["modified"],)


def _rank_of_progress(document: Document) -> tuple[int, ...]:
    return (document["writes"],)


def _document(webhook: Webhook) -> Mapping[str, Any]:
    return {
        "_id": _document_id(webhook.account_id, webhook.id),
        "_rev": webhook.revision,
        "type": "webhook",
        **{name: getattr(webhook, name) for name in _PLAIN},
        "account_id": webhook.account_id,
        "secrets": [{"value": str(s.value), "until": s.until} for s in webhook.secrets],
        "start": asdict(webhook.start),
    }


def _webhook(document: Document) -> Webhook:
    plain: dict[str, Any] = {name: document[name] for name in _PLAIN}
    plain |= {name: tuple(plain[name]) for name in _TUPLES}
    return Webhook(
        id=document["_id"].rpartition("-")[2],
        account_id=document["account_id"],
        **plain,
        secrets=tuple(Secret(SecretValue(s["value"]), s["until"]) for s in document["secrets"]),
        start=Start(**document["start"]),
        revision=document["_rev"],
    )


def _progress_document(progress: DeliveryProgress) -> Mapping[str, Any]:
    return {
        "_id": _PROGRESS + progress.webhook_id,
        "_rev": progress.revision,
        "type": "webhook_delivery",
        **{name: getattr(progress, name) for name in _PLAIN_OF_PROGRESS},
        "attempts": [asdict(attempt) for attempt in progress.attempts],
    }


def _progress(document: Document) -> DeliveryProgress:
    plain = {name: document[name] for name in _PLAIN_OF_PROGRESS}
    attempts = [{**a, "result": DeliveryResult(a["result"])} for a in document["attempts"]]
    return DeliveryProgress(
        webhook_id=document["_id"].removeprefix(_PROGRESS),
        **{**plain, "delivered": tuple(plain["delivered"])},
        attempts=tuple(DeliveryAttempt(**attempt) for attempt in attempts),
        revision=document["_rev"],
    )
