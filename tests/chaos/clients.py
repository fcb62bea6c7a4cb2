"""Clients that send one request after another, and repeat those with an Idempotency-Key."""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.chaos.history import Attempt, Call, History
from tests.chaos.linearizability import AVAILABLE

REPLY_TIMEOUT = 40.0
"""Seconds that a client waits for a reply."""

ACTIONS = {
    "assign": 30,
    "release": 26,
    "allocate": 14,
    "release all": 4,
    "read": 10,
    "list": 4,
    "forbidden call": 3,
    "create": 5,
    "delete": 4,
    "delete by force": 2,
}
"""The actions of clients, with their relative frequency."""


@dataclass
class World:
    """State that all clients share.

    :param servers: the URLs of the service's instances
    :param accounts: the ids of the accounts
    :param owners: the owner of each address according to the last reply; may be outdated
    :param abort_rate: share of the attempts with a key that the client aborts within 0.3 s
    :param stop: set when clients must not begin new calls
    :param retry_until: when clients stop to repeat calls; a time of the monotonic clock
    """

    servers: Sequence[str]
    accounts: Sequence[str]
    operator: str
    history: History
    owners: dict[str, str]
    abort_rate: float = 0.08
    stop: threading.Event = field(default_factory=threading.Event)
    retry_until: float = float("inf")
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        """All addresses that the pool has or had."""
        return list(self.history.states)


class Client(threading.Thread):
    """A client. The seed and the replies determine its calls."""

    def __init__(self, world: World, seed: int, number: int) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._rng = random.Random(f"{seed} client {number}")
        self._http = urllib3.PoolManager(num_pools=len(world.servers), maxsize=2)

    def run(self) -> None:
        """Make calls until the run stops."""
        while not self._world.stop.is_set():
            call = self._next_call()
            self._world.history.calls.append(call)
            self._complete(call)
            for address in call.done:
                assigned = call.action in ("assign", "allocate")
                self._world.owners[address] = call.account if assigned else AVAILABLE

    def _next_call(self) -> Call:
        rng, world = self._rng, self._world
        [action] = rng.choices(list(ACTIONS), list(ACTIONS.values()))
        account = rng.choice(world.accounts)
        own = [address for address, owner in world.owners.items() if owner == account]
        free = [address for address, owner in world.owners.items() if owner == AVAILABLE]
        likely = {"assign": free, "release": own}.get(action, [])
        among = likely if likely and rng.random() < 0.8 else world.addresses
        several = action in ("assign", "release") and rng.random() < 0.4
        addresses = rng.sample(among, min(len(among), rng.randint(2, 4) if several else 1))
        operators = action in ("create", "delete", "delete by force", "read")
        whole = action in ("release all", "allocate", "list")
        return Call(
            next(world.numbers),
            action,
            "" if operators else account,
            [] if whole else addresses,
            rng.randint(1, 4) if action == "allocate" else 0,
            self._key() if action not in ("read", "list", "forbidden call") else None,
        )

    def _key(self) -> str | None:
        return f"{self._rng.getrandbits(64):016x}" if self._rng.random() < 0.6 else None

    def _complete(self, call: Call) -> None:
        """Send a call; with a key, repeat it until a final reply, and sometimes once more."""
        while True:
            call.attempts.append(self._send(call))
            if call.key is None or time.monotonic() > self._world.retry_until:
                return
            if call.final:
                break
            time.sleep(self._rng.uniform(0.05, 0.6))
        if self._rng.random() < 0.3:
            call.attempts.append(self._send(call))

    def _send(self, call: Call) -> Attempt:
        rng, world = self._rng, self._world
        server = rng.randrange(len(world.servers))
        aborted = rng.random() < world.abort_rate * (1 if call.key else 0.1)
        timeout = rng.uniform(0.01, 0.3) if aborted else REPLY_TIMEOUT
        method, path, body = _request(call)
        headers = {
            "X-Auth-Token": world.tokens[call.account or world.operator],
            # Logs and documents contain the request id, and so name the call.
            "X-Request-ID": f"call-{call.number}-{len(call.attempts)}",
        }
        if call.key:
            headers["Idempotency-Key"] = call.key
        attempt = Attempt(server, time.monotonic())
        try:
            reply = self._http.request(
                method,
                world.servers[server] + path,
                json=body,
                headers=headers,
                retries=False,
                timeout=urllib3.Timeout(connect=2, read=timeout),
            )
            content = reply.json()
        except (urllib3.exceptions.HTTPError, ValueError):
            return _ended(attempt)
        attempt.status, attempt.data = reply.status, content.get("data")
        attempt.message = content.get("message", "")
        return _ended(attempt)


def _ended(attempt: Attempt) -> Attempt:
    attempt.end = time.monotonic()
    return attempt


def _request(call: Call) -> tuple[str, str, Any]:
    """Return method, path and body of a call's request."""
    ips = f"/v2/accounts/{call.account}/ips"
    one = call.addresses[0] if call.addresses else ""
    place = {"ip": one, "zone": "zone", "host": "host"}
    if call.action in ("assign", "release"):
        method = "POST" if call.action == "assign" else "DELETE"
        if len(call.addresses) == 1:
            return method, f"{ips}/{one}", None
        return method, ips, {"data": {"ips": call.addresses}}
    return {
        "allocate": ("POST", ips, {"data": {"quantity": call.quantity}}),
        "release all": ("DELETE", ips, None),
        "list": ("GET", f"{ips}/assigned?paginate=false", None),
        "read": ("GET", f"/v2/ips/{one}", None),
        "forbidden call": ("PUT", "/v2/ips", {"data": place}),
        "create": ("PUT", "/v2/ips", {"data": place}),
        "delete": ("DELETE", f"/v2/ips/{one}", None),
        "delete by force": ("DELETE", f"/v2/ips/{one}?force=true", None),
    }[call.action]


def log_in(server: str, realm: str, user: str, password: str) -> tuple[str, str]:
    """Log in, and return the account's id and a token."""
    credentials = hashlib.md5(f"{user}:{password}".encode()).hexdigest()
    body = {"data": {"credentials": credentials, "realm": realm}}
    reply = urllib3.request("PUT", f"{server}/v2/user_auth", json=body).json()
    return reply["data"]["account_id"], reply["auth_token"]
