"""A shorter run that goes wrong in the same way: what is not needed for it is left out.

Leaving something out changes what chance decides afterwards, so each shorter plan is tried with a
few seeds. The result is found again from the same seed.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, replace

from tests.simulation import plan
from tests.simulation.plan import Plan, Task
from tests.simulation.run import Result, Run

_SEEDS = 5


def shrink(seed: int) -> Result:
    """The shortest run that was found."""
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
    """The ways in which a run went wrong, without what names the one case.

    Where a reply was untrue, that alone.
    """
    if any("no order" in line for line in result.wrong):
        return {"no order"}
    told = (re.sub(r"[0-9a-f]{32,}|[\d.]+|\{.*", "", line) for line in result.wrong)
    return {line.split(": client")[0][-40:] for line in told}


def _runs(seed: int, made: Plan) -> Iterator[Result]:
    return (Run(seed + 1_000_000 * n, made).result() for n in range(_SEEDS))


def _shorter(made: Plan) -> Iterator[tuple[Hashable, Plan]]:
    """What can be left out, and the plan without it: whole clients first."""
    for n, tasks in enumerate(made.clients):
        yield tuple(tasks), replace(made, clients=made.clients[:n] + made.clients[n + 1 :])
    for n, fault in enumerate(made.faults):
        yield fault, replace(made, faults=made.faults[:n] + made.faults[n + 1 :])
    for name, often in asdict(made.weather).items():
        if name != "latency" and often:
            yield name, replace(made, weather=replace(made.weather, **{name: 0.0}))
    if made.delays.slow:
        yield "slow", replace(made, delays=replace(made.delays, slow=0.0))
    if made.silence:
        yield "silence", replace(made, silence=0.0)
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
