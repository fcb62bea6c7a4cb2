"""The login rate limit: it refuses clients that guess, and no others."""

import base64
import hashlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.processes.shared_table import SharedTable
from kazoo_ips.services.accounts.login_rate_limit import ACCOUNT, CLIENT, WINDOW
from tests.api.replies import failure
from tests.openapi_check import CheckedApp
from tests.security.clients import unused_client
from tests.servers import Gunicorn
from tests.timing import quickest

LIMIT = 3
RIGHT = hashlib.md5(b"admin:secret").hexdigest()
WRONG = "0" * 32


@dataclass
class Logins:
    """An application with a clock that only the test advances."""

    settings: Settings
    now: float = 2e9

    def __post_init__(self) -> None:
        self.api = CheckedApp(composition.create_app(self.settings, clock=lambda: self.now))

    def __call__(self, client: str, credentials: str, **account: str) -> Any:
        data = {"credentials": credentials, **account}
        return self.put("/v2/user_auth", client, data)

    def put(self, path: str, client: str, data: dict[str, str]) -> Any:
        headers = {"X-Forwarded-For": client}
        return self.api.put_json(path, {"data": data}, headers=headers, expect_errors=True)

    def statuses(self, times: int, *arguments: str, **account: str) -> list[int]:
        return [self(*arguments, **account).status_int for _ in range(times)]


@pytest.fixture
def logins(settings: Settings, operator: Any) -> Logins:
    """Logins with a limit of three."""
    made = replace(settings, login_limit=LIMIT, refusal_time=0.0, trusted_proxies="127.0.0.1")
    # WebTest sets no client address, as a local socket does not.
    return Logins(made)


@pytest.fixture
def account(member: Callable[..., Any], operator: Any) -> Any:
    """An account that only this test uses."""
    return member(f"Limits {uuid4().hex[:8]}", operator)


def test_above_the_limit_even_a_right_login_is_429(logins: Logins, account: Any) -> None:
    client, realm = unused_client(), account.account.realm
    assert logins.statuses(LIMIT, client, WRONG, account_realm=realm) == [401] * LIMIT
    for credentials in (WRONG, RIGHT):
        reply = logins(client, credentials, account_realm=realm)
        assert reply.status_int == 429
        assert failure(reply, None, "too_many_requests") == {"message": "too many requests"}
        assert reply.headers["Retry-After"] == str(WINDOW // LIMIT)


def test_retry_after_is_exact_to_the_second(logins: Logins, account: Any) -> None:
    client, realm = unused_client(), account.account.realm
    logins.statuses(LIMIT, client, WRONG, account_realm=realm)
    wait = int(logins(client, RIGHT, account_realm=realm).headers["Retry-After"])
    logins.now += wait - 1
    assert logins(client, RIGHT, account_realm=realm).headers["Retry-After"] == "1"
    logins.now += 1
    assert logins(client, WRONG, account_realm=realm).status_int == 401
    assert logins(client, RIGHT, account_realm=realm).status_int == 429
    logins.now += WINDOW
    assert logins.statuses(LIMIT + 1, client, WRONG, account_realm=realm) == [401] * LIMIT + [429]


def test_successful_logins_are_not_counted(logins: Logins, account: Any) -> None:
    client, realm = unused_client(), account.account.realm
    assert set(logins.statuses(3 * LIMIT, client, RIGHT, account_realm=realm)) == {201}


def test_a_client_that_guesses_does_not_lock_out_others(logins: Logins, account: Any) -> None:
    realm = account.account.realm
    assert logins.statuses(30, unused_client(), WRONG, account_realm=realm)[-1] == 429
    assert logins(unused_client(), RIGHT, account_realm=realm).status_int == 201


def test_a_client_that_guesses_at_many_accounts_is_stopped(logins: Logins) -> None:
    client = unused_client()
    names = [uuid4().hex for _ in range(LIMIT * CLIENT + 1)]
    statuses = [logins(client, WRONG, account_name=name).status_int for name in names]
    assert statuses == [401] * (LIMIT * CLIENT) + [429]


def test_an_account_under_attack_is_closed_to_unknown_clients_only(
    logins: Logins, account: Any
) -> None:
    known, realm = unused_client(), account.account.realm
    assert logins(known, RIGHT, account_realm=realm).status_int == 201
    crowd = [unused_client() for _ in range(ACCOUNT)]
    for client in crowd:
        assert set(logins.statuses(LIMIT, client, WRONG, account_realm=realm)) == {401}
    assert logins(unused_client(), RIGHT, account_realm=realm).status_int == 429
    assert logins(known, RIGHT, account_realm=realm).status_int == 201
    assert logins.statuses(LIMIT + 1, known, WRONG, account_realm=realm) == [401] * LIMIT + [429]


def test_other_spellings_of_the_account_are_the_same_account(logins: Logins, account: Any) -> None:
    client, name = unused_client(), account.account.name
    for spelling in (name, name.upper(), name.replace(" ", "-")):
        assert logins(client, WRONG, account_name=spelling).status_int == 401
    assert logins(client, WRONG, account_name=f"{name}!").status_int == 429


def test_an_unknown_account_is_limited_in_the_same_way(logins: Logins) -> None:
    statuses = logins.statuses(LIMIT + 1, unused_client(), WRONG, account_name=uuid4().hex)
    assert statuses == [401] * LIMIT + [429]


def test_one_network_of_ipv6_is_one_client(logins: Logins, account: Any) -> None:
    realm, network = account.account.realm, f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}"
    clients = [f"{network}::{n + 1:x}" for n in range(LIMIT + 1)]
    statuses = [logins(client, WRONG, account_realm=realm).status_int for client in clients]
    assert statuses == [401] * LIMIT + [429]


def test_wrong_api_keys_are_limited_by_client(logins: Logins, account: Any) -> None:
    client = unused_client()
    statuses = [
        logins.put("/v2/api_auth", client, {"api_key": "0" * 64}).status_int
        for _ in range(LIMIT * CLIENT + 1)
    ]
    assert statuses == [401] * (LIMIT * CLIENT) + [429]
    right = {"api_key": account.account.api_key}
    assert logins.put("/v2/api_auth", unused_client(), right).status_int == 201


def test_wrong_basic_authentication_is_limited(logins: Logins, account: Any) -> None:
    client = unused_client()

    def status(credentials: str, client: str = client) -> int:
        word = base64.b64encode(f"{account.id}:{credentials}".encode()).decode()
        headers = {"X-Forwarded-For": client, "Authorization": f"Basic {word}"}
        path = f"/v2/accounts/{account.id}/ips/zones"
        return int(logins.api.get(path, headers=headers, expect_errors=True).status_int)

    assert [status(RIGHT) for _ in range(2 * LIMIT)] == [200] * 2 * LIMIT
    assert [status(WRONG) for _ in range(LIMIT + 1)] == [401] * LIMIT + [429]
    assert status(RIGHT) == 429
    assert status(RIGHT, unused_client()) == 200


def test_a_bad_token_is_no_login(logins: Logins, account: Any) -> None:
    headers = {"X-Forwarded-For": unused_client(), "X-Auth-Token": "nonsense"}
    for _ in range(LIMIT * CLIENT + 1):
        logins.api.get(f"/v2/accounts/{account.id}/ips", headers=headers, status=401)


def test_every_refused_basic_authentication_takes_the_same_time(
    settings: Settings, account: Any
) -> None:
    api = CheckedApp(composition.create_app(replace(settings, refusal_time=0.15)))
    for account_id in (account.id, "f" * 32, "nonsense"):
        word = base64.b64encode(f"{account_id}:{WRONG}".encode()).decode()
        headers = {"Authorization": f"Basic {word}"}
        refused = partial(api.get, "/v2/about", headers=headers, status=401)
        assert 0.15 <= quickest(refused, enough=0.4) < 0.4


def test_workers_count_together_and_a_killed_worker_blocks_no_other(
    environment: dict[str, str], account: Any, tmp_path: Path
) -> None:
    settings = {**environment, "KAZOO_IPS_LOGIN_LIMIT": "30", "KAZOO_IPS_REFUSAL_TIME": "0"}
    realm, client = account.account.realm, unused_client()

    with Gunicorn(settings, tmp_path / "log", workers=2) as gunicorn:

        def status(credentials: str, client: str = client) -> int:
            try:
                reply = urllib3.request(
                    "PUT",
                    f"{gunicorn.url}/v2/user_auth",
                    json={"data": {"credentials": credentials, "account_realm": realm}},
                    headers={"X-Forwarded-For": client, "Connection": "close"},
                    timeout=20,
                    retries=False,
                )
            except urllib3.exceptions.HTTPError:
                return 0  # its worker was killed
            return reply.status

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(status, WRONG) for _ in range(20)]
            gunicorn.kill_a_worker()
            statuses = [future.result() for future in futures]
            assert set(statuses) <= {401, 0}
            statuses += [status(WRONG) for _ in range(30)]
        # Each refusal counts once for both workers; the last ones of the killed worker may not.
        assert 30 - statuses.count(0) <= statuses.count(401) <= 30
        assert statuses[-1] == status(RIGHT) == 429
        assert status(RIGHT, unused_client()) == 201


# The table


def test_a_table_keeps_times_by_key() -> None:
    table = SharedTable()
    with table.lock:
        assert table.get("a") == 0
        table.put("a", 1.5)
        table.put("b", 2.5)
        table.put("a", 3.5)
        assert (table.get("a"), table.get("b")) == (3.5, 2.5)


def test_a_table_has_a_fixed_size_and_keeps_the_latest_times() -> None:
    table = SharedTable(sets=32)
    with table.lock:
        table.put("debtor", 2000.0)
        for n in range(2000):
            table.put(f"flood {n}", 1000.0)
        assert table.get("debtor") == 2000.0
        assert table.get("flood 1999") == 1000.0
        assert sum(table.get(f"flood {n}") > 0 for n in range(2000)) < 32 * 8


def test_forked_processes_share_a_table_and_a_killed_one_leaves_no_lock() -> None:
    table = SharedTable()
    ready, written = os.pipe()
    child = os.fork()
    if not child:  # it is killed while it holds the lock
        with table.lock:
            table.put("child", 7.0)
            os.write(written, b"x")
            time.sleep(60)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    with table.lock:
        assert table.get("child") == 7.0
    os.waitpid(child, 0)
    os.close(ready)
    os.close(written)
