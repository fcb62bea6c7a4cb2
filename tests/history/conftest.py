"""A pool with a clock of its own, and the events of its addresses in the archive."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIP, CreateIP, DedicatedIP, DeleteIP, ReleaseIP
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.history_documents import from_document, id_prefix
from tests.timing import await_replicas

IP = "192.0.2.1"
START = 1_800_000_000.0
"""The time at the beginning of each test, in Unix seconds."""


@dataclass
class World:
    """Databases of one test, a process that uses them, and its clock."""

    settings: Settings
    couch: Couch
    services: Instance
    clock: list[float] = field(default_factory=lambda: [START])
    account_id: str = ""
    other_id: str = ""

    @property
    def pool(self) -> Database:
        """The pool's database."""
        return self.couch.database("dedicated_ips")

    def process(self) -> Instance:
        """Return the services of another process."""
        return composition.build(
            self.settings, clock=lambda: self.clock[0], pause=lambda seconds: None
        )

    def create(self, address: str = IP) -> DedicatedIP:
        """Add an address."""
        made = self.services.pool.create(CreateIP(address, "z", "h"), uuid4().hex)
        await_replicas(self.pool)
        return made

    def assign(self, address: str = IP, account_id: str = "", request_id: str = "") -> DedicatedIP:
        """Assign it."""
        command = AssignIP(account_id or self.account_id, address)
        return self.services.ips.assign(command, request_id or uuid4().hex)

    def release(self, address: str = IP, request_id: str = "") -> DedicatedIP:
        """Release it, as the operator."""
        return self.services.ips.release(ReleaseIP(None, address), request_id or uuid4().hex)

    def delete(self, address: str = IP, *, force: bool = False) -> DedicatedIP:
        """Delete it."""
        return self.services.pool.delete(DeleteIP(address, force), uuid4().hex)

    def write(self, address: str = IP, **fields: Any) -> str:
        """Write a document as another program does, which keeps unknown fields."""
        document = self.pool.get(address)
        changed = {**document, **{f"pvt_{name}": value for name, value in fields.items()}}
        kept = {name: value for name, value in changed.items() if value is not None}
        return str(self.pool.put(kept).revision)

    def archive(self, services: Instance | None = None, seconds: int = 6) -> None:
        """Let the archiver of a process archive the changes of these seconds."""
        for _ in range(seconds):
            await_replicas(self.pool)
            (services or self.services).background.archive()
            self.clock[0] += 1
        await_replicas(self.pool)

    def documents(self, address: str = IP) -> list[dict[str, Any]]:
        """Return the documents of the archive about an address, in the order of their ids."""
        prefix = id_prefix(address)
        found = []
        for name in self.couch.databases():
            if name.startswith("kazoo_ips_history_"):
                found += self.couch.database(name).range(prefix, f"{prefix}\uffff")
        return sorted(found, key=lambda document: str(document["_id"]))

    def events(self, address: str = IP) -> list[HistoryEvent]:
        """Return the events of an address that are in effect."""
        events = [from_document(document) for document in self.documents(address)]
        retracted = {event.retracts for event in events}
        return [e for e in events if e.id not in retracted and not e.retracts]

    def kinds(self, address: str = IP) -> list[str]:
        """Return the kinds of the events of an address."""
        return [str(event.event) for event in self.events(address)]


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """A world with two accounts and an empty pool."""
    prefix = f"{settings.prefix}{uuid4().hex[:6]}-"
    own = replace(settings.as_administrator(), prefix=prefix)
    databases = composition.databases(own)
    databases.create()
    clock = [START]
    couch = composition.connect(own)
    services = composition.build(own, clock=lambda: clock[0], pause=lambda seconds: None)
    made = World(own, couch, services, clock)
    operator = services.accounts.create("Operator", f"{prefix}operator.example.com")
    for name in ("alice", "bob"):
        account = services.accounts.create(name, f"{prefix}{name}.example.com", operator.id)
        made.account_id, made.other_id = made.other_id, account.id
    yield made
    databases.delete()


@pytest.fixture
def make_process(world: World) -> Callable[[], Instance]:
    """A function that returns the services of another process."""
    return world.process
