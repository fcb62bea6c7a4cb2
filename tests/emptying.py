"""Empties the databases of the pool between tests, with few requests.

Some tests create accounts, and each account has a database. With forty accounts, reading all of
them before and after a test costs 0.2 s of processor time.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.accounts import account_database

Which = Callable[[dict[str, Any]], bool]

_AT_MOST = 100
"""Maximum number of databases that CouchDB describes in one response
(`max_db_number_for_dbs_info_req`)."""


_SETTINGS = {"place_settings", "limits", "limit"}
"""Records that the services of each process keep in memory."""
_REMOVED = {"transaction", "reservations", "job", "job_part", "low_zones", *_SETTINGS}


class Emptier:
    """Removes the addresses, the accounts' copies, and the service's records about them.

    It reads only the databases that have changed since it last emptied them. After it has removed
    settings, it lets the services in `instances` read the settings again.
    """

    def __init__(self, couch: Couch, services: Instance) -> None:
        self._couch = couch
        self._services = services
        self._emptied: dict[str, Any] = {}
        self.instances = [services]

    def __call__(self) -> None:
        """Empty the databases."""
        contents: dict[str, Which] = {
            "dedicated_ips": lambda document: True,
            "kazoo_ips": lambda document: document.get("type") in _REMOVED,
        }
        types = set()
        for account in self._services.accounts.list():
            contents[account_database(account.id)] = _is_copy
        now = states(self._couch, contents)
        changed = [name for name in contents if now[name] != self._emptied.get(name)]
        for name in changed:
            removed = clear(self._couch.database(name), contents[name])
            types |= {document.get("type") for document in removed}
        if types & _SETTINGS:
            for each in self.instances:
                each.background.read_settings()
                each.limits.refresh()
        self._emptied = now | states(self._couch, changed)


def states(couch: Couch, names: Iterable[str]) -> dict[str, Any]:
    """Return for each database a value that changes with every write."""
    databases = {couch.database(name).name: name for name in names}
    full = [*databases]
    found = {}
    for start in range(0, len(full), _AT_MOST):
        keys = full[start : start + _AT_MOST]
        response = couch._server.resource.post_json("_dbs_info", {"keys": keys})
        for each in response[2]:
            info = each["info"]
            found[databases[each["key"]]] = (info["update_seq"], info["doc_count"])
    return found


def _is_copy(document: dict[str, Any]) -> bool:
    return document.get("pvt_type") == "dedicated_ip"


def clear(database: Database, which: Which) -> list[dict[str, Any]]:
    """Delete documents on every node, and return them. A lagging node would disturb the next test.

    A conflicting revision is seen only after the winner is deleted, so they are listed again.
    """
    removed: list[dict[str, Any]] = []
    for _ in range(20):
        documents = (
            d for d in database.range("", "\uffff") if not d["_id"].startswith("_design/")
        )
        found = [document for document in documents if which(document)]
        if not found:
            break
        removed += found
        tombstones = [{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in found]
        written = database.put_all(tombstones, w=database.replicas)
        if any(w.outcome is not Outcome.DONE for w in written):
            time.sleep(0.2)
    return removed


def remove_place_settings(couch: Couch, *processes: Instance) -> None:
    """Remove the settings of all zones and hosts, and let these processes know it."""
    records = couch.database("kazoo_ips")
    stored = records.find("place-settings")
    if stored:
        records.remove("place-settings", stored["_rev"])
    for each in processes:
        each.background.read_settings()
