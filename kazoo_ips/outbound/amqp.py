"""The client of one broker of Kazoo's message bus: AMQP 0-9-1, with publisher confirms.

The only module that imports kombu, which the extra `kazoo_ips[bus]` installs. It is imported only
if `KAZOO_IPS_AMQP_URL` is set.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, PreconditionFailed
from kombu import Exchange
from kombu.transport.pyamqp import Connection

from kazoo_ips.errors import ReceiverUnavailable

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection, and for the broker's answers while it is opened."""
ANSWER_TIMEOUT = 5.0
"""Seconds to wait until the broker takes bytes, answers or confirms."""
PUBLISH_TIMEOUT = 15.0
"""Seconds until all messages of one call must be confirmed."""
WINDOW = 500
"""Messages that are sent before the client waits for their confirms. If it waited after each, a
broker with a latency of 50 ms would get 20 messages a second."""
IDLE = 20.0
"""Seconds after which an unused connection is closed. So no heartbeats are needed: a connection
that a firewall has dropped meanwhile is not used again."""


class Broker:
    """Publishes messages to one exchange of one broker. It is not thread-safe.

    :param label: the broker's name in logs and metrics, without user and password
    :param virtual_host: the virtual host, `/` by default in RabbitMQ
    :param exchange: the name of the exchange: of the type topic, neither durable nor deleted
        automatically, as Kazoo declares its exchanges
    """

    def __init__(  # noqa: PLR0913 - the parts of a URL
        self,
        label: str,
        host: str,
        port: int,
        *,
        user: str,
        password: str,
        virtual_host: str,
        tls: bool,
        exchange: str,
    ) -> None:
        self.label = label
        self._options = {
            "host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "userid": user,
            "password": password,
            "virtual_host": virtual_host,
            # The certificate and its name are verified. `SSL_CERT_FILE` names other authorities.
            "ssl": {"server_hostname": host} if tls else False,
            "heartbeat": 0,
            "on_blocked": self._on_blocked,
        }
        self._exchange = Exchange(exchange, "topic", durable=False, auto_delete=False)
        self._connection: Any = None
        self._channel: Any = None
        self._reset()

    def _reset(self) -> None:
        self._used = time.monotonic()
        self._blocked = False
        self._sent = 0
        """Messages of this channel: the delivery tag of the last one."""
        self._unconfirmed: set[int] = set()
        self._refused = 0

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish messages, and return when the broker has confirmed all of them.

        If an error is raised, any of them may have been published.

        :param messages: routing key and body of each
        :raises ReceiverUnavailable: the broker has not confirmed all of them
        """
        end = time.monotonic() + PUBLISH_TIMEOUT
        with self._failures():
            if self._channel is None:
                self._open()
            for start in range(0, len(messages), WINDOW):
                for routing_key, body in messages[start : start + WINDOW]:
                    self._send(routing_key, body)
                self._wait_for_confirms(end)
            self._used = time.monotonic()

    def close_if_idle(self) -> None:
        """Close the connection if it was not used for a while."""
        if time.monotonic() - self._used > IDLE:
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one. The next call of `publish` opens another."""
        if self._connection is not None:
            with suppress(Exception):  # it may be lost, and then nothing has to be closed
                self._connection.close()
            self._drop()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn every failure of the code inside into one error, and drop the connection.

        :raises ReceiverUnavailable: the code inside has failed
        """
        try:
            yield
        except ReceiverUnavailable:
            self._drop()
            raise
        except (AMQPError, OSError, AttributeError, ValueError) as error:
            # When a connection is lost, py-amqp sometimes raises one of the last two.
            why = "the broker has blocked the connection: " if self._blocked else ""
            self._drop()
            text = f"{self.label}: {why}{type(error).__name__}: {error}"
            raise ReceiverUnavailable(text) from error

    def _drop(self) -> None:
        """Close the connection without waiting for the broker."""
        connection, self._connection, self._channel = self._connection, None, None
        self._reset()
        if connection is not None:
            with suppress(Exception):  # the next connection is a new one
                connection.collect()

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True

    # Opening a connection.

    def _open(self) -> None:
        # A connection that fails while it is opened is closed by `_drop`.
        self._connection = Connection(connect_timeout=CONNECT_TIMEOUT, **self._options)
        self._connection.connect()
        # Without this timeout, the client would wait without end if an answer is missing.
        self._connection.transport.sock.settimeout(ANSWER_TIMEOUT)
        channel = self._connection.channel()
        try:
            self._exchange(channel).declare()
        except (PreconditionFailed, AccessRefused) as error:
            self._check_refusal(error)
            channel = self._connection.channel()  # the refusal has closed the other one
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        self._channel = channel
        log.info("%s: connected", self.label)

    def _check_refusal(self, error: AMQPError) -> None:
        """Decide whether to publish to an exchange whose declaration was refused.

        Another client has declared it with other arguments, or this user may not declare it.
        Messages reach the queues of a topic exchange whether it is durable or not.

        :raises ReceiverUnavailable: it is of another type, so messages would not be routed
        """
        text = str(error.reply_text)
        if "'type'" in text:
            raise ReceiverUnavailable(f"{self.label}: {text}")
        log.warning("%s: publishing to the existing exchange: %s", self.label, text)

    # Publishing.

    def _send(self, routing_key: str, body: bytes) -> None:
        message = self._channel.prepare_message(
            body,
            content_type="application/json",
            properties={"timestamp": time.time_ns() // 1000},
        )
        self._sent += 1
        self._unconfirmed.add(self._sent)
        self._channel.basic_publish(message, self._exchange.name, routing_key)

    def _wait_for_confirms(self, end: float) -> None:
        while self._unconfirmed:
            left = min(ANSWER_TIMEOUT, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{len(self._unconfirmed)} messages are not confirmed in time")
            self._connection.drain_events(timeout=left)
        if self._refused:
            raise ReceiverUnavailable(f"{self.label}: the broker refuses {self._refused} messages")

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._unconfirmed -= self._confirmed(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        refused = self._confirmed(tag, multiple)
        self._refused += len(refused)
        self._unconfirmed -= refused

    def _confirmed(self, tag: int, multiple: bool) -> set[int]:
        """Return the tags of a confirm. With `multiple` it is for all tags up to its own."""
        return {each for each in self._unconfirmed if each <= tag} if multiple else {tag}
