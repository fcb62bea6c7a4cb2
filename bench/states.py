"""Rows about the states of addresses and about limits."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from uuid import uuid4

from bench import measure
from bench.context import Bench
from bench.couch import Document, shown
from bench.measure import Leg, Spread
from bench.row import Goal, Row, loads, times
from bench.world import OURS, World, addresses, gregorian_now, zone
from bench.wrk import Plan, Request
from kazoo_ips import app
from kazoo_ips.model.limits import Limits
from kazoo_ips.services.assigning.limits import REFRESH, SETTLE

_ZONE = zone(3)
_ONE = {"quantity": 1, "zone": _ZONE}
_REST = 86_400


def held_back(bench: Bench) -> Iterator[Row]:
    """Choose an address of a zone while 90 % of the available ones rest or are disabled."""
    legs = []
    for size in dict.fromkeys((bench.options.sizes[-1], bench.middle.size)):
        world = bench.world_of_its_own("held", size, _hold_back)
        # The service archives the addresses first, which would slow the other requests.
        _ = world.service
        world.wait_for_archiver()
        legs.append(Leg(f"{size:,}, held back", _choices(bench, world, _ONE)))
    legs.append(Leg("none held back", _choices(bench, bench.middle, _ONE)))
    measured = measure.alternate(
        legs, bench.options.rounds, bench.options.seconds, bench.options.connections[0]
    )
    what = "allocation by zone as a dry run, p50 while 90 % rest or are disabled"
    for above, below in pairwise(legs):
        yield Row(
            "held_back",
            f"{what}: {above.name}",
            below.name,
            Goal(at_most=1.3),
            measure.ratio(measured, above.name, below.name, lambda load: load.p50_ms),
            times(measured),
            loads(measured),
        )


def spread(bench: Bench) -> Iterator[Row]:
    """Choose addresses of different hosts, or zones, in the largest pool and in the middle one.

    The largest pool is measured twice: with a hundred hosts, and with as many as a tenth of its
    addresses, up to 10,000.
    """
    small, large = bench.middle, bench.large
    crowd = bench.world_of_its_own("hosts", large.size)
    _rename_hosts(crowd, hosts := min(10_000, crowd.size // 10))
    choices: dict[str, dict[str, Any]] = {
        "distinct_hosts, in a zone": {"quantity": 3, "zone": _ZONE, "distinct_hosts": True},
        "distinct_hosts": {"quantity": 3, "distinct_hosts": True},
        "distinct_zones": {"quantity": 3, "distinct_zones": True},
    }
    for name, wanted in choices.items():
        legs = [
            Leg(f"{small.size:,}", _choices(bench, small, wanted)),
            Leg(f"{large.size:,}", _choices(bench, large, wanted)),
            Leg(f"{large.size:,} on {hosts:,} hosts", _choices(bench, crowd, wanted)),
        ]
        measured = measure.alternate(
            legs, bench.options.rounds, bench.options.seconds, bench.options.connections[0]
        )
        for leg in legs[1:]:
            yield Row(
                "spread",
                f"allocation of 3 as a dry run, {name}, p50: {leg.name}",
                legs[0].name,
                Goal(at_most=1.2),
                measure.ratio(measured, leg.name, legs[0].name, lambda load: load.p50_ms),
                times(measured),
                loads(measured),
            )


def _rename_hosts(world: World, hosts: int) -> None:
    """Distribute the addresses over this number of hosts."""
    existing = world.pool.fetch(addresses(range(world.size)))
    world.pool.load(
        [
            {**document, "pvt_host": f"proxy{n % hosts:05}.{document['pvt_zone']}.example.com"}
            for n, document in enumerate(existing.values())
        ]
    )
    world.pool.resolve(OURS)


def _hold_back(documents: list[Document]) -> None:
    """Let nine of ten available addresses of each zone rest, or disable them."""
    due = [d for d in documents if d["pvt_status"] == "available"]
    for n, document in enumerate(due):
        # Ten consecutive addresses have one of each zone.
        if n // 10 % 10 == 0:
            continue
        if n // 10 % 2:
            at = gregorian_now() + _REST + n
            document |= {"pvt_status": "aging", "pvt_available_at": at}
        else:
            mark = {"reason": "listed", "at": gregorian_now(), "scope": "ip"}
            document |= {"pvt_status": "disabled", "pvt_disabled": mark}


def _choices(bench: Bench, world: World, wanted: Mapping[str, Any]) -> Plan:
    body = json.dumps({"data": wanted, "dry_run": True})
    request = Request("POST", world.measured.ips, body)
    return world.plan([request] * (4000 * bench.options.seconds))


def limits(bench: Bench) -> Iterator[Row]:
    """Count the requests of an assignment: no limit, a limit of another account, an own limit.

    An account without limits must cost nothing more, whatever limits other accounts have.
    """
    world = bench.writes
    bench.as_service(world)
    one = world.measured.account.id
    for who, account_id, most in (
        ("no account has limits", None, 4),
        ("another account has limits", world.operator.account.id, 4),
        ("the account has a limit", one, 10),
    ):
        with _limited(world, account_id):
            numbers = world.available(3)
            world.give(numbers, None)
            warm = world.plan(world.details(range(100, 101)))
            requests = [world.measured.single("POST", a) for a in addresses(numbers)]
            counted = [bench.counting(world).count(warm, request) for request in requests]
        yield Row(
            "limits",
            f"`POST …/ips/{{ip}}`, CouchDB requests, {who}",
            "counted at the database",
            Goal(at_most=most),
            Spread.of(len(each.sent) for each in counted),
            "",
            {"sent": [shown(line) for line in counted[-1].sent]},
        )


@contextmanager
def _limited(world: World, account_id: str | None) -> Iterator[None]:
    """Set a limit that every process knows, and remove it afterwards."""
    if account_id is None:
        yield
        return
    earlier = app.build(world.settings, clock=lambda: time.time() - 2 * SETTLE)
    earlier.limits.set(account_id, Limits(max=10**6), uuid4().hex)
    time.sleep(2 * REFRESH)
    try:
        yield
    finally:
        app.build(world.settings).limits.set(account_id, Limits(), uuid4().hex)
        time.sleep(2 * REFRESH)
