"""The service as worker processes on the simulated cluster, and the data at the start of a run.

All runs share the applications and the cache of tokens. Any other state of a worker is created
when its process starts.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any

from flask import Flask

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import recent_writes, shared_table
from kazoo_ips.repositories.accounts import account_database
from tests.simulation.cluster import Cluster, Delays
from tests.simulation.documents import Revision, Shard, Tree, new_rev
from tests.simulation.network import Network, RequestFaults
from tests.simulation.scheduler import Process, Scheduler, Task
from tests.simulation.standard_library import START_TIME, in_task, install, now, sleep, world

Trees = Mapping[str, Mapping[str, Tree]]

POOL = "dedicated_ips"
ACCOUNTS = ("X", "Y", "Z")
_SETTINGS = Settings(
    identity_cache=1e9,
    token_lifetime=10**9,
    login_limit=0,
    account_limit=0,
    client_limit=0,
    key_limit=0,
    read_timeout=5.0,
    connect_timeout=1.0,
)


_DRAINED = {"reason": "proxy goes", "at": int(START_TIME), "by": {}, "scope": "zone"}
_ZONES: dict[str, dict[str, Any]] = {
    "aging": {"aging_seconds": 10**7},
    "drained": {"drained": _DRAINED},
}
"""The settings of a zone, by the setting of a plan."""


@dataclass(frozen=True)
class Base:
    """Databases and accounts that all runs share.

    :param shards: the databases, without addresses
    :param ids: the account id of each name; `operator` is the operator
    :param tokens: a token of each name
    :param auth: the authentication service, which has all tokens in its cache
    """

    shards: Trees
    ids: Mapping[str, str]
    tokens: Mapping[str, str]
    auth: Any


@dataclass(frozen=True)
class Reply:
    """The reply to a client; the status is 0 if the connection was closed."""

    status: int
    data: Any = None
    message: str | None = None


@cache
def base() -> Base:
    """Let the service create databases, accounts and tokens on a cluster without faults."""
    install()
    logging.disable(logging.CRITICAL)
    scheduler = Scheduler(0)
    cluster = Cluster(scheduler, Delays(), {})
    network = Network(scheduler, cluster, RequestFaults())
    settings = replace(_SETTINGS, couchdb_url="http://user:password@node1:5984")

    def make() -> Base:
        composition.databases(settings).create()
        services = composition.build(settings, clock=now, pause=sleep)
        ids, tokens = {}, {}
        for name in ("operator", *ACCOUNTS):
            account = services.accounts.create(name, f"{name}.example.com", ids.get("operator"))
            ids[name] = account.id
            tokens[name] = services.auth.open_session(account).token
            services.auth.authenticate(tokens[name])
        return Base({}, ids, tokens, services.auth)

    with world(scheduler, network.connect, lambda pid: False):
        made: Base = in_task(scheduler, Process(1), make)
        scheduler.run_for(30)
    first, *others = cluster.nodes
    for other in others:
        assert _trees(first.shards) == _trees(other.shards)
    return replace(made, shards={name: shard.trees for name, shard in first.shards.items()})


def _trees(shards: Mapping[str, Shard]) -> Any:
    return {
        name: {i: sorted(tree.leaves) for i, tree in shard.trees.items()}
        for name, shard in shards.items()
    }


def pool_trees(
    owners: Mapping[str, str | None], limits: Mapping[str, int], setting: str = ""
) -> Trees:
    """Return the databases with these addresses in the pool, and the copies of assigned ones.

    :param owners: the account's name for each address, or None
    :param limits: the maximum number of addresses of each account that has a limit
    :param setting: of all zones, as in a plan
    """
    known = base()
    shards = {name: dict(trees) for name, trees in known.shards.items()}
    zone = _ZONES.get(setting)
    if zone:
        zones = {"zone1": zone, "zone2": zone}
        shards["kazoo_ips"]["place-settings"] = _first(
            {"type": "place_settings", "zones": zones, "hosts": {}, "write": "begin"}
        )
    drained = zone and zone.get("drained")
    for number, (address, owner) in enumerate(owners.items()):
        at = int(START_TIME) + GREGORIAN_EPOCH - 1000
        body = {
            "pvt_vsn": "1",
            "pvt_type": "dedicated_ip",
            "pvt_status": "assigned" if owner else "disabled" if drained else "available",
            **({"pvt_disabled": drained} if drained and not owner else {}),
            "pvt_zone": f"zone{number % 2 + 1}",
            "pvt_host": f"proxy{number % 3 + 1}.example.com",
            "pvt_created": at,
            "pvt_modified": at,
            "pvt_request_id": f"begin{number}",
            **({"pvt_assigned_to": known.ids[owner]} if owner else {}),
        }
        shards[POOL][address] = _first(body)
        if owner:
            shards[account_database(known.ids[owner])][address] = _first(body)
    if limits:
        listed = {"own": [known.ids[name] for name in limits], "descendants": []}
        shards["kazoo_ips"]["limits"] = _first({"type": "limits", **listed})
    for name, limit in limits.items():
        owned = [address for address, owner in owners.items() if owner == name]
        shards["kazoo_ips"][f"limit-{known.ids[name]}"] = _first(_ledger(limit, owned))
    return shards


def _ledger(limit: int, owned: Sequence[str]) -> dict[str, Any]:
    """Return the ledger of an account whose limit every process knows."""
    return {
        "type": "limit",
        "max": limit,
        "zones": {},
        "descendants_max": None,
        "since": 0,
        "settles": 0,
        "counted": 0,
        "own": {"zone1": list(owned)},
        "below": [],
        "claims": {},
        "writes": 1,
        "attempt": None,
    }


def _first(body: dict[str, Any]) -> Tree:
    tree = Tree()
    rev = new_rev(False, None, body)
    tree.merge([Revision(rev, None, False, body)])
    return tree


@cache
def application(slot: int) -> Flask:
    """Return the application of a worker. The first call for it takes random numbers."""
    base()  # replaces parts of the standard library, before anything is created with them
    return composition.create_app(_SETTINGS, clock=now, pause=sleep)


@cache
def _metrics() -> Metrics:
    return Metrics()


class Worker:
    """A worker of the service. After it was killed, `start` starts a new process in its place.

    :param slot: the number of the worker
    :param host: the host of CouchDB: a node, or a load balancer
    :param deaths_detectable: whether other workers can detect that it was killed
    """

    def __init__(
        self, scheduler: Scheduler, slot: int, host: str, deaths_detectable: bool
    ) -> None:
        self._scheduler = scheduler
        self._slot = slot
        self._settings = replace(_SETTINGS, couchdb_url=f"http://user:password@{host}:5984")
        self._lives = 0
        self.deaths_detectable = deaths_detectable
        self.process = Process(0)
        self.services: Instance
        self.start()

    def start(self) -> None:
        """Start a process of the service."""
        self._lives += 1
        self.process = Process(1000 * (self._slot + 1) + self._lives)
        self._application = application(self._slot)
        for memory in (shared_table.shared, recent_writes.shared):
            memory.cache_clear()  # each worker has its own shared memory, as on its own machine
        services = composition.build(self._settings, clock=now, pause=sleep, metrics=_metrics())
        self.services = replace(services, auth=base().auth)
        self._scheduler.spawn(self.process, self.services.background.start)

    def kill(self) -> None:
        """Kill the process."""
        self._scheduler.note(f"worker {self.process.pid} is killed")
        self._scheduler.kill(self.process)

    def request(
        self, name: str, method: str, path: str, data: Any, headers: Mapping[str, str]
    ) -> Reply:
        """Send a request from the current task, and wait for the reply.

        :param name: the owner of the token
        """
        body = b"" if data is None else json.dumps({"data": data}).encode()
        process, application = self.process, self._application
        if not process.alive:
            return Reply(0)
        environ = _environ(method, path, body, {"X-Auth-Token": base().tokens[name], **headers})
        replies: list[Reply] = []

        def serve() -> None:
            application.extensions["kazoo_ips"] = self.services
            replies.append(_called(application, environ))

        self._join(self._scheduler.spawn(process, serve))
        return replies[0] if replies else Reply(0)

    def do(self, work: Callable[[Instance], Any]) -> Any:
        """Run a function in the process and return its result; None if the process is killed."""
        process, services = self.process, self.services
        if not process.alive:
            return None
        return self._join(self._scheduler.spawn(process, lambda: work(services)))

    def _join(self, task: Task) -> Any:
        return self._scheduler.join(task)


def _called(application: Flask, environ: dict[str, Any]) -> Reply:
    status = 0

    def start_response(line: str, headers: Any, exc_info: Any = None) -> None:
        nonlocal status
        status = int(line[:3])

    parts = application(environ, start_response)
    body = b"".join(parts)
    close = getattr(parts, "close", None)
    if close:
        close()
    envelope = json.loads(body)
    return Reply(status, envelope["data"], envelope.get("message"))


def _environ(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.250",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": BytesIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
