"""A shorter run that goes wrong in the same way: what is not needed for it is left out.

Leaving something out changes what chance decides afterwards, so each shorter plan is tried with a
few seeds. The result is found again from the same seed.
"""

import re
from collections.abc import Iterator
from dataclasses import fields, replace

from tests.simulation import plan
from tests.simulation.plan import Plan
from tests.simulation.run import Result, Run

_SEEDS = 12


def shrink(seed: int) -> Result:
    """The shortest run that was found."""
    made, best = plan.make(seed), Run(seed, plan.make(seed)).result()
    wanted = kinds(best)
    while wanted:
        for shorter in _shorter(made):
            found = next((r for r in _runs(seed, shorter) if kinds(r) & wanted), None)
            if found:
                made, best, wanted = shorter, found, kinds(found) & wanted
                break
        else:
            break
    return best


def kinds(result: Result) -> set[str]:
    """The ways in which a run went wrong, without what names the one case."""
    told = (re.sub(r"[0-9a-f]{32,}|[\d.]+|\{.*", "", line) for line in result.wrong)
    return {re.split(r": client| and no order", line)[0][-40:] for line in told}


def _runs(seed: int, made: Plan) -> Iterator[Result]:
    return (Run(seed + 1_000_000 * n, made).result() for n in range(_SEEDS))


def _shorter(made: Plan) -> Iterator[Plan]:
    clients = made.clients
    for n in range(len(clients)):
        yield replace(made, clients=clients[:n] + clients[n + 1 :])
    for n in range(len(made.faults)):
        yield replace(made, faults=made.faults[:n] + made.faults[n + 1 :])
    for field in fields(made.weather):
        if field.name != "latency" and getattr(made.weather, field.name):
            yield replace(made, weather=replace(made.weather, **{field.name: 0.0}))
    if made.delays.slow:
        yield replace(made, delays=replace(made.delays, slow=0.0))
    if made.silence:
        yield replace(made, silence=0.0)
    for n, tasks in enumerate(clients):
        for i in range(len(tasks)) if len(tasks) > 1 else ():
            yield replace(
                made,
                clients=[*clients[:n], tasks[:i] + tasks[i + 1 :], *clients[n + 1 :]],
            )
        for i, task in enumerate(tasks):
            if task.key:
                plain = [*tasks[:i], replace(task, key=None), *tasks[i + 1 :]]
                yield replace(made, clients=[*clients[:n], plain, *clients[n + 1 :]])
