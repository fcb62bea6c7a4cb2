"""The rate limits of requests with a valid token: per account, per client, and of keys."""

import itertools
import json
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import urllib3
from gunicorn.workers.gthread import ThreadWorker

from kazoo_ips import app as composition
from kazoo_ips.api.rate_limits import WHOLE_LIST
from kazoo_ips.config import Settings
from kazoo_ips.model import KEY_SECONDS
from kazoo_ips.processes.shared_table import SharedTable
from kazoo_ips.processes.worker_load import load
from kazoo_ips.server.worker import EnvelopeWorker
from kazoo_ips.services.accounts.rate_limits import BURST, Bucket, TokenBuckets
from tests.api.replies import failure
from tests.conftest import Member
from tests.openapi_check import CheckedApp
from tests.security.clients import unused_client
from tests.servers import Gunicorn
from tests.timing import eventually
from tests.watch.exposition import samples, value

RATE = 4
SIZE = RATE * BURST


@dataclass
class Limited:
    """An application with limits and a clock that only the test advances."""

    settings: Settings
    now: float = field(default_factory=lambda: float(int(time.time())))
    api: CheckedApp = field(init=False)

    def __post_init__(self) -> None:
        self.api = CheckedApp(composition.create_app(self.settings, clock=lambda: self.now))

    def get(self, member: Member, path: str = "", client: str = "", **more: str) -> Any:
        headers = {**member.headers, **({"X-Forwarded-For": client} if client else {}), **more}
        path = f"/v2/accounts/{member.id}/ips{path}"
        return self.api.get(path, headers=headers, expect_errors=True)

    def statuses(self, times: int, *arguments: Any, **more: Any) -> list[int]:
        return [self.get(*arguments, **more).status_int for _ in range(times)]

    def left(self, member: Member, path: str = "/zones", **more: str) -> int:
        """Return how many more of these requests are accepted."""
        for count in range(1000):
            if self.get(member, path, **more).status_int == 429:
                return count
        raise AssertionError("there is no limit")

    def post(self, member: Member, key: str, path: str = "", **body: Any) -> Any:
        headers = {**member.headers, **({"Idempotency-Key": key} if key else {})}
        path = f"/v2/accounts/{member.id}/ips{path}"
        return self.api.post_json(path, {"data": body}, headers=headers, expect_errors=True)


@pytest.fixture
def limited(settings: Settings) -> Callable[..., Limited]:
    """A function that makes an application with these limits and no others."""
    off = replace(
        settings, account_limit=0, client_limit=0, key_limit=0, trusted_proxies="127.0.0.1"
    )
    return lambda **limits: Limited(replace(off, **limits))


@pytest.fixture(scope="session")
def lasting(settings: Settings) -> Callable[..., Member]:
    """A function that returns a member with a token that is valid for a week."""
    auth = composition.build(replace(settings, token_lifetime=7 * KEY_SECONDS)).auth
    return lambda member: replace(
        member, token=auth.open_session(member.account, member.user).token
    )


@pytest.fixture
def account(
    member: Callable[..., Member], operator: Member, lasting: Callable[..., Member]
) -> Member:
    """An account that only this test uses."""
    return lasting(member(f"Rates {uuid4().hex[:8]}", operator))


@pytest.fixture
def other(
    member: Callable[..., Member], operator: Member, lasting: Callable[..., Member]
) -> Member:
    """Another account."""
    return lasting(member(f"Others {uuid4().hex[:8]}", operator))


def test_an_account_over_its_limit_is_429_and_others_are_not(
    limited: Callable[..., Limited], account: Member, other: Member
) -> None:
    app = limited(account_limit=RATE)
    assert app.statuses(SIZE, account, "/zones") == [200] * SIZE
    reply = app.get(account, "/zones")
    assert reply.status_int == 429
    assert failure(reply, account.token, "too_many_requests") == {"message": "too many requests"}
    assert reply.headers["Retry-After"] == "1"
    assert app.get(other, "/zones").status_int == 200


def test_tokens_come_back_at_the_rate_of_the_setting(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=RATE)
    app.left(account)
    app.now += 1 / RATE
    assert app.left(account) == 1
    app.now += 1
    assert app.left(account) == RATE
    app.now += 3600
    assert app.left(account) == SIZE


def test_a_refusal_costs_nothing(limited: Callable[..., Limited], account: Member) -> None:
    app = limited(account_limit=RATE)
    app.left(account)
    assert set(app.statuses(10 * RATE, account, "/zones")) == {429}
    app.now += 1
    assert app.left(account) == RATE


def test_retry_after_is_the_time_until_the_request_is_accepted(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=100)
    assert app.statuses(5, account, "?paginate=false") == [200] * 4 + [429]
    app.now += 0.01
    # Nearly all of the tokens for another whole list are missing: 101 less what was left.
    reply = app.get(account, "?paginate=false")
    wait = int(reply.headers["Retry-After"])
    app.now += wait - 0.99
    again = app.get(account, "?paginate=false").status_int
    app.now += 0.99
    assert (again, app.get(account, "?paginate=false").status_int) in ((429, 200), (200, 429))


def test_the_limit_is_the_tokens_account_and_not_that_of_the_path(
    limited: Callable[..., Limited], account: Member, operator: Member
) -> None:
    app = limited(account_limit=RATE)
    path = f"/v2/accounts/{account.id}/ips/zones"
    app.left(account)
    assert app.api.get(path, headers=operator.headers).status_int == 200


def test_requests_that_are_refused_for_other_reasons_count(
    limited: Callable[..., Limited], account: Member, other: Member
) -> None:
    app = limited(account_limit=RATE)
    foreign = f"/v2/accounts/{other.id}/ips"
    for _ in range(SIZE):
        app.api.get(foreign, headers=account.headers, status=403)
    app.api.get(foreign, headers=account.headers, status=429)


def test_other_ways_to_send_the_token_count_in_the_same_bucket(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=RATE)
    path = f"/v2/accounts/{account.id}/ips/zones"
    bearer = {"Authorization": f"Bearer {account.token}"}
    for _ in range(SIZE // 2):
        app.api.get(path, headers=bearer, status=200)
        app.api.get(f"{path}?auth_token={account.token}", status=200)
    app.api.get(path, headers=bearer, status=429)
    body = {"verb": "GET", "auth_token": account.token, "data": {}}
    app.api.post_json(path, body, status=429)


def test_without_a_token_nothing_is_limited(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=RATE, client_limit=RATE)
    client = {"X-Forwarded-For": unused_client()}
    for path in ("/healthz", "/v2/about", "/v2/openapi.json", "/v2/nowhere", "/metrics"):
        for _ in range(SIZE + 1):
            status = app.api.get(path, headers=client, expect_errors=True).status_int
            assert status != 429, path
    ask = {"Origin": "https://x.example", "Access-Control-Request-Method": "GET"}
    for _ in range(SIZE + 1):
        app.api.options(f"/v2/accounts/{account.id}/ips", headers={**client, **ask}, status=200)
    wrong = {**client, "X-Auth-Token": "nonsense"}
    for _ in range(SIZE + 1):
        app.api.get(f"/v2/accounts/{account.id}/ips", headers=wrong, status=401)
    assert app.left(account, client=client["X-Forwarded-For"]) == SIZE


# Clients


def test_a_client_over_its_limit_is_429_with_every_account(
    limited: Callable[..., Limited], account: Member, other: Member
) -> None:
    app, client = limited(client_limit=RATE), unused_client()
    assert app.left(account, client=client) == SIZE
    assert app.get(other, "/zones", client=client).status_int == 429
    assert app.get(account, "/zones", client=unused_client()).status_int == 200


def test_one_network_of_ipv6_is_one_client(
    limited: Callable[..., Limited], account: Member
) -> None:
    app, network = limited(client_limit=RATE), f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}"
    clients = [f"{network}::{n + 1:x}" for n in range(SIZE + 1)]
    statuses = [app.get(account, "/zones", client=client).status_int for client in clients]
    assert statuses == [200] * SIZE + [429]


def test_a_trusted_proxy_that_names_no_client_is_not_limited_as_one(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(client_limit=RATE)
    proxy = {"REMOTE_ADDR": "127.0.0.1"}
    path = f"/v2/accounts/{account.id}/ips/zones"
    for _ in range(SIZE + 1):
        app.api.get(path, headers=account.headers, extra_environ=proxy, status=200)
    direct = {"REMOTE_ADDR": unused_client()}
    for _ in range(SIZE):
        app.api.get(path, headers=account.headers, extra_environ=direct, status=200)
    app.api.get(path, headers=account.headers, extra_environ=direct, status=429)


def test_a_request_that_one_limit_refuses_takes_nothing_of_the_other(
    limited: Callable[..., Limited], account: Member
) -> None:
    app, client = limited(account_limit=RATE, client_limit=2 * RATE), unused_client()
    assert app.left(account, client=client) == SIZE
    assert set(app.statuses(2 * SIZE, account, "/zones", client=client)) == {429}
    app.now += BURST
    assert app.left(account, client=client) == SIZE


def test_each_limit_can_be_turned_off(limited: Callable[..., Limited], account: Member) -> None:
    client = unused_client()
    assert set(limited().statuses(SIZE + 1, account, "/zones", client=client)) == {200}
    by_account = limited(account_limit=RATE)
    assert by_account.left(account, client=client) == SIZE
    by_client = limited(client_limit=RATE)
    assert by_client.left(account, client=client) == SIZE


# Headers


def test_the_headers_tell_both_limits_when_one_is_near(
    limited: Callable[..., Limited], account: Member
) -> None:
    app, client = limited(account_limit=RATE, client_limit=10 * RATE), unused_client()
    policy = f'"account";q={SIZE};w={BURST}, "client";q={10 * SIZE};w={BURST}'
    for used in range(1, SIZE + 2):
        reply = app.get(account, "/zones", client=client)
        if used <= SIZE // 2:
            assert not {"RateLimit", "RateLimit-Policy"} & set(reply.headers)
            continue
        taken = min(used, SIZE)
        left = f'"account";r={SIZE - taken};t=1, "client";r={10 * SIZE - taken};t=1'
        assert reply.headers["RateLimit-Policy"] == policy
        assert reply.headers["RateLimit"] == left
    assert reply.status_int == 429


def test_t_is_retry_after_in_a_refusal(limited: Callable[..., Limited], account: Member) -> None:
    app = limited(account_limit=20)
    assert app.get(account, "?paginate=false").status_int == 200
    reply = app.get(account, "?paginate=false")
    assert reply.headers["RateLimit"] == '"account";r=0;t=5'
    assert reply.headers["Retry-After"] == "5"


def test_pages_of_other_origins_may_read_the_headers(
    limited: Callable[..., Limited], account: Member
) -> None:
    reply = limited(account_limit=RATE).get(account, "/zones", Origin="https://x.example")
    exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ratelimit", "ratelimit-policy", "retry-after"} <= set(exposed)


# Costs


PRICED = 50
LEFT = PRICED * BURST - 101 - 31
"""Tokens of an account with this limit after `spend`: less than half, so replies have them."""


def spend(app: Limited, member: Member) -> None:
    for path in ("?paginate=false", "?quantity=3000"):
        app.get(member, path)


def remaining(reply: Any) -> int:
    """Return the tokens of the account that are left, according to a reply."""
    found = re.fullmatch(r'"account";r=(\d+);t=1', reply.headers["RateLimit"])
    assert found
    return int(found[1])


def addresses(count: int) -> list[str]:
    return [f"203.0.{n >> 8}.{n & 255}" for n in range(count)]


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("", 1),
        ("?zone=x", 1),
        ("/zones", 1),
        ("/203.0.113.9", 1),
        ("?page_size=99", 1),
        ("?page_size=1000", 11),
        ("?quantity=1000", 11),
        ("?quantity=99999999", 1 + WHOLE_LIST),
        ("?quantity=999999999", 1 + WHOLE_LIST),
        ("?page_size=1&quantity=1000", 11),
        ("?page_size=1&paginate=false", 1 + WHOLE_LIST),
        ("?paginate=true", 1),
        ("?family=4", 11),
        ("?zone=x&family=4", 1),
        ("?page_size=many", 1),
        ("?page_size=" + "9" * 5000, 1),
        ("?paginate=false", 1 + WHOLE_LIST),
        ("/assigned?paginate=false", 1 + WHOLE_LIST),
        ("/history", 1),
        ("/history?page_size=1000", 11),
        ("/history?paginate=false", 1 + WHOLE_LIST),
    ],
)
def test_reads_cost_by_the_addresses_that_they_can_return(
    limited: Callable[..., Limited], account: Member, path: str, tokens: int
) -> None:
    app = limited(account_limit=PRICED)
    spend(app, account)
    assert remaining(app.get(account, path)) == LEFT - tokens


def test_a_whole_list_in_csv_costs_as_much_as_one_in_json(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=PRICED)
    spend(app, account)
    assert remaining(app.get(account, "?page_size=10", Accept="text/csv")) == LEFT - 1
    assert remaining(app.get(account, "", Accept="text/csv")) == LEFT - 2 - WHOLE_LIST


@pytest.mark.parametrize("accept", ["text/csv", "text/*", "TEXT/CSV", "text/csv;q=1, */*;q=0.1"])
def test_every_accept_header_that_means_csv_costs_a_whole_list(
    limited: Callable[..., Limited], account: Member, accept: str
) -> None:
    app = limited(account_limit=PRICED)
    spend(app, account)
    assert remaining(app.get(account, "", Accept=accept)) == LEFT - 1 - WHOLE_LIST


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"ips": addresses(9)}, 1),
        ({"ips": addresses(1000)}, 101),
        ({"quantity": 1000}, 101),
        ({"quantity": -1000}, 1),
        ({"quantity": True}, 1),
        ({"ips": "203.0.113.9"}, 1),
    ],
)
def test_writes_cost_by_the_addresses_that_they_name(
    limited: Callable[..., Limited], account: Member, body: dict[str, Any], tokens: int
) -> None:
    app = limited(account_limit=PRICED)
    spend(app, account)
    assert remaining(app.post(account, "", **body)) == LEFT - tokens


def test_a_release_of_all_addresses_costs_as_much_as_a_whole_list(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=PRICED)
    spend(app, account)
    reply = app.api.delete(f"/v2/accounts/{account.id}/ips", headers=account.headers)
    assert remaining(reply) == LEFT - WHOLE_LIST


def test_what_costs_more_than_the_bucket_holds_empties_it(
    limited: Callable[..., Limited], account: Member
) -> None:
    app = limited(account_limit=1)
    assert app.get(account, "?paginate=false").status_int == 200
    assert app.left(account) == 0
    app.now += BURST
    assert app.get(account, "?paginate=false").status_int == 200


# Idempotency-Keys


def test_new_keys_of_an_account_are_bounded(
    limited: Callable[..., Limited], account: Member, other: Member
) -> None:
    app, keys = limited(key_limit=3), [uuid4().hex for _ in range(4)]
    replies = [app.post(account, key, ips=["203.0.113.9"]) for key in keys]
    assert [reply.status_int for reply in replies] == [400, 400, 400, 429]
    refused = failure(replies[-1], account.token, "too_many_requests")
    assert refused == {"message": "too many idempotency keys"}
    assert replies[-1].headers["Retry-After"] == str(KEY_SECONDS // 3)
    assert app.post(other, keys[0], ips=["203.0.113.9"]).status_int == 400
    # Requests with a known key, and requests without a key, are still accepted.
    again = app.post(account, keys[0], ips=["203.0.113.9"])
    assert (again.status_int, again.headers["Idempotency-Replayed"]) == (400, "true")
    assert app.post(account, "", ips=["203.0.113.9"]).status_int == 400
    app.now += KEY_SECONDS // 3
    assert app.post(account, keys[3], ips=["203.0.113.9"]).status_int == 400
    assert app.post(account, uuid4().hex, ips=["203.0.113.9"]).status_int == 429


def test_users_of_one_account_share_its_keys(
    limited: Callable[..., Limited], account: Member, services: Any
) -> None:
    app = limited(key_limit=1)
    user = services.accounts.create_user(account.id, "second", "secret")
    second = replace(account, token=services.auth.open_session(account.account, user).token)
    assert app.post(account, uuid4().hex, ips=["203.0.113.9"]).status_int == 400
    assert app.post(second, uuid4().hex, ips=["203.0.113.9"]).status_int == 429


def test_a_refused_request_does_not_use_up_its_key(
    limited: Callable[..., Limited], account: Member
) -> None:
    app, key = limited(account_limit=1), uuid4().hex
    app.left(account)
    assert app.post(account, key, ips=["203.0.113.9"]).status_int == 429
    app.now += BURST
    reply = app.post(account, key, ips=["203.0.113.9"])
    assert reply.status_int == 400
    assert "Idempotency-Replayed" not in reply.headers


# Metrics and log


def test_refusals_are_counted_by_limit(limited: Callable[..., Limited], account: Member) -> None:
    app, client = limited(account_limit=RATE, client_limit=1, key_limit=1), unused_client()

    def refused(limit: str) -> float:
        counts = samples(app.api.get("/metrics").text)
        return value(counts, "kazoo_ips_requests_limited_total", limit=limit)

    app.left(account, client=client)
    app.now += BURST
    app.post(account, uuid4().hex, ips=["203.0.113.9"])
    app.post(account, uuid4().hex, ips=["203.0.113.9"])
    app.now += BURST
    app.left(account)
    assert (refused("client"), refused("key"), refused("account")) == (1, 1, 1)


# The buckets


def test_buckets_forget_a_time_that_a_clock_set_back_has_made_too_late() -> None:
    now = [1000.0]
    buckets = TokenBuckets(SharedTable(sets=1), lambda: now[0])
    bucket = Bucket("a", 2, 5)
    assert [buckets.take([bucket], 1)[0].wait for _ in range(3)] == [0, 0, 2.5]
    now[0] -= 100
    assert buckets.take([bucket], 1)[0].wait == 0


def test_many_clients_need_no_memory_and_do_not_empty_a_bucket_in_use() -> None:
    now = [1000.0]
    buckets = TokenBuckets(SharedTable(sets=32), lambda: now[0])
    used = Bucket("used", 10, 5)
    for _ in range(10):
        buckets.take([used], 1)
    for n in range(2000):
        buckets.take([Bucket(f"flood {n}", 10, 5)], 1)
    assert buckets.take([used], 1)[0].wait == 0.5


# Live


@pytest.fixture
def served(environment: dict[str, str], tmp_path: Path) -> Iterator[Gunicorn]:
    """Two workers that count together."""
    limits = {"KAZOO_IPS_ACCOUNT_LIMIT": "1", "KAZOO_IPS_CLIENT_LIMIT": "0"}
    with Gunicorn({**environment, **limits}, tmp_path / "log", workers=2) as gunicorn:
        yield gunicorn


def test_workers_count_together_and_a_new_worker_goes_on(
    environment: dict[str, str], account: Member, tmp_path: Path
) -> None:
    limits = {"KAZOO_IPS_KEY_LIMIT": "20"}  # a bucket that does not fill during the test
    with Gunicorn({**environment, **limits}, tmp_path / "log", workers=2) as gunicorn:

        def status(_: int) -> int:
            try:
                reply = urllib3.request(
                    "POST",
                    f"{gunicorn.url}/v2/accounts/{account.id}/ips",
                    json={"data": {"ips": ["203.0.113.9"]}},
                    headers={
                        **account.headers,
                        "Idempotency-Key": uuid4().hex,
                        "Connection": "close",
                    },
                    timeout=30,
                    retries=False,
                )
            except urllib3.exceptions.HTTPError:
                return 0  # its worker was killed
            return reply.status

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(status, range(16)))
            assert statuses == [400] * 16
            before = gunicorn.workers()
            gunicorn.kill_a_worker()
            assert eventually(lambda: len(set(gunicorn.workers()) - set(before)) == 1)
            statuses = list(pool.map(status, range(12)))
        assert statuses.count(400) <= 4
        assert statuses.count(400) == 4 or 0 in statuses
        assert 429 in statuses


def test_a_client_that_ignores_a_refusal_waits_for_the_next_one_and_others_do_not(
    served: Gunicorn, account: Member, other: Member
) -> None:
    parts = urlsplit(served.url)
    head = f"GET /v2/accounts/{account.id}/ips/zones HTTP/1.1\r\nHost: x\r\n"
    request = f"{head}X-Auth-Token: {account.token}\r\n\r\n".encode()
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=30) as client:
        client.sendall(request * 12)  # all at once: the bucket holds five
        arrived, received = [], b""
        while len(arrived) < 12:
            part = client.recv(65536)
            assert part, received
            received += part
            found = len(re.findall(rb"HTTP/1.1 (\d+)", received))
            arrived += [time.monotonic()] * (found - len(arrived))
            if len(arrived) == 6:
                fine = urllib3.request(
                    "GET",
                    f"{served.url}/v2/accounts/{other.id}/ips/zones",
                    headers=other.headers,
                    timeout=30,
                )
                assert fine.status == 200
    statuses = [int(each) for each in re.findall(rb"HTTP/1.1 (\d+)", received)]
    assert statuses[:6] == [200] * 5 + [429]
    refusals = [at for at, status in zip(arrived, statuses, strict=True) if status == 429]
    assert all(later - at > 0.9 for at, later in itertools.pairwise(refusals))


class _Paused:
    """A paused connection. Its next request has arrived or has not."""

    def __init__(self, arrived: bool) -> None:
        self.sock = self
        self.is_paused = True
        self._arrived = arrived

    def is_readable(self, _seconds: float) -> bool:
        return self._arrived


def test_requests_after_a_pause_are_handled_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = object.__new__(EnvelopeWorker)
    worker.alive, worker._resumed, worker._turn_ends = True, None, 0.0
    connections = [_Paused(arrived) for arrived in (True, False, True, True)]
    past = time.monotonic() - 1
    worker._paused = deque((past, each, object()) for each in connections)
    begun: list[Any] = []
    idle: list[Any] = []
    monkeypatch.setattr(worker, "enqueue_req", begun.append)
    monkeypatch.setattr(ThreadWorker, "finish_request", lambda _, conn, __: idle.append(conn))
    monkeypatch.setattr(worker, "pending_conns", deque(), raising=False)
    monkeypatch.setattr(worker, "nr_conns", 4, raising=False)
    monkeypatch.setattr(worker, "slot", 0, raising=False)
    monkeypatch.setattr(load, "set", lambda _slot, _count: None)

    worker._end_pauses()
    worker._end_pauses()
    assert begun == connections[:1]
    worker.finish_request(connections[0], None)
    worker._end_pauses()
    assert begun == [connections[0], connections[2]]
    assert idle == connections[:2]
    # A request that takes longer, such as a stream, does not delay the others.
    worker._turn_ends = past
    worker._end_pauses()
    assert begun == [connections[0], *connections[2:]]
    assert not any(each.is_paused for each in connections)


def test_a_refusal_is_noted_in_the_log(served: Gunicorn, account: Member, tmp_path: Path) -> None:
    for _ in range(7):
        urllib3.request(
            "GET",
            f"{served.url}/v2/accounts/{account.id}/ips/zones",
            headers={**account.headers, "Connection": "close"},
            timeout=30,
        )

    def noted() -> list[Any]:
        lines = [line for line in (tmp_path / "log").read_text().splitlines() if line[:1] == "{"]
        return [line for line in map(json.loads, lines) if line.get("status") == 429]

    assert eventually(lambda: bool(noted()))
    assert {line["account_id"] for line in noted()} == {account.id}
    assert all(line["notes"] == ["account_limit"] for line in noted())
