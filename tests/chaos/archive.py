"""Checks the archive of the history after a run.

Each acknowledged change has exactly one event. The events of an address follow from each other,
and the last one leads to its document in the pool.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import urllib3

from tests.chaos.agreement import send
from tests.chaos.history import Call
from tests.simulation.archive import broken_chains, effective

_KINDS = {
    "assign": "assigned",
    "allocate": "assigned",
    "release": "released",
    "release all": "released",
    "create": "created",
    "delete": "deleted",
    "delete by force": "deleted",
}
"""The kind of event for each action that changes addresses."""
_CALL = re.compile(r"call-(\d+)-")


def violations(node: str, prefix: str, calls: Sequence[Call]) -> list[str]:
    """Return what is wrong with the archive, or that it could not be read."""
    try:
        documents = list(_documents(node, prefix, "kazoo_ips_history_"))
        pool = {d["_id"]: d for d in _documents(node, prefix, "dedicated_ips")}
    except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
        return [f"the archive cannot be read: {error}"]
    return list(broken(documents, pool, calls))


def broken(
    documents: Sequence[dict[str, Any]], pool: dict[str, dict[str, Any]], calls: Sequence[Call]
) -> Iterator[str]:
    """Yield what is wrong with an archive.

    :param documents: those of the archive
    :param pool: the documents of the pool, by id
    """
    events = effective(documents)
    yield from broken_chains(events, pool)
    counts: Counter[tuple[int, str, str]] = Counter()
    for event in events:
        found = _CALL.match(event.request_id or "")
        if found:
            counts[int(found[1]), str(event.event), event.address] += 1
    for call in calls:
        kind = _KINDS.get(call.action)
        for address in call.done if kind else ():
            count = counts[call.number, kind or "", address]
            if count != 1:
                yield f"history of {address}: {count} events {kind} by call {call.number}"


def _documents(node: str, prefix: str, name: str) -> Iterator[dict[str, Any]]:
    for database in send(node, "_all_dbs"):
        if database.startswith(prefix + name):
            path = f"{quote(database, safe='')}/_all_docs?include_docs=true"
            for row in send(node, path)["rows"]:
                if not row["id"].startswith("_"):
                    yield row["doc"]
