"""Measures durations on a machine that may be busy with other processes."""

import time
from collections.abc import Callable

from kazoo_ips.couch.client import Database

LONG = 15.0
"""Seconds that nobody waits for anything, however busy the machine is."""
REPLICATION = 0.3
"""Seconds in which the last node of a cluster gets a write, even if the machine is busy."""
_TRIES = 5


def quickest(call: Callable[[], object], enough: float) -> float:
    """The fewest seconds that a call takes, tried again while it takes longer than `enough`."""
    fewest = float("inf")
    for _ in range(_TRIES):
        start = time.monotonic()
        call()
        fewest = min(fewest, time.monotonic() - start)
        if fewest < enough:
            break
    return fewest


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether a condition holds, at the latest after some seconds."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return holds


def await_replicas(database: Database) -> None:
    """On a cluster, wait until all nodes have what a majority has: feeds and views read one."""
    if database.replicas > 1:
        time.sleep(REPLICATION)
