"""Searches for a shorter run that fails in the same way, by removing parts of the plan.

Removing a part changes all later random numbers, so each shorter plan runs with a few seeds. The
search is deterministic: the same seed has the same result.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, replace

from tests.simulation import plan
from tests.simulation.plan import Plan, Task
from tests.simulation.run import Result, Run

_SEEDS = 5


def shrink(seed: int) -> Result:
    """Return the shortest failing run that the search finds."""
    made = plan.make(seed)
    best = Run(seed, made).result()
    wanted, needed = kinds(best), set[Hashable]()
    while wanted:
        for part, shorter in _shorter(made):
            if part in needed:
                continue
            found = next((r for r in _runs(seed, shorter) if kinds(r) & wanted), None)
            if found:
                made, best, wanted = shorter, found, kinds(found) & wanted
                break
            needed.add(part)
        else:
            break
    return replace(best, seed=seed)


def kinds(result: Result) -> set[str]:
    """Return the kinds of violations of a run: their texts without ids, numbers and documents.

    If the history is not linearizable, the result has only this kind: it causes the others.
    """
    if any("no order" in line for line in result.violations):
        return {"no order"}
    texts = (re.sub(r"[0-9a-f]{32,}|[\d.]+|\{.*", "", line) for line in result.violations)
    return {text.split(": client")[0][-40:] for text in texts}


def _runs(seed: int, made: Plan) -> Iterator[Result]:
    return (Run(seed + 1_000_000 * n, made).result() for n in range(_SEEDS))


def _shorter(made: Plan) -> Iterator[tuple[Hashable, Plan]]:
    """Yield each part that can be removed, with the plan without it; whole clients first."""
    for n, tasks in enumerate(made.clients):
        yield tuple(tasks), replace(made, clients=made.clients[:n] + made.clients[n + 1 :])
    for n, fault in enumerate(made.faults):
        yield fault, replace(made, faults=made.faults[:n] + made.faults[n + 1 :])
    for name, rate in asdict(made.request_faults).items():
        if name != "latency" and rate:
            yield name, replace(made, request_faults=replace(made.request_faults, **{name: 0.0}))
    if made.delays.slow:
        yield "slow", replace(made, delays=replace(made.delays, slow=0.0))
    if made.message_loss:
        yield "message_loss", replace(made, message_loss=0.0)
    yield from _each_task(made, lambda task: [])
    yield from _each_task(made, lambda task: [replace(task, key=None)] if task.key else [task])


def _each_task(
    made: Plan, change: Callable[[Task], list[Task]]
) -> Iterator[tuple[Hashable, Plan]]:
    for n, tasks in enumerate(made.clients):
        for i, task in enumerate(tasks):
            changed = [*tasks[:i], *change(task), *tasks[i + 1 :]]
            if changed and changed != tasks:
                clients = [*made.clients[:n], changed, *made.clients[n + 1 :]]
                yield (task, len(changed)), replace(made, clients=clients)
