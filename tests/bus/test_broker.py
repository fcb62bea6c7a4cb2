"""The client of a broker against a real RabbitMQ, while it or the connection fails."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.outbound import amqp
from kazoo_ips.services.kazoo.document_changes import EXCHANGE
from tests.bus.rabbitmq import Listener, RabbitMQ
from tests.bus.tcp_proxy import TCPProxy

pytestmark = pytest.mark.slow

Messages = list[tuple[str, bytes]]


def some(count: int) -> Messages:
    """Messages, each with a body of its own."""
    return [
        ("doc_edited.dedicated_ips.dedicated_ip.x", uuid4().hex.encode()) for _ in range(count)
    ]


def texts(messages: Messages) -> list[str]:
    """Their bodies."""
    return [body.decode() for _, body in messages]


@pytest.fixture
def listener(rabbitmq: RabbitMQ) -> Iterator[Listener]:
    """A queue that gets every message."""
    with Listener(rabbitmq, {"all": ["#"]}) as made:
        yield made


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[TCPProxy]:
    """A proxy before the broker."""
    with TCPProxy(rabbitmq.port) as made:
        yield made


def test_messages_arrive_in_order_with_kazoo_s_properties(
    rabbitmq: RabbitMQ, listener: Listener
) -> None:
    broker, sent = rabbitmq.broker(), some(3)
    before = time.time_ns() // 1000
    broker.publish(sent)
    found = listener.messages("all")
    assert [str(message.body, "utf-8") if isinstance(message.body, bytes) else message.body
            for message in found] == texts(sent)  # fmt: skip
    for message in found:
        properties = dict(message.properties)
        stamp = properties.pop("timestamp")
        assert before <= stamp <= time.time_ns() // 1000
        assert properties == {"content_type": "application/json"}
        assert message.delivery_info["exchange"] == EXCHANGE


def test_many_messages_are_confirmed_in_windows(rabbitmq: RabbitMQ, listener: Listener) -> None:
    broker, sent = rabbitmq.broker(), some(2 * amqp.WINDOW + 1)
    broker.publish(sent)
    broker.publish([])
    assert listener.bodies("all") == texts(sent)


def test_a_broker_that_is_killed_and_started_again(rabbitmq: RabbitMQ) -> None:
    broker = rabbitmq.broker()
    broker.publish(some(1))
    rabbitmq.kill()
    for _ in range(2):  # on the old connection, then on a new one
        with pytest.raises(ReceiverUnavailable, match=r"^test: "):
            broker.publish(some(1))
    rabbitmq.start()
    # The exchange is gone with the broker.
    with Listener(rabbitmq, {"all": ["#"]}) as listener:
        broker.publish(sent := some(2))
        assert listener.bodies("all") == texts(sent)


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_paused_broker_is_not_waited_for_without_end(
    rabbitmq: RabbitMQ, listener: Listener, monkeypatch: pytest.MonkeyPatch, is_connected: bool
) -> None:
    monkeypatch.setattr(amqp, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(amqp, "CONNECT_TIMEOUT", 0.5)
    broker = rabbitmq.broker()
    if is_connected:
        broker.publish([])
    rabbitmq.pause()
    try:
        start = time.monotonic()
        with pytest.raises(ReceiverUnavailable):
            broker.publish(some(3000))
        assert time.monotonic() - start < 3
    finally:
        rabbitmq.resume()
    broker.publish(sent := some(2))
    time.sleep(0.5)  # messages sent before the pause may arrive after later ones
    assert set(texts(sent)) <= set(listener.bodies("all"))


def test_a_broker_without_memory_blocks_and_says_so(
    rabbitmq: RabbitMQ, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp, "ANSWER_TIMEOUT", 1.0)
    broker = rabbitmq.broker()
    broker.publish([])
    rabbitmq.control("set_vm_memory_high_watermark", "0")
    try:
        with pytest.raises(ReceiverUnavailable, match="blocked the connection"):
            broker.publish(some(1))
    finally:
        rabbitmq.control("set_vm_memory_high_watermark", "0.4")
    broker.publish(sent := some(1))
    # The broker may still deliver the message that it has blocked.
    assert set(texts(sent)) <= set(listener.bodies("all"))


@pytest.mark.parametrize("direction", ["to the broker", "to the client"])
@pytest.mark.parametrize("forwarded", [False, True])
def test_a_connection_that_is_cut_at_any_frame_loses_nothing(
    rabbitmq: RabbitMQ, listener: Listener, proxy: TCPProxy, direction: str, forwarded: bool
) -> None:
    cuts = 0
    for frame in range(40):
        broker = rabbitmq.broker(proxy.port)
        proxy.cut(direction, frame, forwarded=forwarded)
        sent = some(3)
        try:
            broker.publish(sent)
        except ReceiverUnavailable:
            broker.publish(sent)
        found = listener.bodies("all")
        assert set(texts(sent)) <= set(found)
        assert len(found) <= 2 * len(sent)
        if not proxy.has_cut:
            break
        cuts += 1
    else:
        raise AssertionError("the connection has more frames than expected")
    # At least the steps: start, tune, open, open a channel, declare, select confirms, publish.
    assert cuts >= 7


def test_a_refused_login_raises_without_the_password(rabbitmq: RabbitMQ) -> None:
    broker = rabbitmq.broker(password="pa55word")
    with pytest.raises(ReceiverUnavailable, match="ACCESS_REFUSED") as raised:
        broker.publish(some(1))
    assert "pa55word" not in str(raised.value)


def redeclare(rabbitmq: RabbitMQ, kind: str, *, durable: bool) -> None:
    """Declare the exchange in another way."""
    with rabbitmq.connection() as connection:
        channel = connection.channel()
        channel.exchange_delete(EXCHANGE)
        channel.exchange_declare(EXCHANGE, kind, durable=durable, auto_delete=False)
        channel.queue_declare("other", auto_delete=False, exclusive=False)
        channel.queue_bind("other", EXCHANGE, "#")


@pytest.fixture
def _declared_again(rabbitmq: RabbitMQ) -> Iterator[None]:
    yield
    with rabbitmq.connection() as connection:
        channel = connection.channel()
        channel.exchange_delete(EXCHANGE)
        channel.queue_delete("other")


@pytest.mark.usefixtures("_declared_again")
def test_a_durable_exchange_is_used_unchanged(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    redeclare(rabbitmq, "topic", durable=True)
    rabbitmq.broker().publish(sent := some(2))
    with rabbitmq.connection() as connection:
        channel = connection.channel()
        found = [channel.basic_get("other", no_ack=True) for _ in range(3)]
    assert [str(m.body, "utf-8") if isinstance(m.body, bytes) else m.body for m in found if m] == (
        texts(sent)
    )
    assert "inequivalent arg 'durable'" in caplog.text


@pytest.mark.usefixtures("_declared_again")
def test_an_exchange_of_another_type_is_refused(rabbitmq: RabbitMQ) -> None:
    redeclare(rabbitmq, "direct", durable=False)
    broker = rabbitmq.broker()
    for _ in range(2):
        with pytest.raises(ReceiverUnavailable, match="inequivalent arg 'type'"):
            broker.publish(some(1))
    redeclare(rabbitmq, "topic", durable=False)
    broker.publish(some(1))


def test_an_exchange_that_another_client_deletes_is_declared_again(
    rabbitmq: RabbitMQ, listener: Listener
) -> None:
    broker = rabbitmq.broker()
    broker.publish(some(1))
    with rabbitmq.connection() as connection:
        connection.channel().exchange_delete(EXCHANGE)
    with pytest.raises(ReceiverUnavailable, match="NOT_FOUND"):
        broker.publish(some(1))
    broker.publish(some(1))


def test_an_idle_connection_is_closed(
    rabbitmq: RabbitMQ, proxy: TCPProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = rabbitmq.broker(proxy.port)
    broker.publish([])
    broker.close_if_idle()
    assert proxy.open == 1
    monkeypatch.setattr(amqp, "IDLE", 0)
    broker.close_if_idle()
    end = time.monotonic() + 5
    while proxy.open and time.monotonic() < end:
        time.sleep(0.05)
    assert proxy.open == 0
    broker.publish(some(1))
