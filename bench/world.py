"""A world: a pool of a given size with accounts, and a service on it.

There are ten zones and a hundred hosts. Address number `n` is in zone `n % 10` on host `n % 100`,
so each hundred consecutive addresses have one address on every host. The first hundred are
assigned to the measured account. Of every thousand addresses, the last hundred are assigned to
other accounts. The others are available. The addresses are those reserved for benchmarks
(198.18.0.0/15, RFC 2544). In a larger pool those after them are of 2001:db8::/32 (RFC 3849).
"""

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from bench import BenchError, kazoo_views
from bench.couch import Couch, Database, Document
from bench.servers import Gunicorn
from bench.wrk import Plan, Request
from kazoo_ips import app
from kazoo_ips.background.change_follower import LEASE, RENEW
from kazoo_ips.config import Settings
from kazoo_ips.model import GREGORIAN_EPOCH, Account, User
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.documents import POOL
from kazoo_ips.repositories.records import Records

OURS = ("ips",)
"""The design documents of the pool in `couch_views`."""

PASSWORD = "measured"
_NEIGHBOURS = 5
_ARCHIVED = 3600
"""Maximum number of seconds to wait for the archiver."""
_MOST_ARCHIVED = 100_000
"""Number of addresses of the largest pool that is archived. The two events of each of a million
addresses would take an hour."""
_LEASE_HELD = 7200
"""Seconds for which the benchmark holds the lease of the archiver."""
_LEASE_LOST = LEASE - RENEW + 3
"""Seconds after which a worker notices that it has lost its lease, when it renews the lease."""
_FIRST = ipaddress.ip_address("198.18.0.0")
_FIRST_IPV6 = ipaddress.ip_address("2001:db8::")
_IPV4 = 131_072
"""The number of IPv4 addresses that are reserved for benchmarks."""


@dataclass(frozen=True)
class Member:
    """An account with its user and a token."""

    account: Account
    user: User
    token: str

    @property
    def ips(self) -> str:
        """The path of its addresses."""
        return f"/v2/accounts/{self.account.id}/ips"

    def single(self, method: str, address: str) -> Request:
        """Return a request for one address."""
        return Request(method, f"{self.ips}/{address}")


class World:
    """A pool in databases of its own, and a gunicorn that serves it.

    :param settings: the settings of the service, with a unique prefix
    :param size: the number of addresses in the pool
    :param change: changes the documents before they are written for the first time
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        change: Callable[[list[Document]], None] | None = None,
    ) -> None:
        self.size = size
        self._change = change
        self.settings = replace(settings, token_lifetime=86_400)
        self.couch = Couch(settings.couchdb_url, settings.prefix)
        self.pool = self.couch.database(POOL)
        self.seconds: dict[str, float] = {}
        """The seconds that the first build of a design document took: `ours` and `kazoo`."""
        self._running = ExitStack()
        self._load()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a service on this pool. Other settings have their defaults.

        The rate limits are counted, and are too high to be reached.
        """
        return {
            "COUCHDB_URL": self.settings.couchdb_url,
            "KAZOO_IPS_PREFIX": self.settings.prefix,
            "KAZOO_IPS_ACCOUNT_LIMIT": "1000000",
            "KAZOO_IPS_CLIENT_LIMIT": "1000000",
        }

    @cached_property
    def service(self) -> Gunicorn:
        """The service. The first use starts it, and waits until it has archived a smaller pool."""
        started = self._running.enter_context(Gunicorn(self.environment))
        if self.size > _MOST_ARCHIVED:
            self._running.enter_context(self.without_archiver())
        else:
            self.wait_for_archiver(by_another=True)
        started.wait_until_idle()
        self.couch.wait_until_idle()
        return started

    @property
    def is_serving(self) -> bool:
        """Whether the service was started."""
        return "service" in self.__dict__

    @cached_property
    def kazoo(self) -> Database:
        """The pool, after Kazoo's views were built."""
        self.seconds["kazoo"] = self.pool.build(kazoo_views.DESIGN)
        self.couch.wait_until_idle()
        return self.pool

    @property
    def copies(self) -> Database:
        """The database of the measured account."""
        return self.couch.database(account_database(self.measured.account.id))

    def available(self, count: int, start: int = 1000) -> list[int]:
        """Return numbers of addresses that are available at the start, in ascending order.

        :param start: the lowest number
        """
        numbers = (n for n in range(start, self.size) if n // 100 % 10 != 9)
        return list(islice(numbers, count))

    def wait_for_archiver(self, *, by_another: bool = False) -> None:
        """Wait until the running service has archived all changes of the pool so far.

        :param by_another: whether another gunicorn than `service` serves the pool
        :raises BenchError: it takes longer than `_ARCHIVED` seconds
        """
        if (not self.is_serving and not by_another) or self.size > _MOST_ARCHIVED:
            return
        since, end = gregorian_now(), time.monotonic() + _ARCHIVED
        last = _number(self.couch.send("GET", self.pool.path)["update_seq"])
        while time.monotonic() < end:
            checkpoint = self.checkpoints.find(app.ARCHIVER)
            # A checkpoint is stored only from time to time while nothing changes.
            if checkpoint and (
                _number(checkpoint.since) >= last or (checkpoint.covered or 0) > since
            ):
                return
            time.sleep(0.5)
        raise BenchError(f"the archiver has not read all changes after {_ARCHIVED} s")

    @contextmanager
    def without_archiver(self) -> Iterator[None]:
        """Hold the lease of the archiver, so that no worker archives."""
        held = None
        while held is None:
            stored = self.checkpoints.find(app.ARCHIVER)
            if stored is None:  # no worker has started yet
                time.sleep(1)
                continue
            until = gregorian_now() + _LEASE_HELD
            held = self.checkpoints.put(replace(stored, holder=liveness.identity(), until=until))
        time.sleep(_LEASE_LOST)
        try:
            yield
        finally:
            self.checkpoints.put(replace(held, until=0))

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the service's followers."""
        return Checkpoints(Records(app.connect(self.settings)))

    def close(self) -> None:
        """Stop the service. The databases are deleted at the end of the run."""
        self._running.close()

    # Requests.

    def plan(self, requests: Sequence[Request], member: "Member | None" = None) -> Plan:
        """Return a plan of requests to the service with a member's token. Writes are sent once."""
        once = any(request.method != "GET" for request in requests)
        headers = {"X-Auth-Token": (member or self.measured).token}
        headers |= {"Content-Type": "application/json"}
        return Plan(self.service.url, tuple(requests), headers, once)

    def details(self, numbers: Iterable[int] = range(100, 600)) -> list[Request]:
        """Reads of some addresses by the measured account."""
        return [self.measured.single("GET", a) for a in addresses(numbers)]

    def raw_details(self, numbers: Iterable[int] = range(100, 600)) -> list[Request]:
        """The same documents, read directly."""
        return [self.pool.read(a) for a in addresses(numbers)]

    # Data.

    def _load(self) -> None:
        app.databases(self.settings).create()
        services = app.build(self.settings)
        self.operator = self._member(services, "Operator")
        self.measured = self._member(services, "Measured")
        neighbours = [self._member(services, f"Neighbour {n}") for n in range(_NEIGHBOURS)]
        self._owners = [_owner(n, self.measured, neighbours) for n in range(self.size)]
        # The documents are written first, so that the first build of an index has all of them.
        self.pool.delete()
        self.pool.create()
        documents = self.documents()
        self.pool.load(documents)
        for owner in set(self._owners) - {None}:
            copies = [d for d in documents if d.get("pvt_assigned_to") == owner]
            self.couch.database(account_database(owner or "")).load(copies)
        self.couch.wait_until_idle()
        self.seconds["ours"] = sum(self.pool.build(self.couch.design(name)) for name in OURS)
        self.couch.wait_until_idle()

    def documents(self) -> list[Document]:
        """Return the documents of the pool as they are at the start."""
        made = [document(n, owner) for n, owner in enumerate(self._owners)]
        if self._change:
            self._change(made)
        return made

    def _member(self, services: Any, name: str) -> Member:
        realm = f"{name.lower().replace(' ', '-')}.example.com"
        account = services.accounts.create(name, realm)
        user = services.accounts.create_user(account.id, "admin", PASSWORD)
        return Member(account, user, services.auth.open_session(account, user).token)

    def give(self, numbers: Sequence[int], member: Member | None) -> None:
        """Assign these addresses to a member, or release them (None), in the pool and the copies.

        The documents are written directly. So far each address is available, or assigned to the
        measured account.
        """
        names = addresses(numbers)
        owner = member.account.id if member else None

        def of_pool() -> list[Document]:
            existing = self.pool.fetch(names)
            return [
                {**document(n, owner), "_rev": existing[a]["_rev"]}
                for n, a in zip(numbers, names, strict=True)
                if existing[a].get("pvt_assigned_to") != owner
            ]

        def of_copies() -> list[Document]:
            copies = self.copies.fetch(names)
            if owner is None:
                return [tombstone(copy) for copy in copies.values()]
            return [
                {**d, **_revision(copies.get(i))}
                for i, d in changed.items()
                if copies.get(i, {}).get("pvt_modified") != d["pvt_modified"]
            ]

        written = self._load_again(self.pool, of_pool)
        changed = {d["_id"]: {k: v for k, v in d.items() if k != "_rev"} for d in written}
        if changed:
            self.pool.resolve(OURS)
        self._load_again(self.copies, of_copies)

    @staticmethod
    def _load_again(database: Database, wanted: Callable[[], list[Document]]) -> list[Document]:
        """Write documents until all are written; return those that were.

        The service may still write some of them: it ends its requests after wrk has left.

        :param wanted: returns the documents to write, at their present revisions
        :raises BenchError: another client changes some of them all the time
        """
        written: dict[str, Document] = {}
        for pause in (1, 2, 5, None):
            documents = wanted()
            written |= {each["_id"]: each for each in documents}
            try:
                database.load(documents)
                break
            except BenchError:
                if pause is None:
                    raise
                time.sleep(pause)
        return list(written.values())


def _number(sequence: str | int) -> int:
    """Return the number of a sequence of a changes feed. CouchDB's sequences begin with it."""
    return int(str(sequence).split("-")[0] or 0)


def gregorian_now() -> int:
    """Return the time in Gregorian seconds."""
    return int(time.time()) + GREGORIAN_EPOCH


def addresses(numbers: Iterable[int]) -> list[str]:
    """Return the addresses of these numbers."""
    return [_address(n) for n in numbers]


def _address(number: int) -> str:
    return str(_FIRST + number if number < _IPV4 else _FIRST_IPV6 + number)


def zone(number: int) -> str:
    """Return the zone of the address of a number."""
    return f"zone-{number % 10}"


def host(number: int) -> str:
    """Return the host of the address of a number."""
    return f"proxy{number % 100:02}.{zone(number)}.example.com"


def document(number: int, owner: str | None) -> Document:
    """Return the document of an address, as the service writes it.

    :param owner: the id of its account; None if it is available
    """
    now = gregorian_now()
    made = {
        "_id": _address(number),
        "pvt_vsn": "1",
        "pvt_type": "dedicated_ip",
        "pvt_status": "assigned" if owner else "available",
        "pvt_zone": zone(number),
        "pvt_host": host(number),
        "pvt_created": now,
        "pvt_modified": now,
        "pvt_request_id": f"{number:032x}",
    }
    return {**made, "pvt_assigned_to": owner} if owner else made


def tombstone(existing: Document) -> Document:
    """Return the tombstone that deletes a document."""
    return {"_id": existing["_id"], "_rev": existing["_rev"], "_deleted": True}


def _owner(number: int, measured: Member, neighbours: Sequence[Member]) -> str | None:
    """Return the id of the account that has an address at the start; None if none has it."""
    if number < 100:
        return measured.account.id
    if number // 100 % 10 == 9:
        return neighbours[number // 1000 % len(neighbours)].account.id
    return None


def _revision(existing: Document | None) -> dict[str, str]:
    return {"_rev": existing["_rev"]} if existing else {}
