"""One line of the table: what is measured, what it is compared with, and its goal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.context import Bench
from bench.measure import Spread
from bench.wrk import Load


@dataclass(frozen=True)
class Goal:
    """A lower or an upper limit for a median."""

    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None and self.at_least == self.at_most:
            return f"= {self.at_least:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else ""


@dataclass(frozen=True)
class Row:
    """One line.

    :param what: what is measured
    :param against: what it is divided by, or the unit
    :param value: None if it could not be measured; `note` says why
    :param note: further information, such as absolute figures
    :param raw: the raw figures
    """

    name: str
    what: str
    against: str
    goal: Goal
    value: Spread | None
    note: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        if self.value is None or self.goal == Goal():
            return None
        return self.goal.holds(self.value.median)

    def to_json(self) -> dict[str, Any]:
        """Return the row with its raw figures as JSON."""
        return {**asdict(self), "goal": str(self.goal), "reached": self.reached}


Measure = Callable[[Bench], Iterable[Row]]
"""A function that measures one or more lines."""


def loads(measured: Mapping[str, Sequence[Load]]) -> dict[str, Any]:
    """Return the raw figures of runs of wrk as JSON."""
    return {
        name: [{**asdict(load), "rate": round(load.rate, 2)} for load in each]
        for name, each in measured.items()
    }


def rates(measured: Mapping[str, Sequence[Load]]) -> str:
    """Return the medians of requests per second, as text for a note."""
    return ", ".join(
        f"{name} {Spread.of(load.rate for load in each).median:.0f}"
        for name, each in measured.items()
    ) + " requests/s"  # fmt: skip


def times(measured: Mapping[str, Sequence[Load]]) -> str:
    """Return the medians of p50, as text for a note."""
    return "p50 " + ", ".join(
        f"{name} {Spread.of(load.p50_ms for load in each).median:.2f} ms"
        for name, each in measured.items()
    )
