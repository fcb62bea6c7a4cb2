"""Comparisons: the parts are measured alternately in one run, and their ratios have a spread."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import BenchError, wrk
from bench.wrk import Load, Plan

_SLOW = 10
"""Minimum duration in seconds for a part with less than two replies per second and connection."""

MakePlan = Callable[[], Plan]


@dataclass(frozen=True)
class Leg:
    """One part of a comparison.

    :param plan: the plan for wrk, or a function that returns a new one before each run, for writes
    :param seconds: the duration of each run, if it differs from that of the other parts
    :param rest: seconds to wait after each run, for a server that goes on working
    """

    name: str
    plan: Plan | MakePlan
    seconds: int | None = None
    rest: float = 0


@dataclass(frozen=True)
class Spread:
    """The median, the minimum and the maximum of measured values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of at least one value."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1], len(ordered))

    @classmethod
    def greatest(cls, values: Iterable[float]) -> "Spread":
        """Return a spread with the maximum in place of the median."""
        ordered = sorted(values)
        return cls(ordered[-1], ordered[0], ordered[-1], len(ordered))


def alternate(
    legs: Sequence[Leg],
    rounds: int,
    seconds: int,
    connections: int,
    settle: Callable[[], None] = lambda: None,
) -> Mapping[str, list[Load]]:
    """Measure the parts alternately, A B C A B C …, after a second of each that does not count.

    :param settle: waits for the background work of earlier runs, before each run
    :returns: the results of each leg, one for each round, by its name
    :raises BenchError: a request failed, so the figures are not valid
    """
    lengths = {leg.name: leg.seconds or seconds for leg in legs}
    for leg in legs:
        if isinstance(leg.plan, Plan) and _is_slow(wrk.run(leg.plan, connections, 1)):
            lengths[leg.name] = max(lengths[leg.name], _SLOW)
    measured: dict[str, list[Load]] = {leg.name: [] for leg in legs}
    for _ in range(rounds):
        for leg in legs:
            plan = leg.plan if isinstance(leg.plan, Plan) else leg.plan()
            settle()
            load = wrk.run(plan, connections, lengths[leg.name])
            if not load.requests and not load.errors:  # other processes have delayed it
                load = wrk.run(plan, connections, 2 * _SLOW)
            if load.errors or not load.requests:
                raise BenchError(f"{leg.name}: {load.errors} of {load.requests} requests failed")
            measured[leg.name].append(load)
            time.sleep(leg.rest)
    return measured


def _is_slow(warm: Load) -> bool:
    """Whether a run of one second is too short."""
    return warm.requests < 2 * warm.connections


def limit(bare: float, raws: Iterable[float]) -> float:
    """Return the limit L of `bench/README.md`: the requests per second that a route could reach.

    A request costs at least as much as a bare Flask route, and the CouchDB requests that it needs.

    :param bare: requests per second of the bare route
    :param raws: requests per second of each of the CouchDB requests, sent directly
    """
    return 1 / (1 / bare + sum(1 / raw for raw in raws))


def share_of_limit(
    measured: Mapping[str, list[Load]], service: str, bare: str, raws: Sequence[str]
) -> Spread:
    """Return the share of its limit that a route reaches, from a value for each round."""
    return Spread.of(
        measured[service][n].rate
        / limit(measured[bare][n].rate, [measured[raw][n].rate for raw in raws])
        for n in range(len(measured[service]))
    )


def ratio(
    measured: Mapping[str, list[Load]], above: str, below: str, figure: Callable[[Load], float]
) -> Spread:
    """Return the ratio of two legs' figures, from a value for each round."""
    pairs = zip(measured[above], measured[below], strict=True)
    return Spread.of(figure(a) / figure(b) for a, b in pairs)
