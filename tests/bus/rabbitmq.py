"""A real RabbitMQ in a folder of its own, on loopback, which can be killed, paused and started."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import kombu
import pytest

from kazoo_ips.outbound.amqp import Broker
from kazoo_ips.services.kazoo.document_changes import EXCHANGE
from tests.servers import free_port

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian's package has the programs; those in PATH run only as its own user."""
START = 120
"""Seconds within which the broker must start."""


def skip_without_rabbitmq() -> None:
    """Skip the test if there is no RabbitMQ."""
    if not (PROGRAMS / "rabbitmq-server").exists() or not shutil.which("epmd"):
        pytest.skip("LEFT OUT: RabbitMQ is not installed (Debian: rabbitmq-server)")


class RabbitMQ:
    """The broker. It runs inside a `with`, always at the same port.

    :param folder: an empty folder for all its files
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self._epmd_port, self._node_port = free_port(), free_port(), free_port()
        self._brokers: list[Broker] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def __enter__(self) -> "RabbitMQ":
        self._epmd = subprocess.Popen(["epmd"], env=self._environment)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._epmd.kill()
        self._epmd.wait()

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        with (self._folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + START
        while True:
            with suppress(OSError), self.connection() as connection:
                connection.connect()
                return
            assert time.monotonic() < end, (self._folder / "output").read_text()
            assert self._server.poll() is None, (self._folder / "output").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it, as `kill -9`. All that is not durable is lost."""
        if self._server is not None:
            self._signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def pause(self) -> None:
        """Pause its processes. Connections stay open, and the broker sends nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes continue."""
        self._signal(signal.SIGCONT)

    def control(self, *arguments: str) -> None:
        """Run `rabbitmqctl`."""
        subprocess.run(
            [PROGRAMS / "rabbitmqctl", "-n", self._environment["RABBITMQ_NODENAME"], *arguments],
            env=self._environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _signal(self, number: int) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, number)

    def connection(self) -> Any:
        """A connection of a client."""
        return kombu.Connection(
            hostname="127.0.0.1",
            port=self.port,
            userid="guest",
            password="guest",
            transport="pyamqp",
            connect_timeout=5,
            heartbeat=0,
        )

    def broker(self, port: int | None = None, password: str = "guest") -> Broker:
        """The service's client of this broker.

        :param port: the port of a proxy before it
        """
        made = Broker(
            "test",
            "127.0.0.1",
            port or self.port,
            user="guest",
            password=password,
            virtual_host="/",
            tls=False,
            exchange=EXCHANGE,
        )
        self._brokers.append(made)
        return made

    def close_brokers(self) -> None:
        """Close the connections of all clients that `broker` has returned."""
        while self._brokers:
            self._brokers.pop().close()


class Listener:
    """A client with queues bound to Kazoo's exchange, each declared as Kazoo's nodes do.

    :param bindings: the routing keys of each queue, by its name
    """

    def __init__(self, rabbitmq: RabbitMQ, bindings: dict[str, list[str]]) -> None:
        self._connection = rabbitmq.connection()
        self._channel = self._connection.channel()
        exchange = kombu.Exchange(EXCHANGE, "topic", durable=False, auto_delete=False)
        exchange(self._channel).declare()
        for name, keys in bindings.items():
            self._channel.queue_declare(name, durable=False, exclusive=False, auto_delete=False)
            self._channel.queue_purge(name)
            for key in keys:
                self._channel.queue_bind(name, EXCHANGE, key)
        self._queues = list(bindings)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # the broker may not run any more
            for name in self._queues:
                self._channel.queue_delete(name)
        with suppress(Exception):
            self._connection.close()

    def messages(self, queue: str) -> list[Any]:
        """Take what is in a queue: messages with `body`, `properties` and `delivery_info`."""
        found = []
        while message := self._channel.basic_get(queue, no_ack=True):
            found.append(message)
        return found

    def bodies(self, queue: str) -> list[str]:
        """Take what is in a queue: the bodies."""
        return [bytes(each.body).decode() if isinstance(each.body, (bytes, memoryview))
                else each.body for each in self.messages(queue)]  # fmt: skip
