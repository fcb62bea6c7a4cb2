"""Rows about the history: who had an address at a time, and the history of an account."""

import time
from collections.abc import Callable, Iterator, Mapping

from bench import BenchError, measure
from bench.context import Bench
from bench.measure import Leg, Spread
from bench.row import Goal, Row, loads
from bench.world import World, addresses, host, tombstone, zone
from bench.wrk import Load, Plan, Request
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.addresses import sort_key
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, State
from kazoo_ips.repositories.history_documents import to_document
from kazoo_ips.repositories.history_years import DESIGN_DOCS, database_name, year

_EACH = 10
"""Events of each address: its creation, and then assignments and releases in turn."""
_STEP = 3600
"""Seconds between two events of an address."""
_WINDOW = 20
"""Rows that the service reads for a question about one address."""
_PAGE = 50
_ARCHIVED, _SETTLED = 900, 10
"""Seconds in which the service has to archive a pool, and seconds without a new event after which
the pool counts as archived."""
_NOW = int(time.time()) + GREGORIAN_EPOCH
_CHUNK = 5000
_REQUESTED = range(100, 600)
"""The numbers of the addresses in the requests."""
MakePlan = Callable[[World], Plan]


def at(bench: Bench) -> Iterator[Row]:
    """Who had an address at a time: until it was released, or until now."""
    path = "`GET /v2/ips/{ip}/history?at=`"
    yield from _rows(bench, "history_at", path, _at, _view_of_addresses)
    world = _world(bench, bench.options.sizes[-1])
    yield _against_view(
        bench, "history_at", f"{path}, who has it still", world, _at_present, _view_of_addresses
    )


def account(bench: Bench) -> Iterator[Row]:
    """The first page of the history of an account."""
    path = "`GET …/ips/history`, one page"
    return _rows(bench, "history_account", path, _account, _view_of_account)


def _rows(bench: Bench, name: str, what: str, service: MakePlan, view: MakePlan) -> Iterator[Row]:
    large = _world(bench, bench.options.sizes[-1])
    bench.as_service(large)
    connections = bench.options.connections[0]
    yield _against_view(bench, name, what, large, service, view)
    if len(bench.options.sizes) > 1:
        small = _world(bench, bench.options.sizes[0])
        worlds = {f"{_EACH * each.size:,} events": each for each in (large, small)}
        legs = [Leg(text, service(world)) for text, world in worlds.items()]
        measured = measure.alternate(
            legs, bench.options.rounds, bench.options.seconds, connections
        )
        yield _row(name, f"{what}, p50 at {legs[0].name}", f"at {legs[1].name}", 1.3, measured)


def _against_view(  # noqa: PLR0913, PLR0917 - what a row consists of
    bench: Bench, name: str, what: str, world: World, service: MakePlan, view: MakePlan
) -> Row:
    connections = bench.options.connections[0]
    legs = [Leg("service", service(world)), Leg("view", view(world))]
    measured = measure.alternate(legs, bench.options.rounds, bench.options.seconds, connections)
    return _row(name, f"{what}, {connections} connections, p50", "a bare view read", 2, measured)


def _row(
    name: str, what: str, against: str, most: float, measured: Mapping[str, list[Load]]
) -> Row:
    first, second = measured
    times = ", ".join(
        f"{leg} {Spread.of(load.p50_ms for load in each).median:.2f} ms"
        for leg, each in measured.items()
    )
    value = measure.ratio(measured, first, second, lambda load: load.p50_ms)
    return Row(name, what, against, Goal(at_most=most), value, f"p50 {times}", loads(measured))


# Requests.


def _at(world: World) -> Plan:
    return _at_time(world, _start() + 4 * _STEP)


def _at_present(world: World) -> Plan:
    return _at_time(world, _NOW)


def _at_time(world: World, then: int) -> Plan:
    requested = addresses(number for number in _REQUESTED if number < world.size)
    requests = [Request("GET", f"/v2/ips/{ip}/history?at={then}") for ip in requested]
    return world.plan(requests, world.operator)


def _view_of_addresses(world: World) -> Plan:
    history = world.couch.database(database_name(year(_start())))
    keys = [sort_key(ip) for ip in addresses(n for n in _REQUESTED if n < world.size)]
    return world.couch.plan(
        history.view(
            "history", "by_address", startkey=[key, {}], endkey=[key], descending=True,
            limit=_WINDOW, buffer_response=True,
        )
        for key in keys
    )  # fmt: skip


def _account(world: World) -> Plan:
    return world.plan([Request("GET", f"{world.measured.ips}/history")])


def _view_of_account(world: World) -> Plan:
    history = world.couch.database(database_name(year(_start())))
    owner = world.measured.account.id
    view = history.view(
        "history", "by_account", startkey=[owner, {}], endkey=[owner], descending=True,
        limit=2 * _PAGE + 2, buffer_response=True,
    )  # fmt: skip
    return world.couch.plan([view])


# Data.


def _world(bench: Bench, size: int) -> World:
    """Return a pool of a size whose history has `_EACH` events of each address.

    Its first hundred addresses belonged to the measured account, so that account has the same
    number of events in pools of all sizes.
    """
    world = bench.world(size)
    if "history" not in world.seconds:
        _load(world)
        _wait_for_archiver(world)
    return world


def _wait_for_archiver(world: World) -> None:
    """Wait until the service has archived the pool, whose documents were written directly.

    :raises BenchError: it takes longer than `_ARCHIVED` seconds
    """
    database = world.couch.database(database_name(year(_start())))
    world.service  # noqa: B018 - the first use starts it
    end, count, since = time.monotonic() + _ARCHIVED, 0, time.monotonic()
    while time.monotonic() < end:
        now = int(world.couch.send("GET", database.path)["doc_count"])
        if now != count:
            count, since = now, time.monotonic()
        if count > world.size * _EACH + world.size // 2 and time.monotonic() - since > _SETTLED:
            return
        time.sleep(1)
    raise BenchError(f"the archiver has {count} events of {world.size} addresses")


def _start() -> int:
    """Return the time of the first event: some hours ago, and the same in the whole run."""
    return _NOW - _EACH * _STEP - _STEP


def _load(world: World) -> None:
    database = world.couch.database(database_name(year(_start())))
    # Without the function that validates each document, and without indexing each batch.
    designs = [f"_design/{name}" for name in DESIGN_DOCS]
    existing = database.fetch(designs)
    database.load([tombstone(document) for document in existing.values()])
    chunk = []
    for number, ip in enumerate(addresses(range(world.size))):
        owner = world.measured.account.id if number < 100 else f"{number % 997:032x}"
        chunk += [to_document(event) for event in _events(number, ip, owner, _start())]
        if len(chunk) >= _CHUNK:
            database.load(chunk)
            chunk.clear()
    database.load(chunk)
    for document in existing.values():
        database.load([{name: value for name, value in document.items() if name != "_rev"}])
    database.resolve(["history"])
    world.couch.wait_until_idle()
    world.seconds["history"] = 0.0


def _events(number: int, ip: str, owner: str, start: int) -> Iterator[HistoryEvent]:
    free = State("available", None, zone(number), host(number))
    taken = State("assigned", owner, zone(number), host(number))
    before: State | None = None
    for n in range(_EACH):
        after = taken if n % 2 else free
        kind = HistoryEventKind.ASSIGNED if n % 2 else HistoryEventKind.RELEASED
        yield HistoryEvent(
            f"{n + 1:08d}.0-{number:016x}", ip, HistoryEventKind.CREATED if n == 0 else kind,
            start + n * _STEP + number % _STEP, owner if n else None, before, after,
            Author(owner, owner), f"{number:032x}", revision=f"{n + 1}-{number:032x}",
        )  # fmt: skip
        before = after
