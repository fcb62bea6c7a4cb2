"""Kazoo's document-change events for events of the history.

Kazoo's nodes publish such an event when they save a document
(`core/kazoo_data/src/kzs_publish.erl`). Document caches, stepswitch and webhooks listen to them.
This service writes the same documents past Kazoo, so it publishes the same events.
"""

import json
import socket
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from kazoo_ips.model.history import HistoryEvent, HistoryEventKind
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import POOL, TYPE

EXCHANGE = "configuration"
"""The exchange of document-change events (`core/kazoo_amqp/include/kz_amqp.hrl`)."""
_CREATED, _EDITED, _DELETED = "doc_created", "doc_edited", "doc_deleted"
_ROUTES_ID = "resource"
"""With this id, an event of an account's database drops the account's routes from stepswitch's
cache: their origin there is (the database, `resource`), and the cache is bound to events of the
type `dedicated_ip` (`core/kazoo_caches/src/kz_cache_conf_change.erl`)."""


class BusMessage(NamedTuple):
    """One message for the exchange `EXCHANGE`.

    :param body: the payload, as JSON
    """

    routing_key: str
    body: bytes


class DocumentChanges:
    """Makes the messages for events.

    :param version: the version of the service
    """

    def __init__(self, version: str) -> None:
        self._version = version
        # Not the name of a Kazoo node: a node ignores events that carry its own name.
        self._node = f"kazoo_ips@{socket.gethostname()}"

    def messages(self, event: HistoryEvent) -> list[BusMessage]:
        """Return the messages for an event, in the order in which they are to be published.

        The documents come first. When stepswitch gets the last message and reads the account's
        addresses again, no cache has the old documents any more. An event of a zone has none: no
        document of Kazoo has changed.
        """
        if event.level:
            return []
        return [
            self._pool_document(event),
            *self._copies(event),
            *(self._routes(event, account_id) for account_id in event.accounts),
        ]

    def _pool_document(self, event: HistoryEvent) -> BusMessage:
        name = {
            HistoryEventKind.CREATED.value: _CREATED,
            HistoryEventKind.DELETED.value: _DELETED,
        }.get(event.event, _EDITED)
        revision = {"Rev": event.revision} if event.revision else {}
        return self._message(event, name, POOL, event.address, revision)

    def _copies(self, event: HistoryEvent) -> Iterator[BusMessage]:
        """Yield the messages for the copies in accounts' databases."""
        before, after = event.account_before, event.account_after
        if before and before != after:
            yield self._of_account(event, _DELETED, before, event.address)
        if after:
            name = _EDITED if before == after else _CREATED
            yield self._of_account(event, name, after, event.address)

    def _routes(self, event: HistoryEvent, account_id: str) -> BusMessage:
        """Return the message that makes stepswitch drop the cached routes of one account."""
        return self._of_account(event, _EDITED, account_id, _ROUTES_ID)

    def _of_account(
        self, event: HistoryEvent, name: str, account_id: str, document_id: str
    ) -> BusMessage:
        database = quote(account_database(account_id), safe="")
        return self._message(event, name, database, document_id, {"Account-ID": account_id})

    def _message(
        self,
        event: HistoryEvent,
        name: str,
        database: str,
        document_id: str,
        more: dict[str, str],
    ) -> BusMessage:
        created = {"Date-Created": event.at} if name == _CREATED else {}
        payload = {
            "ID": document_id,
            "Database": database,
            "Type": TYPE,
            **more,
            "Is-Soft-Deleted": False,
            **created,
            "Date-Modified": event.at,
            "Event-Category": EXCHANGE,
            "Event-Name": name,
            "App-Name": "kazoo_ips",
            "App-Version": self._version,
            "Node": self._node,
            # The same for each delivery of the same message, so that a receiver can notice it.
            "Msg-ID": f"{event.id}-{name}-{more.get('Account-ID', 'pool')}-{document_id}",
        }
        key = f"{name}.{database}.{TYPE}.{encode(document_id)}"
        return BusMessage(key, json.dumps(payload).encode())


def encode(text: str) -> str:
    """Encode one word of a routing key (`encode` of `core/kazoo_amqp/src/kz_amqp_util.erl`).

    >>> encode("2001:db8::1")
    '2001%3Adb8%3A%3A1'
    >>> encode("192.0.2.1 a-b_c~d")
    '192%2E0%2E2%2E1+a-b_c~d'
    """
    # `quote` never quotes a full stop.
    return quote(text, safe="~ ").replace(".", "%2E").replace(" ", "+")
