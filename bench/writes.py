"""Rows about writes of one address, and logins.

Each write changes a document. Before every run the documents of the addresses are reset. Direct
writes go to databases of their own with the same content, design document and revisions.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

from bench import measure
from bench.context import Bench, fetch
from bench.couch import shown
from bench.counting import Counted
from bench.measure import Leg, Spread
from bench.reads import KAZOO_RAW
from bench.row import Goal, Row, loads, rates
from bench.scratch import Scratch
from bench.world import PASSWORD, addresses, host, tombstone, zone
from bench.wrk import Plan, Request

# One address.


def assign(bench: Bench) -> list[Row]:
    """Assign one address: its document is read, then the document and a new copy are written."""
    return _one(bench, "assign", "POST", ["document", "write", "new copy"])


def release(bench: Bench) -> list[Row]:
    """Release one address: document and copy are read, then written and deleted."""
    return _one(bench, "release", "DELETE", ["document", "write", "copy", "deletion"])


def _one(bench: Bench, name: str, method: str, parts: Sequence[str]) -> list[Row]:
    world = bench.writes
    bench.as_service(world)
    assigning, numbers = method == "POST", _enough(bench)
    ours, scratch = world.measured, Scratch(world)
    many = range(4000 * bench.options.seconds)  # documents for the direct writes

    def service() -> Plan:
        world.give(numbers, None if assigning else ours)
        return world.plan([ours.single(method, a) for a in addresses(numbers)])

    def write() -> Plan:
        stored = scratch.stored(many, assigned=not assigning)
        changed = scratch.changed(stored, assigned=assigning)
        return world.couch.plan(map(scratch.pool.write, changed), once=True)

    def copy() -> Plan:
        copies = scratch.some(many, assigned=True)
        if not assigning:
            copies = [tombstone(each) for each in scratch.account.load(copies)]
        return world.couch.plan(map(scratch.account.write, copies), once=True)

    plans: dict[str, Plan | Callable[[], Plan]] = {
        "document": world.couch.plan(world.raw_details()),
        "write": write,
        "copy": world.couch.plan([world.copies.read(a) for a in addresses(range(100))]),
        "new copy": copy,
        "deletion": copy,
    }
    reply = fetch(world.plan(world.details(range(100, 101))))
    legs = [
        Leg("service", service),
        Leg("bare", bench.bare_reply(name, reply, method)),
        *(Leg(part, plans[part]) for part in parts),
    ]
    measured = measure.alternate(
        legs,
        bench.options.rounds,
        bench.options.seconds,
        bench.options.connections[0],
        world.wait_for_archiver,
    )
    counted = _count(bench, numbers[:3], method)
    sent = [shown(line) for line in counted[0].sent]
    what = f"`{method} …/ips/{{ip}}`"
    return [
        Row(
            name,
            f"{what}, {bench.options.connections[0]} connections",
            f"L with {len(parts) - 2} read{'s'[: len(parts) - 3]} and two writes",
            Goal(at_least=0.70),
            measure.share_of_limit(measured, "service", "bare", parts),
            rates(measured),
            loads(measured),
        ),
        Row(
            name,
            f"{what}, CouchDB requests",
            "counted at the database",
            Goal(at_most=4),
            Spread.of(len(each.sent) for each in counted),
            "",
            {"sent": sent},
        ),
    ]


def _enough(bench: Bench) -> list[int]:
    """Return enough available addresses for one run of the service."""
    return bench.writes.available(min(8000, 1500 * bench.options.seconds + 100))


def _count(bench: Bench, numbers: Sequence[int], method: str) -> list[Counted]:
    world = bench.writes
    world.give(numbers, None if method == "POST" else world.measured)
    warm = world.plan(world.details(range(100, 101)))
    requests = [world.measured.single(method, a) for a in addresses(numbers)]
    return [bench.counting(world).count(warm, request) for request in requests]


# One after the other, compared with Kazoo's own figures.

_KAZOO_MS = {"assign": 184, "release": 147, "create": 21, "user_auth": 39}


def one_after_the_other(bench: Bench) -> list[Row]:
    """Writes and logins of one client: p50."""
    world, empty = bench.writes, bench.empty
    bench.as_service(world)
    next_number = iter(range(80_000, 130_000, 3000))

    numbers, ours = _enough(bench), world.measured

    def assigned() -> Plan:
        world.give(numbers, None)
        return world.plan([ours.single("POST", a) for a in addresses(numbers)])

    def released() -> Plan:
        world.give(numbers, ours)
        return world.plan([ours.single("DELETE", a) for a in addresses(numbers)])

    def created() -> Plan:
        start = next(next_number)
        bodies = [
            {"data": {"ip": addresses([n])[0], "zone": zone(n), "host": host(n)}}
            for n in range(start, start + 3000)
        ]
        return empty.plan(
            [Request("PUT", "/v2/ips", json.dumps(body)) for body in bodies], empty.operator
        )

    login = {
        "credentials": hashlib.md5(
            f"admin:{PASSWORD}".encode(), usedforsecurity=False
        ).hexdigest(),
        "realm": world.operator.account.realm,
    }
    authenticated = Plan(
        world.service.url,
        (Request("PUT", "/v2/user_auth", json.dumps({"data": login})),),
        {"Content-Type": "application/json"},
    )
    legs = [
        Leg("assign", assigned),
        Leg("release", released),
        Leg("create", created),
        Leg("user_auth", authenticated),
    ]
    scale = bench.scale(world)
    if scale:
        legs.append(Leg("document", scale))
    measured = measure.alternate(
        legs, bench.options.rounds, bench.options.seconds, 1, world.wait_for_archiver
    )
    rows = []
    for name, published in _KAZOO_MS.items():
        value = None
        if scale:
            # Kazoo's time on a machine whose CouchDB reads documents as fast as that of this one.
            pairs = zip(measured[name], measured["document"], strict=True)
            value = Spread.of(
                published * KAZOO_RAW[1] / document.rate / own.p50_ms for own, document in pairs
            )
        p50 = Spread.of(own.p50_ms for own in measured[name]).median
        rows.append(
            Row(
                "sequential",
                f"{name}, one after the other, times faster (p50)",
                "Kazoo's, scaled by raw reads",
                Goal(at_least=2.5),
                value,
                f"p50 {p50:.1f} ms; Kazoo {published} ms",
                loads({each: measured[each] for each in (name, "document") if each in measured}),
            )
        )
    return rows
