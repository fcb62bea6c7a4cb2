"""Kazoo's message bus as a receiver of events of the history."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.services.kazoo.document_changes import BusMessage, DocumentChanges


class BrokerClient(Protocol):
    """The client of one broker."""

    def publish(self, messages: Sequence[BusMessage]) -> None:
        """Publish messages, and return when the broker has confirmed all of them.

        :raises ReceiverUnavailable: it has not confirmed all of them
        """

    def close_if_idle(self) -> None:
        """Close the connection if it was not used for a while."""

    def close(self) -> None:
        """Close the connection."""


class Bus:
    """Publishes the events of the history to one broker.

    :param count: counts messages by their result: `confirmed` or `failed`
    """

    oldest = None
    """No event waits here: those that are not published stay in the feed."""

    def __init__(
        self, broker: BrokerClient, changes: DocumentChanges, count: Callable[[str, int], None]
    ) -> None:
        self._broker = broker
        self._changes = changes
        self._count = count

    def take(self, events: Collection[HistoryEvent]) -> tuple[()]:
        """Publish the messages for events.

        :returns: nothing that has to be published again
        :raises ReceiverUnavailable: the broker has not confirmed all messages
        """
        messages = [message for event in events for message in self._changes.messages(event)]
        try:
            self._broker.publish(messages)
        except ReceiverUnavailable:
            self._count("failed", len(messages))
            raise
        self._count("confirmed", len(messages))
        return ()

    def work(self) -> None:
        """Close a connection that is not used."""
        self._broker.close_if_idle()

    def forget(self) -> None:
        """Close the connection."""
        self._broker.close()
