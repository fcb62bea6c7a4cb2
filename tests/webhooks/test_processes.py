"""Whole processes: requests over HTTP, the archive, and deliveries, while senders are killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from kazoo_ips.config import Settings
from kazoo_ips.model import CreateIP
from tests.api.own_application import OwnApplication, create_own_application
from tests.servers import Gunicorn, free_port
from tests.timing import eventually
from tests.webhooks.receivers import Received, Receiver, answer

pytestmark = pytest.mark.slow
WAIT = 60.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own_app(settings: Settings) -> Iterator[OwnApplication]:
    """Databases with an operator and an account."""
    with create_own_application(settings) as made:
        yield made


@pytest.fixture(scope="module")
def server(
    own_app: OwnApplication, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """Two workers that may send to loopback."""
    own = {
        **environment,
        "KAZOO_IPS_PREFIX": own_app.settings.prefix,
        "KAZOO_IPS_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    with Gunicorn(own, tmp_path_factory.mktemp("webhooks") / "log", workers=2) as made:
        yield made


def ask(
    server: Gunicorn, own_app: OwnApplication, method: str, path: str, data: Any = None
) -> Any:
    """Send a request over HTTP, and return `data`."""
    request = urllib.request.Request(
        f"{server.url}{path}",
        method=method,
        data=json.dumps({"data": data}).encode(),
        headers={**own_app.headers, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["data"]


def hook(server: Gunicorn, own_app: OwnApplication, path: str, receiver: Receiver) -> Any:
    """Create a webhook for a receiver."""
    content = {"name": "test", "uri": receiver.uri, "hook": "all"}
    return ask(server, own_app, "PUT", path, content)


def holder(own_app: OwnApplication) -> int:
    """The process that sends webhooks."""
    document = own_app.databases.get("kazoo_ips", "follower-webhooks")
    return int(str(document["holder"]).rpartition("/")[2])


def events_of(receiver: Receiver) -> list[tuple[str, str]]:
    """Return the events that a receiver has got, each id once, in the order of first delivery."""
    bodies = {each.headers["webhook-id"]: json.loads(each.body) for each in receiver.received}
    return [(each["event"], each["ip"]) for each in bodies.values()]


def test_what_happens_over_http_is_delivered_signed_and_in_order(
    server: Gunicorn, own_app: OwnApplication
) -> None:
    account = own_app.services.accounts.create("Alice", "alice.example.com").id
    own, pool = f"/v2/accounts/{account}/ips", "/v2/ips"
    address, place = "192.0.2.7", {"zone": "us-east", "host": "proxy1.example.com"}
    with Receiver() as mine, Receiver() as operators:
        made = hook(server, own_app, f"{own}/webhooks", mine)
        theirs = hook(server, own_app, f"{pool}/webhooks", operators)
        ask(server, own_app, "PUT", pool, {"ip": address, **place})
        ask(server, own_app, "POST", f"{own}/{address}", {})
        ask(server, own_app, "DELETE", f"{own}/{address}", {})
        ask(server, own_app, "DELETE", f"{pool}/{address}", {})
        assert eventually(lambda: len(events_of(operators)) >= 4, WAIT), operators.received
        assert eventually(lambda: len(events_of(mine)) >= 2, WAIT)
        ask(server, own_app, "DELETE", f"{own}/webhooks/{made['id']}")
        ask(server, own_app, "DELETE", f"{pool}/webhooks/{theirs['id']}")
    kinds = ["created", "assigned", "released", "deleted"]
    assert events_of(operators) == [(kind, address) for kind in kinds]
    assert events_of(mine) == [(kind, address) for kind in kinds[1:3]]
    first = mine.received[0]
    content = Verifier(made["secret"]).verify(first.body, first.headers)
    assert (content["account_id"], content["after"]["account_id"]) == (account, account)
    assert content["by"] == {}  # the operator's request, of which the account sees no author
    assert first.headers["user-agent"].startswith("kazoo_ips/")


def test_a_sender_killed_after_a_delivery_repeats_it_and_loses_nothing(
    server: Gunicorn, own_app: OwnApplication
) -> None:
    """The receiver kills the sender after it got the request, before it replies."""
    addresses = [f"192.0.2.{n}" for n in range(100, 130)]
    killed: list[int] = []

    def kill(connection: socket.socket, received: Received) -> None:
        if len(receiver.received) in (2, 9, 16):
            killed.append(holder(own_app))
            os.kill(killed[-1], signal.SIGKILL)
        else:
            answer(200)(connection, received)

    with Receiver(kill) as receiver:
        made = hook(server, own_app, "/v2/ips/webhooks", receiver)
        for address in addresses:
            own_app.services.pool.create(
                CreateIP(address, "us-east", "proxy1.example.com"), os.urandom(16).hex()
            )
        done = eventually(lambda: len(events_of(receiver)) == len(addresses), WAIT * 2)
        assert done, events_of(receiver)
        time.sleep(1)
        ids = receiver.ids()
        ask(server, own_app, "DELETE", f"/v2/ips/webhooks/{made['id']}")
    assert len(killed) == len(set(killed)) == 3
    assert sorted(ip for _, ip in events_of(receiver)) == sorted(addresses)
    repeated = [i for i in set(ids) if ids.count(i) > 1]
    assert len(ids) == len(addresses) + 3
    assert len(repeated) == 3
    for each in repeated:  # the same event twice in a row
        assert ids.index(each) + 1 == ids.index(each, ids.index(each) + 1)


def test_the_receiver_of_the_documentation_verifies_what_is_sent(
    server: Gunicorn, own_app: OwnApplication, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program
    (tmp_path / "receiver.py").write_text(program[1])
    port = free_port()
    content = {"name": "docs", "uri": f"http://127.0.0.1:{port}/ips", "hook": "all"}
    path = "/v2/ips/webhooks"
    made = ask(server, own_app, "PUT", path, content)
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("flask"), "--app", "receiver", "run", "-p", str(port)],
            cwd=tmp_path,
            env={**os.environ, "WEBHOOK_SECRET": made["secret"]},
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:

        def delivered() -> bool:
            attempt = ask(server, own_app, "POST", f"{path}/{made['id']}/test")
            return bool(attempt["result"] == "success")

        assert eventually(delivered, WAIT)
        assert (tmp_path / "output").read_text().strip().endswith("test 192.0.2.1")
        forged = urllib.request.Request(f"http://127.0.0.1:{port}/ips", b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(forged, timeout=10)
    finally:
        process.terminate()
        process.wait(10)
        ask(server, own_app, "DELETE", f"{path}/{made['id']}")


def test_metrics_of_all_workers_show_the_sender(server: Gunicorn, own_app: OwnApplication) -> None:
    def shown() -> str:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as reply:
            text: str = reply.read().decode()
            return text

    with Receiver(answer(500)) as receiver:
        made = hook(server, own_app, "/v2/ips/webhooks", receiver)
        own_app.services.pool.create(
            CreateIP("192.0.2.200", "us-east", "proxy1.example.com"), os.urandom(16).hex()
        )
        failing = 'kazoo_ips_webhooks_failing{scope="operator"} 1.0'
        assert eventually(lambda: failing in shown(), WAIT), shown()
        ask(server, own_app, "DELETE", f"/v2/ips/webhooks/{made['id']}")

    def rounds() -> float:
        found = re.search(r"^kazoo_ips_webhook_rounds_total (\S+)$", shown(), re.MULTILINE)
        return float(found[1]) if found else 0

    assert eventually(lambda: rounds() > 10, WAIT)
    assert eventually(lambda: failing not in shown(), WAIT)
