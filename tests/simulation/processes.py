"""The work of each process of the simulation: it runs seeds, and returns the text to print.

The process that prints imports this module, and no module of the service.
"""

import gc
from functools import cache
from typing import NamedTuple


class Printed(NamedTuple):
    """The text of a run, so that the process that prints it needs no module of the service."""

    seed: int
    digest: str
    violations: list[str]
    history: list[str]
    trace: list[str]


@cache
def _prepare() -> None:
    """Let the garbage collector of this process ignore the service's modules, and run seldom."""
    # Importing this replaces parts of the standard library, so only in the processes of the pool.
    from tests.simulation.workers import base  # noqa: PLC0415

    base()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)


def run(seed: int, *, trace: bool, shrink: bool, digest: bool) -> Printed:
    """Run a seed in a process of the pool."""
    _prepare()  # not the pool's initializer: the pool would repeat one that fails, without end
    from tests.simulation import run as running  # noqa: PLC0415
    from tests.simulation import shrink as shrinking  # noqa: PLC0415

    result = shrinking.shrink(seed) if shrink else running.run(seed, is_traced=trace or digest)
    history = [*map(str, result.history)] if result.violations else []
    return Printed(
        seed,
        result.digest if digest else "",
        result.violations,
        history,
        result.trace if trace else [],
    )
