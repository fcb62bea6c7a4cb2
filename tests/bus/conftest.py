"""A RabbitMQ and a Crossbar for the tests of their clients, and consumers with their own clock."""

from collections.abc import Iterator

import pytest

from tests.bus.crossbar import FakeCrossbar
from tests.bus.rabbitmq import RabbitMQ, skip_without_rabbitmq


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A running broker, which the tests of one process share."""
    skip_without_rabbitmq()
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbitmq(running: RabbitMQ) -> Iterator[RabbitMQ]:
    """A running broker. The connections of the test are closed at its end."""
    yield running
    running.close_brokers()


@pytest.fixture
def server() -> Iterator[FakeCrossbar]:
    """A server in place of Crossbar."""
    with FakeCrossbar() as made:
        yield made
