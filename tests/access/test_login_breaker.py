"""The circuit breaker: all workers together seldom send a login that CouchDB has refused."""

import base64
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch import login_circuit_breaker
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreUnreachable,
)
from kazoo_ips.processes.shared_table import SharedTable
from kazoo_ips.repositories.access import AccessRepository
from kazoo_ips.services.maintenance.database_access import DatabaseAccessService
from tests.api.replies import failure
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy, Forward, Reply
from tests.openapi_check import CheckedApp
from tests.servers import Gunicorn
from tests.timing import eventually

WRONG = (401, "unauthorized", "Name or password is incorrect.")
LOCKED = (
    403,
    "forbidden",
    "Account is temporarily locked due to multiple authentication failures",
)
REASON = "CouchDB refuses the service's user or password"


class Users:
    """A proxy that knows one user, and replaces its login by that of the database's URL."""

    def __init__(self, url: str) -> None:
        self.proxy = FaultProxy(url)
        self._login = _basic(unquote(urlsplit(url).netloc.rpartition("@")[0]))
        self.password = uuid4().hex
        self.refusal = WRONG
        self.refused: list[float] = []
        self.pause = 0.0
        self.proxy.rule(self.let_in, times=None)

    def url(self, password: str | None = None) -> str:
        """Return the settings of the database with the user and a password."""
        return f"http://kazoo_ips:{password or self.password}@127.0.0.1:{self.proxy.port}"

    def let_in(self, forward: Forward) -> Reply:
        """A fault: the reply of a database with this user."""
        time.sleep(self.pause)
        head, login = forward.request.head, _basic(f"kazoo_ips:{self.password}")
        if login in head:
            return forward(head.replace(login, self._login))
        self.refused.append(time.monotonic())
        status, error, reason = self.refusal
        body = json.dumps({"error": error, "reason": reason}).encode()
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n"
        return Reply(status, head.encode(), body)


def _basic(login: str) -> bytes:
    """Return the value of the header `Authorization` for `name:password`."""
    return b"Basic " + base64.b64encode(login.encode())


@pytest.fixture
def users(couchdb_url: str) -> Any:
    """The proxy, started."""
    made = Users(couchdb_url)
    with made.proxy:
        yield made


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of the breaker."""
    monkeypatch.setattr(login_circuit_breaker, "PAUSES", (0.5, 1.0, 2.0))
    monkeypatch.setattr(login_circuit_breaker, "LOCKED", 0.5)


def of(users: Users, settings: Settings, password: str | None = None) -> Settings:
    """Return the settings of a service behind the proxy, with this password."""
    return replace(settings, couchdb_url=users.url(password), couchdb_admin_url="")


@pytest.mark.parametrize("interval", [0.1, 7.0, 61.0])
def test_three_requests_in_five_minutes_carry_a_wrong_password(interval: float) -> None:
    now, sent = 1000.0, []
    breaker = LoginBreaker(SharedTable(), clock=lambda: now)
    while now < 4000:
        with suppress(DatastoreLoginRefused), breaker.trial("login"):
            sent.append(now)
            breaker.refuse("login", locked=False)
            raise DatastoreLoginRefused
        now += interval
    assert max(sum(start <= at < start + 300 for at in sent) for start in sent) <= 3
    pauses = [after - before for before, after in pairwise(sent)]
    assert pauses == sorted(pauses)
    assert 300 < pauses[-1] < 420


def test_after_a_lockout_the_login_is_tried_every_minute() -> None:
    now, sent = 1000.0, []
    breaker = LoginBreaker(SharedTable(), clock=lambda: now)
    while now < 1400:
        with suppress(DatastoreLoginRefused), breaker.trial("login"):
            sent.append(now)
            breaker.refuse("login", locked=True)
            raise DatastoreLoginRefused
        now += 1
    assert sent == [1000 + 60 * n for n in range(7)]


def test_a_login_that_was_accepted_starts_again_from_the_first_pause() -> None:
    breaker = LoginBreaker(SharedTable(), clock=lambda: 1000.0)
    assert breaker.refuse("login", locked=False) == login_circuit_breaker.PAUSES[0]
    assert breaker.refuse("login", locked=False) is None, "the refusal was recorded already"
    later = LoginBreaker(breaker._table, clock=lambda: 2000.0)
    with later.trial("login"):
        pass
    assert later.is_closed("login")
    assert not later.is_closed("another")
    assert later.refuse("login", locked=False) == login_circuit_breaker.PAUSES[0]


def test_an_entry_of_another_process_returns_the_same_as_get() -> None:
    table = SharedTable(sets=1)
    read = {key: table._entry(key).get for key in map(str, range(12))}
    assert {key: each() for key, each in read.items()} == dict.fromkeys(read, 0.0)
    for round_ in range(3):
        for key in read:  # more than the table has slots, so it evicts some
            table.put(key, float(f"{round_}{key}") + 1)
            assert {key: each() for key, each in read.items()} == {k: table.get(k) for k in read}


def test_only_one_of_many_threads_tries_an_unknown_password(
    users: Users, settings: Settings
) -> None:
    users.pause = 0.1
    couch = composition.connect(of(users, settings, "wrong"))

    def send_request(n: int) -> None:
        with pytest.raises(DatastoreLoginRefused):
            couch.database(f"db{n}").info()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send_request, range(32)))
    assert len(users.refused) == 1
    assert len(users.proxy.records) == 1


def test_all_threads_are_served_with_a_valid_password(users: Users, settings: Settings) -> None:
    users.pause = 0.1
    couch = composition.connect(of(users, settings))
    with ThreadPoolExecutor(16) as threads:
        found = list(
            threads.map(lambda n: couch.database("dedicated_ips").info()["db_name"], range(32))
        )
    assert set(found) == {f"{settings.prefix}dedicated_ips"}


def test_a_thread_waits_only_briefly_for_the_trial_of_a_password(
    users: Users, settings: Settings
) -> None:
    gate = threading.Event()

    def hold(forward: Forward) -> Reply:
        gate.wait(faults.IDLE_TIMEOUT)
        return users.let_in(forward)

    held = users.proxy.rule(hold)
    users.proxy._rules.reverse()  # a rule of `proxy` comes before that of `users`
    couch = composition.connect(of(users, settings))
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(couch.database("dedicated_ips").info)
        assert eventually(lambda: bool(held.met))
        began = time.monotonic()
        others = [threads.submit(couch.database("dedicated_ips").info) for _ in range(8)]
        for other in others:
            other.result()
        assert time.monotonic() - began < 4 * login_circuit_breaker.MAX_WAIT
        gate.set()
        first.result()


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("refusal", [WRONG, LOCKED])
def test_a_password_that_becomes_wrong_is_reported_and_not_sent_during_the_pause(
    users: Users,
    settings: Settings,
    operator: Any,
    refusal: tuple[int, str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    users.refusal = refusal
    api = CheckedApp(composition.create_app(of(users, settings)))
    api.get("/v2/ips", headers=operator.headers, status=200)
    right, users.password = users.password, "another"
    with caplog.at_level(logging.WARNING, "kazoo_ips.couch"):
        for _ in range(5):
            reply = api.get("/v2/ips", headers=operator.headers, status=503)
    data = failure(reply, operator.token, "datastore_fault")
    assert data == {"message": "the database refuses the service's user or password"}
    assert api.get("/readyz", status=503).json["data"]["reasons"] == [REASON]
    assert len(users.refused) == 1
    own = [each for each in caplog.records if each.name == "kazoo_ips.couch.http_client"]
    lines = [record.getMessage() for record in own]
    assert len(lines) == 2
    assert lines[0].endswith(f": {refusal[2]}")
    assert lines[1].startswith("user kazoo_ips is not used for ")
    assert right not in caplog.text
    assert b"\nkazoo_ips_couchdb_logins_refused_total 1.0\n" in api.get("/metrics").body
    time.sleep(0.6)
    users.password = right
    api.get("/v2/ips", headers=operator.headers, status=200)
    time.sleep(1)
    api.get("/readyz", status=200)


@pytest.mark.parametrize(
    "refusal",
    [
        (403, "forbidden", "You are not allowed to access this db."),
        (401, "unauthorized", "You are not a server admin."),
        (403, "forbidden", "no"),
    ],
)
def test_a_missing_permission_is_not_a_refused_login(
    users: Users, settings: Settings, refusal: tuple[int, str, str]
) -> None:
    users.refusal = refusal
    couch = composition.connect(of(users, settings, "wrong"))
    for n in range(1, 8):
        with pytest.raises(DatastoreForbidden) as raised:
            couch.database("dedicated_ips").info()
        assert not isinstance(raised.value, DatastoreLoginRefused)
        assert len(users.refused) == n


def test_the_doctor_does_not_report_a_refused_login_as_missing_access(
    users: Users, settings: Settings, alice: Member
) -> None:
    def change(_: str, url: str) -> None:
        if f"-account/{alice.id[:2]}" in unquote(url):
            users.password = "another"

    services = composition.build(of(users, settings), trace=change)
    with pytest.raises(DatastoreLoginRefused):
        list(services.doctor.examine())
    assert users.password == "another"


@pytest.mark.parametrize("locked", [False, True])
def test_a_lockout_does_not_show_whether_the_password_is_right(
    users: Users, settings: Settings, locked: bool
) -> None:
    locked_out = (403, "forbidden", "Account is temporarily locked due to multiple failures")
    users.refusal = locked_out if locked else users.refusal
    couch = composition.connect(of(users, settings, "wrong"))
    access = DatabaseAccessService(AccessRepository(couch), AccessRepository(couch))
    if locked:
        with pytest.raises(DatastoreLoginRefused):
            access._password_is_right()
    else:
        assert not access._password_is_right()


def test_a_failed_or_missing_response_is_not_a_refused_login(
    users: Users, settings: Settings
) -> None:
    couch = composition.connect(of(users, settings))
    users.proxy.stop_listening()
    with pytest.raises(DatastoreUnreachable):
        couch.database("dedicated_ips").info()
    users.proxy.start_listening()
    users.proxy.rule(faults.bad_gateway)
    users.proxy._rules.reverse()
    with pytest.raises(DatastoreError):
        couch.database("dedicated_ips").info()
    assert couch.database("dedicated_ips").info()


def test_another_password_is_tried_at_once(users: Users, settings: Settings) -> None:
    for wrong in ("one", "two"):
        with pytest.raises(DatastoreLoginRefused):
            composition.connect(of(users, settings, wrong)).database("dedicated_ips").info()
    assert composition.connect(of(users, settings)).database("dedicated_ips").info()
    assert len(users.refused) == 2


def test_all_workers_together_try_a_wrong_password_once(
    users: Users, environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {**environment, "COUCHDB_URL": users.url("wrong"), "COUCHDB_ADMIN_URL": ""}
    with Gunicorn(environment, tmp_path / "log", workers=4) as server:
        pool = urllib3.PoolManager(maxsize=16, retries=False)

        def send_request(n: int) -> int:
            path = "/readyz" if n % 2 else "/v2/ips?auth_token=x.y.z"
            headers = {"Connection": "close"}  # for every worker to have some
            return pool.request("GET", server.url + path, headers=headers).status

        with ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(send_request, range(200)))
    assert statuses[1::2] == [503] * 100
    assert 1 <= len(users.refused) <= 2, "a second request after the first pause"
