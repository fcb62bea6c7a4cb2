"""Installs the design documents of `couch_views/` without making readers wait for an index.

A changed design document is first written under a temporary id, and CouchDB builds the index. Then
the document is written under its own id. CouchDB identifies an index by the source of the views,
so readers get the finished index.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from couchdb.loader import load_design_doc

from kazoo_ips.couch.client import Database
from kazoo_ips.couch.responses import ReadFailed
from kazoo_ips.errors import DatastoreMissingView
from kazoo_ips.model import Outcome

_PACKAGE = Path(__file__).parent.parent
# Next to the package in a checkout, inside it in a wheel.
_TREE = next(
    (p for p in (_PACKAGE / "couch_views", _PACKAGE.parent / "couch_views") if p.is_dir()),
    _PACKAGE / "couch_views",
)

_CODE = re.compile(r"^ *// !code (\S+)\n", re.MULTILINE)
"""A line that stands for the text of a file of `couch_views/`, as in CouchApp."""

_QUICKJS = (3, 4)
"""The first version of CouchDB that has QuickJS (its documentation, JavaScript development)."""
_VERSION = re.compile(r"(\d+)\.(\d+)")

_ATTEMPTS = 60
"""The number of queries until an index is built. CouchDB lets each wait for a minute."""

_PAUSE = 1.0
"""Seconds between two of these queries."""


_IN_QUICKJS = {"language": "javascript_quickjs"}


def load(name: str) -> dict[str, Any]:
    """Return the design document in the folder `couch_views/<name>`."""

    def belongs(path: str) -> bool:
        return Path(path).is_dir() or Path(path).suffix in ("", ".js", ".json")

    document: dict[str, Any] = load_design_doc(str(_TREE / name), strip=True, predicate=belongs)
    for view in document.get("views", {}).values():
        view["map"] = _CODE.sub(lambda line: (_TREE / line[1]).read_text(), view["map"])
    return {"_id": f"_design/{name}", **document}


def wanted(name: str, greeting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the design document of a folder as a server should have it.

    CouchDB compiles the functions of all views at the first query after a write, and collects
    garbage before each call of a validation function. QuickJS takes a tenth, and a third, of the
    processor time that SpiderMonkey takes for it (docs/couchdb.md).

    :param greeting: the server's welcome message
    """
    document = load(name)
    return document | _IN_QUICKJS if has_quickjs(greeting) else document


def has_quickjs(greeting: Mapping[str, Any]) -> bool:
    """Whether a server has QuickJS: CouchDB since 3.4, also if its default is another engine.

    :param greeting: the server's welcome message. That of another server has no `couchdb`
    """
    version = _VERSION.match(str(greeting.get("version")))
    if "couchdb" not in greeting or version is None:
        return False
    return (int(version[1]), int(version[2])) >= _QUICKJS


def is_current(database: Database, name: str) -> bool:
    """Whether the database has the design document of this release, for either engine."""
    found, document = database.find(f"_design/{name}"), load(name)
    return _same(found, document) or _same(found, document | _IN_QUICKJS)


def wait_for_index(database: Database, name: str) -> None:
    """Wait until the index of a design document is up to date.

    :raises DatastoreUnreachable: it takes longer than the read timeout of this database
    """
    _build(database, name, load(name))


def exists(database: Database, name: str) -> bool:
    """Whether the database has the design document, in any version."""
    return database.find(f"_design/{name}") is not None


def remove(database: Database, name: str) -> bool:
    """Remove a design document. Return False if it does not exist."""
    current = database.find(f"_design/{name}")
    return current is not None and bool(database.remove(current["_id"], current["_rev"]).revision)


def deploy(database: Database, name: str) -> bool:
    """Update a design document, after its index is built. Return False if it is up to date.

    Several processes may do this at once: each writes the same content, and the second one finds
    the document up to date.
    """
    new = wanted(name, database.greeting())
    current = database.find(new["_id"])
    if _same(current, new):
        return False
    if current is not None and "views" in new:
        _build_beforehand(database, new)
    revision = {"_rev": current["_rev"]} if current else {}
    written = database.put({**new, **revision})
    if written.outcome is not Outcome.REFUSED and "views" in new:
        _build(database, name, new)
        database.clean_up_views()
    return True


def _build_beforehand(database: Database, wanted: Mapping[str, Any]) -> None:
    """Build the index under a temporary id, so that it is ready when the document is replaced."""
    name = wanted["_id"].removeprefix("_design/") + "-new"
    aside = f"_design/{name}"
    left_over = database.find(aside)
    revision = {"_rev": left_over["_rev"]} if left_over else {}
    database.put({**wanted, "_id": aside, **revision})
    # Another process that builds the same index may have finished and removed this document.
    with suppress(DatastoreMissingView):
        _build(database, name, wanted)
    written = database.find(aside)
    if written:
        database.remove(aside, written["_rev"])


def _build(database: Database, name: str, document: Mapping[str, Any]) -> None:
    """Wait until the index is built, even if CouchDB's own wait times out several times.

    CouchDB answers 500 after a minute (`fabric/request_timeout`), or if the machine is so busy
    that a map function takes five seconds. The build continues meanwhile.
    """
    # A query of one view builds the indexes of all views of its design document.
    for view in list(document.get("views", ()))[:1]:
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                database.rows(f"{name}/{view}", limit=1, reduce=False)
                break
            except ReadFailed:
                if not attempts_left:
                    raise
                time.sleep(_PAUSE)


def _same(current: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    return current is not None and {**current, "_rev": None} == {**wanted, "_rev": None}
