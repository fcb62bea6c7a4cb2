"""The replies to concurrent random commands are linearizable, and each change is reported once."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import count
from threading import Barrier, Event, Lock

import pytest

from tests import strategies
from tests.stateful.commands import (
    HOSTS,
    SPELLINGS,
    ZONES,
    Assign,
    AssignMany,
    Client,
    Command,
    Create,
    Delete,
    Fetch,
    ListAssigned,
    ListAvailable,
    OfAccount,
    Release,
    ReleaseAll,
    ReleaseMany,
    canonical_form,
)
from tests.stateful.conftest import World
from tests.stateful.history import legal_order
from tests.stateful.model import Entry
from tests.stateful.observed import Exchange, events, is_final
from tests.stateful.subscribers import Timelines
from tests.stateful.timeline import AVAILABLE, Change, replay

THREADS = 4
CONTESTED = ["192.0.2.2", "2001:db8::1", "2001:db8::a"]
START = Entry(ZONES[0], HOSTS[0])
KINDS = {
    Assign: 6,
    Release: 5,
    AssignMany: 4,
    ReleaseMany: 3,
    ReleaseAll: 1,
    Fetch: 3,
    ListAvailable: 2,
    ListAssigned: 2,
    Create: 2,
    Delete: 2,
}
"""The relative frequency of each command."""

CHANGES: dict[type[Command], str] = {
    Create: "created",
    Delete: "deleted",
    Assign: "assigned",
    AssignMany: "assigned",
    Release: "released",
    ReleaseMany: "released",
    ReleaseAll: "released",
}
"""The kind of the events of each command."""
NUMBERS = count()
ONE_AFTER_THE_OTHER = Lock()


def some_command(chance: random.Random) -> Command:
    """Return a random command on the contested addresses."""
    [kind] = chance.choices(list(KINDS), list(KINDS.values()))
    account = chance.choice(["alice", "bob"])
    by = chance.choice([account, account, "operator"])
    address = chance.choice(SPELLINGS[chance.choice(CONTESTED)])
    if kind is Create:
        return Create("operator", address, chance.choice(ZONES), chance.choice(HOSTS))
    if kind is Delete:
        return Delete("operator", address, chance.random() < 0.7)
    if kind in (AssignMany, ReleaseMany):
        several = chance.sample(CONTESTED, chance.choice([2, 2, 3]))
        return kind(by, account, tuple(chance.choice(SPELLINGS[a]) for a in several))
    if kind in (ReleaseAll, ListAvailable, ListAssigned):
        return kind(by, account)
    return kind(by, account, address)


def send(client: Client, command: Command) -> Exchange:
    """Send a command.

    An addition continues the trail of the tombstone that it has read. If other clients add and
    delete the address before the addition is written, only their tombstone has these events. The
    embedded database compacts at once, so the archiver would not find them there.
    """
    adds = isinstance(command, (Create, Delete)) and not os.environ.get("COUCHDB_URL")
    with ONE_AFTER_THE_OTHER if adds else nullcontext():
        began = time.monotonic()
        reply = client.send(command)
        return Exchange(next(NUMBERS), command, reply, began, time.monotonic())


def run(world: World, seed: int, each: int) -> list[Exchange]:
    """Send random commands from several threads, and return the exchanges."""
    start = Barrier(THREADS)

    def send_commands(thread: int) -> list[Exchange]:
        chance = random.Random(f"{seed}-{thread}")
        client = world.client()
        exchanges = []
        start.wait(30)
        for _ in range(each):
            exchanges.append(send(client, some_command(chance)))
        return exchanges

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(send_commands, thread) for thread in range(THREADS)]
        return [exchange for future in futures for exchange in future.result()]


def in_the_pool(world: World) -> dict[str, Entry]:
    """Return the entry of each address according to the documents."""
    names = {account_id: name for name, account_id in world.ids.items()}
    return {
        address: Entry(d["pvt_zone"], d["pvt_host"], names.get(d.get("pvt_assigned_to")))
        for address, d in world.documents(world.pool).items()
    }


@contextmanager
def archiving(world: World) -> Iterator[None]:
    """Let one archiver after the other archive all the time, until the end of the `with`."""
    is_over = Event()

    def archive() -> None:
        while not is_over.is_set():
            world.archive.run()
            world.archive.restart()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(archive)
        try:
            yield
        finally:
            is_over.set()
            running.result()


def acknowledged(
    exchanges: Iterable[Exchange], ids: dict[str, str]
) -> Counter[tuple[str, Change]]:
    """Return how often each address was changed in each way, according to the replies."""
    found: Counter[tuple[str, Change]] = Counter()
    for exchange in exchanges:
        command, data = exchange.command, exchange.reply.data
        kind = CHANGES.get(type(command))
        if kind and exchange.reply.code in (200, 201):
            account_id = ids[command.account] if isinstance(command, OfAccount) else None
            for line in data.get("ips", [data]):
                address = canonical_form(line if isinstance(line, str) else line["ip"])
                found[address, (kind, account_id)] += 1
    return found


def check_events(
    timelines: Timelines, exchanges: list[Exchange], pool: dict[str, Entry], ids: dict[str, str]
) -> None:
    """Check that the archive has each acknowledged change once, in a possible order."""
    ends = {address: replay(changes) for address, changes in timelines.items()}
    owners = {a: ids[e.owner] if e.owner else AVAILABLE for a, e in pool.items()}
    assert {address: end for address, end in ends.items() if end} == owners
    archived = Counter((address, each) for address, made in timelines.items() for each in made)
    expected = acknowledged(exchanges, ids)
    assert not expected - archived
    further = archived - expected
    # The deletion of an assigned address releases it first, and its reply does not say so.
    assert {kind for _, (kind, _) in further} <= {"released"}
    forced = [e for e in exchanges if isinstance(e.command, Delete) and e.command.force]
    assert further.total() <= len([e for e in forced if e.reply.code == 200])


@pytest.mark.parametrize("seed", range(3 * strategies.FACTOR))
def test_concurrent_replies_have_a_legal_order(world: World, seed: int) -> None:
    world.archive.skip()
    with world.subscribed() as subscribers:
        created = [
            send(world.client(), Create("operator", address, START.zone, START.host))
            for address in CONTESTED
        ]
        with archiving(world):
            exchanges = run(world, seed, each=25)
        check_order(world, exchanges)
        world.archive.run()
        timelines = world.archive.timelines()
        check_events(timelines, [*created, *exchanges], in_the_pool(world), world.ids)
        subscribers.check(timelines)


def check_order(world: World, exchanges: list[Exchange]) -> None:
    """Check that there is an order of the requests that explains all replies."""
    assert {e.reply.code for e in exchanges} <= {200, 201, 400, 404, 409}
    assert len({e.reply.code for e in exchanges}) > 2, (
        "the replies show no conflict between requests"
    )
    pool = in_the_pool(world)
    for address in CONTESTED:
        history = events(exchanges, address, world.ids)
        end = pool.get(address)
        order = legal_order(history, START, lambda state, end=end: is_final(state, end))
        by_begin = sorted(history, key=lambda event: event.began)
        assert order, "\n".join(f"{e.began:.4f} {e.ended:.4f} {e.label}" for e in by_begin)
    world.background()  # removes copies that were written after a release
    assert copies(world) == {(a, e.owner) for a, e in pool.items() if e.owner}


def copies(world: World) -> set[tuple[str, str]]:
    """Return the copies in the accounts' databases, as pairs of an address and an account."""
    return {(a, name) for name, db in world.copies.items() for a in world.documents(db)}
