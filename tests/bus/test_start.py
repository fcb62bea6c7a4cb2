"""The service under gunicorn, with brokers and a Crossbar: from an event to its receivers."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, DedicatedIP
from tests.bus.crossbar import FakeCrossbar
from tests.bus.rabbitmq import Listener, RabbitMQ
from tests.conftest import Member
from tests.servers import Gunicorn
from tests.timing import eventually

PASSWORD = "pa55word-of-the-bus"


def test_without_the_extra_the_start_stops_with_one_line(environment: dict[str, str]) -> None:
    # A module that is None counts as missing.
    code = (
        "import sys; sys.modules['kombu'] = None; sys.argv = ['gunicorn', '-c',"
        " 'python:kazoo_ips.gunicorn_conf', '--check-config'];"
        " from gunicorn.app.wsgiapp import run; run()"
    )
    settings = environment | {"KAZOO_IPS_AMQP_URL": f"amqp://u:{PASSWORD}@127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "KAZOO_IPS_AMQP_URL: kombu is missing; install kazoo_ips[bus]"
    )


def test_each_broker_has_a_checkpoint_whatever_its_password_and_place(
    settings: Settings, operator: Member
) -> None:
    assert operator

    def names(urls: str) -> list[str]:
        made = composition.build(
            replace(settings, amqp_url=urls, crossbar_url="http://127.0.0.1:1")
        )
        return sorted(each.name for each in made.consumers())

    first = names("amqp://u:a@one amqp://two/zone")
    assert first == ["bus-one:5672", "bus-two:5672%2Fzone", "crossbar"]
    assert names("amqp://two:5672/zone,amqp://u:b@one:5672") == first
    assert composition.build(settings).consumers() == []


@pytest.mark.slow
def test_the_password_of_a_broker_is_in_no_line(
    environment: dict[str, str], operator: Member, tmp_path: Path
) -> None:
    assert operator
    log = tmp_path / "log"
    settings = environment | {
        "KAZOO_IPS_AMQP_URL": f"amqp://u:{PASSWORD}@127.0.0.1:1",
        "KAZOO_IPS_LOG_LEVEL": "debug",
        "KAZOO_IPS_PREFIX": environment["KAZOO_IPS_PREFIX"],
    }
    with Gunicorn(settings, log, workers=1):
        assert eventually(lambda: "following bus-127.0.0.1:1" in log.read_text(), 30)
    assert PASSWORD not in log.read_text()


@pytest.mark.slow
def test_an_assignment_reaches_the_bus_and_crossbar_although_one_broker_is_unavailable(
    environment: dict[str, str], rabbitmq: RabbitMQ, server: FakeCrossbar, services: Instance,
    operator: Member, member: Callable[..., Member], add: Callable[..., DedicatedIP],
    tmp_path: Path,
) -> None:  # fmt: skip
    # The archive has no event of this account. For other accounts, this archives changes of
    # earlier tests.
    account_id = member("Called", operator).id
    address, log = "198.51.100.77", tmp_path / "log"
    database = f"account%2F{account_id[:2]}%2F{account_id[2:4]}%2F{account_id[4:]}"
    wanted = [
        ("doc_created", "dedicated_ips", address),
        ("doc_edited", "dedicated_ips", address),
        ("doc_created", database, address),
        ("doc_edited", database, "resource"),
    ]
    settings = environment | {
        "KAZOO_IPS_AMQP_URL": f"amqp://127.0.0.1:1 amqp://127.0.0.1:{rabbitmq.port}",
        "KAZOO_IPS_CROSSBAR_URL": server.url,
    }
    with Listener(rabbitmq, {"all": ["#"]}) as listener, Gunicorn(settings, log, workers=2):
        names = (f"following bus-127.0.0.1:{rabbitmq.port} ", "following crossbar ")
        assert eventually(lambda: all(each in log.read_text() for each in names), 60), (
            log.read_text()
        )
        add(address)
        services.ips.assign(AssignIP(account_id, address), uuid4().hex)
        heard: list[tuple[str, str, str]] = []

        def is_complete() -> bool:
            for body in listener.bodies("all"):
                payload = json.loads(body)
                heard.append((payload["Event-Name"], payload["Database"], payload["ID"]))
            return set(wanted) <= set(heard) and account_id in server.accounts

        assert eventually(is_complete, 90), (heard, server.accounts, log.read_text())
    # Each is published at least once, and in this order.
    assert [each for each in dict.fromkeys(heard) if each in wanted] == wanted
    assert "failed unexpectedly" not in log.read_text()
