"""From `couch_views/` to design documents that readers never wait for.

A changed design document is written under a temporary id first, its index built there, and only
then put in place: CouchDB keeps indexes by the content of the views, so readers go over to a
finished one. Knows files and design documents, not what the views are for.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from couchdb.loader import load_design_doc

from kazoo_ips.couch.client import Database
from kazoo_ips.couch.http_client import NotInTime
from kazoo_ips.errors import DatastoreMissingView
from kazoo_ips.model import Outcome

_PACKAGE = Path(__file__).parent.parent
# Beside the package in a checkout, inside it in a wheel.
_TREE = next(
    (p for p in (_PACKAGE / "couch_views", _PACKAGE.parent / "couch_views") if p.is_dir()),
    _PACKAGE / "couch_views",
)

_ATTEMPTS = 60
"""Times that a view is asked for until its index is built; CouchDB waits a minute each time."""

_PAUSE = 1.0
"""Seconds between two of them."""


def load(name: str) -> dict[str, Any]:
    """The design document that the folder `couch_views/<name>` describes."""

    def belongs(path: str) -> bool:
        return Path(path).is_dir() or Path(path).suffix in ("", ".js", ".json")

    document: dict[str, Any] = load_design_doc(str(_TREE / name), strip=True, predicate=belongs)
    return {"_id": f"_design/{name}", **document}


def is_current(database: Database, name: str) -> bool:
    """Whether the database has the design document as the folder describes it."""
    return _same(database.find(f"_design/{name}"), load(name))


def wait_for_index(database: Database, name: str) -> None:
    """Return once the index of a design document is up to date.

    :raises DatastoreUnreachable: that takes longer than this database's patience
    """
    _build(database, name, load(name))


def is_there(database: Database, name: str) -> bool:
    """Whether the database has the design document, current or not."""
    return database.find(f"_design/{name}") is not None


def remove(database: Database, name: str) -> bool:
    """Remove a design document; False when there was none."""
    current = database.find(f"_design/{name}")
    return current is not None and bool(database.remove(current["_id"], current["_rev"]).revision)


def deploy(database: Database, name: str) -> bool:
    """Bring a design document up to date, index first; False when there was nothing to do.

    Several processes may do this at once: each writes the same, and who comes second finds it
    done.
    """
    wanted = load(name)
    current = database.find(wanted["_id"])
    if _same(current, wanted):
        return False
    if current is not None and "views" in wanted:
        _build_aside(database, wanted)
    revision = {"_rev": current["_rev"]} if current else {}
    written = database.put({**wanted, **revision})
    if written.outcome is not Outcome.REFUSED and "views" in wanted:
        _build(database, name, wanted)
        database.clean_up_views()
    return True


def _build_aside(database: Database, wanted: Mapping[str, Any]) -> None:
    """Build the index under a temporary id, so that it is ready when the real one wants it."""
    name = wanted["_id"].removeprefix("_design/") + "-new"
    aside = f"_design/{name}"
    left_over = database.find(aside)
    revision = {"_rev": left_over["_rev"]} if left_over else {}
    database.put({**wanted, "_id": aside, **revision})
    # Whoever does the same at this moment may have finished it and cleared it away.
    with suppress(DatastoreMissingView):
        _build(database, name, wanted)
    written = database.find(aside)
    if written:
        database.remove(aside, written["_rev"])


def _build(database: Database, name: str, document: Mapping[str, Any]) -> None:
    """Wait until the index is built, however often CouchDB gives up waiting for it.

    It answers 500 after a minute (`fabric/request_timeout`), or when the machine is so busy that
    a map function takes five seconds, and goes on building where it was.
    """
    # Asking one view builds all of its design document.
    for view in list(document["views"])[:1]:
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                database.rows(f"{name}/{view}", limit=1, reduce=False)
                break
            except NotInTime:
                if not attempts_left:
                    raise
                time.sleep(_PAUSE)


def _same(current: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    return current is not None and {**current, "_rev": None} == {**wanted, "_rev": None}
