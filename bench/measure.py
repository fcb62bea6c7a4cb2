"""Figures that are compared: measured in turns, in one run, with the spread of their ratios.

Pure, except that `alternate` lets wrk run.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import BenchError, wrk
from bench.wrk import Load, Plan

_SLOW = 10
"""Seconds at least that something is measured which replies less than twice in one."""

MakePlan = Callable[[], Plan]


@dataclass(frozen=True)
class Leg:
    """One of the things compared.

    :param plan: what wrk sends; a function makes it anew before every run, as writes need
    :param seconds: how long, if not as long as the others
    :param rest: seconds to wait afterwards, for a server that goes on without its client
    """

    name: str
    plan: Plan | MakePlan
    seconds: int | None = None
    rest: float = 0


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest of what was measured."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of some values, at least one."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1], len(ordered))

    @classmethod
    def greatest(cls, values: Iterable[float]) -> "Spread":
        """The greatest of some values, where it is the one that counts."""
        ordered = sorted(values)
        return cls(ordered[-1], ordered[0], ordered[-1], len(ordered))


def alternate(
    legs: Sequence[Leg], rounds: int, seconds: int, connections: int
) -> Mapping[str, list[Load]]:
    """Measure in turns, A B C A B C …, after one second of each that does not count.

    :returns: what each leg measured in each round, by its name
    :raises BenchError: a request failed, so that the figures would say nothing
    """
    lengths = {leg.name: leg.seconds or seconds for leg in legs}
    for leg in legs:
        if isinstance(leg.plan, Plan) and _is_slow(wrk.run(leg.plan, connections, 1)):
            lengths[leg.name] = max(lengths[leg.name], _SLOW)
    measured: dict[str, list[Load]] = {leg.name: [] for leg in legs}
    for _ in range(rounds):
        for leg in legs:
            plan = leg.plan if isinstance(leg.plan, Plan) else leg.plan()
            load = wrk.run(plan, connections, lengths[leg.name])
            if not load.requests and not load.errors:  # something else held it up
                load = wrk.run(plan, connections, 2 * _SLOW)
            if load.errors or not load.requests:
                raise BenchError(f"{leg.name}: {load.errors} of {load.requests} requests failed")
            measured[leg.name].append(load)
            time.sleep(leg.rest)
    return measured


def _is_slow(warm: Load) -> bool:
    """Whether a second is too short to measure something in."""
    return warm.requests < 2 * warm.connections


def limit(bare: float, raws: Iterable[float]) -> float:
    """The requests per second that the parts of a service allow it: L of the README.

    One request costs what a bare Flask route costs, and the CouchDB requests that it cannot do
    without.

    :param bare: requests per second of the bare route
    :param raws: of each CouchDB request, made directly
    """
    return 1 / (1 / bare + sum(1 / raw for raw in raws))


def share_of_limit(
    measured: Mapping[str, list[Load]], service: str, bare: str, raws: Sequence[str]
) -> Spread:
    """How much of its limit a route reaches, round by round."""
    return Spread.of(
        measured[service][n].rate
        / limit(measured[bare][n].rate, [measured[raw][n].rate for raw in raws])
        for n in range(len(measured[service]))
    )


def ratio(
    measured: Mapping[str, list[Load]], above: str, below: str, figure: Callable[[Load], float]
) -> Spread:
    """One leg's figure by another's, round by round."""
    pairs = zip(measured[above], measured[below], strict=True)
    return Spread.of(figure(a) / figure(b) for a, b in pairs)
