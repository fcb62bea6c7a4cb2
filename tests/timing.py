"""Measures durations on a machine that may be busy with other processes."""

import time
from collections.abc import Callable

from kazoo_ips.couch.client import Database

LONG = 15.0
"""A number of seconds in which every operation ends, even on a busy machine."""
REPLICATION = 0.3
"""Seconds within which all nodes of a cluster get a write, even on a busy machine."""
_TRIES = 5


def quickest(call: Callable[[], object], enough: float) -> float:
    """Return the fewest seconds that a call takes, repeated while they are more than `enough`."""
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
    """On a cluster, wait until all nodes have all documents: feeds and views read one node."""
    if database.replicas > 1:
        time.sleep(REPLICATION)
