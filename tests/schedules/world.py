"""Workers on a real database that is reset before each run, and the documents after a run.

Each client has its own worker: an application with its own connections. The background thread is
not started. The tests call each of its rounds.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote
from uuid import uuid4

from flask.testing import FlaskClient

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.model import AssignIP, CreateIP
from kazoo_ips.repositories.accounts import account_database
from tests.members import add_member
from tests.schedules.operations import ADDRESSES, LETTERS, UNASSIGNED, Operation, Pool
from tests.schedules.scheduler import Clock, Request, gated, sleeping

PATCHED = "kazoo_ips.couch.client.Connections"
"""The name under which the application finds the class of its connections."""
PAST_LEASE = 150.0
"""Seconds after which other workers regard the owner of a transaction as dead."""
FOLLOWER_ROUNDS = 6
"""Rounds of the change follower, ten seconds apart, within which it has read all changes."""
ACCOUNTS = ("X", "Y")
COPIES = {name: f"{name}'s" for name in ACCOUNTS}
"""The name of each account's database in labels."""
READS = re.compile("/_view/|^_bulk_get$|^_find$")
"""Paths of requests that read although their method is POST."""


@dataclass(frozen=True)
class Reply:
    """The reply to a client."""

    status: int
    message: str
    letters: frozenset[str]
    """The addresses that it names, if it is a success."""

    @property
    def is_final(self) -> bool:
        """Whether the request is finished, so that the client need not repeat it."""
        return self.status < 500 and self.message != "in_progress"

    @property
    def is_done(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300

    def __str__(self) -> str:
        return f"{self.status} {''.join(sorted(self.letters)) or self.message}"


@dataclass(frozen=True)
class Snapshot:
    """All documents at one moment."""

    pool: Pool
    violations: list[str]
    """Unfinished records, conflicts, and copies that differ from the pool."""
    documents: Mapping[str, Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Worker:
    """One application."""

    client: FlaskClient
    services: Instance

    def run_deferred_work(self) -> None:
        """Run the work that was deferred until after the reply."""
        self.services.background.work()

    def run_background_work(self) -> None:
        """Run the work that this worker's background thread does in the next minutes."""
        self.run_deferred_work()
        self.services.background.check_due(math.inf)


class World:
    """Databases with accounts X and Y, and workers that use them.

    :param settings: the settings of empty databases
    :param start: the pool at the start of each run
    :param uncopied: addresses whose account lacks its copy at the start
    """

    def __init__(self, settings: Settings, start: Pool, uncopied: str = "") -> None:
        self.clock = Clock()
        self._settings = settings
        self._workers: dict[int, Worker] = {}
        services = composition.build(
            settings.as_administrator(), clock=lambda: self.clock.now - 3600
        )
        operator = services.accounts.create("Operator", "operator.example.com")
        self.ids: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        for name in ("operator", *ACCOUNTS):
            account = operator
            if name in ACCOUNTS:
                account = services.accounts.create(name, f"{name}.example.com", operator.id)
            user = services.accounts.create_user(account.id, "admin", "secret")
            now = composition.build(settings.as_administrator(), clock=self.clock)
            self.ids[name] = account.id
            self._tokens[name] = now.auth.open_session(account, user).token
        couch = composition.connect(settings.as_administrator())
        names = {account_database(self.ids[name]): shown for name, shown in COPIES.items()}
        self._names = {"dedicated_ips": "pool", "kazoo_ips": "records", **names}
        self._databases = {shown: couch.database(name) for name, shown in self._names.items()}
        for letter, owner in sorted(start):
            services.pool.create(CreateIP(ADDRESSES[letter], "z", "h.example.com"), uuid4().hex)
            if owner != UNASSIGNED:
                services.ips.assign(AssignIP(self.ids[owner], ADDRESSES[letter]), uuid4().hex)
        for letter, owner in start:
            if letter in uncopied:
                database = self._databases[COPIES[owner]]
                address = ADDRESSES[letter]
                database.remove(address, database.get(address)["_rev"])
        services.background.follow()  # sets the place in the changes feed from which it reads
        self._start = self.snapshot()

    # Workers and requests.

    def worker(self, number: int) -> Worker:
        """Return a worker. The first call creates it and fills its cache of callers."""
        if number not in self._workers:
            app = composition.create_app(
                self._settings, clock=self.clock, pause=sleeping(self.clock)
            )
            made = Worker(app.test_client(), app.extensions["kazoo_ips"])
            for name, token in self._tokens.items():
                path = f"/v2/accounts/{self.ids[name]}/ips"
                assert made.client.get(path, headers={"X-Auth-Token": token}).status_code == 200
            self._workers[number] = made
        return self._workers[number]

    def send(self, number: int, operation: Operation, key: str | None) -> Reply | None:
        """Send an operation to a worker. Return the reply, or None for a repair."""
        worker = self._workers[number]
        if operation.verb == "repairs":
            self.repair(number)
            return None
        method, path, data = operation.request(self.ids)
        headers = {"X-Auth-Token": self._tokens[operation.by]}
        if key:
            headers["Idempotency-Key"] = key
        body = None if data is None else {"data": data}
        reply = worker.client.open(path, method=method, json=body, headers=headers)
        content = reply.get_json()
        letters = _letters(content["data"]) if reply.status_code < 300 else frozenset()
        return Reply(reply.status_code, content.get("message", ""), letters)

    def repair(self, number: int) -> None:
        """Run `kazoo-ips doctor --repair`."""
        list(self._workers[number].services.doctor.examine(repair=True))

    def recover(self, living: Sequence[int]) -> None:
        """Run the background work of the living workers, then recovery by a new worker."""
        for number in living:
            self._workers[number].run_background_work()
        new = composition.build(self._settings, clock=self.clock, pause=sleeping(self.clock))
        new.background.recover()
        for _ in range(FOLLOWER_ROUNDS):
            self.clock.now += 10
            new.background.follow()

    # Documents.

    def reset(self) -> None:
        """Restore the documents of the start; let the workers finish their queued work first."""
        for worker in self._workers.values():
            worker.run_background_work()
        self.clock.reset()
        now = self.snapshot().documents
        for name, database in self._databases.items():
            start = self._start.documents[name]
            deleted = [
                {"_id": i, "_rev": d["_rev"], "_deleted": True}
                for i, d in now[name].items()
                if i not in start
            ]
            restored = [
                {**d, "_rev": now[name][i]["_rev"]} if i in now[name] else _without_revision(d)
                for i, d in start.items()
                if _without_revision(d) != _without_revision(now[name].get(i, {}))
            ]
            for written in database.put_all(deleted + restored):
                assert written.revision, "the pool is not as it was at the start"
        self._skip_earlier_changes()

    def _skip_earlier_changes(self) -> None:
        """Let the change follower skip the changes of earlier runs."""
        records = self._databases["records"]
        since = self._databases["pool"].changes(since="now", limit=1)["last_seq"]
        records.put({**records.get("follower-healing"), "since": str(since)})

    def snapshot(self) -> Snapshot:
        """Read all documents and compare them with each other."""
        documents = {name: _documents(database) for name, database in self._databases.items()}
        names = {account_id: name for name, account_id in self.ids.items()}
        pool = documents["pool"]
        owners = {
            i: names.get(d.get("pvt_assigned_to", ""), "?")
            if d["pvt_status"] == "assigned"
            else UNASSIGNED
            if d["pvt_status"] == "available"
            else d["pvt_status"]
            for i, d in pool.items()
        }
        violations = [
            f"unfinished record: {_shown(document)}"
            for document in documents["records"].values()
            if not _is_kept(document)
        ]
        violations += [
            f"{LETTERS[i]} is in conflict" for i, d in pool.items() if "_conflicts" in d
        ]
        for account in ACCOUNTS:
            copies = documents[COPIES[account]]
            for i in sorted(copies.keys() | owners.keys()):
                owned = owners.get(i) == account
                if owned and i not in copies:
                    violations.append(f"{account} lacks the copy of {LETTERS[i]}")
                elif not owned and i in copies:
                    violations.append(f"{account} has a copy of {LETTERS[i]}")
                elif owned and _compared(copies[i]) != _compared(pool[i]):
                    violations.append(f"{account} has an old copy of {LETTERS[i]}")
        return Snapshot(
            frozenset((LETTERS[i], owner) for i, owner in owners.items()), violations, documents
        )

    def describe(self, method: str, target: str, body: bytes | None) -> Request | None:
        """Return what a request reads or writes; None if no schedule stops it.

        Requests for accounts, tokens, and documents that never change do not stop.
        """
        database, *path = target.split("?", maxsplit=1)[0].strip("/").split("/")
        name = self._names.get(unquote(database).removeprefix(self._settings.prefix))
        document = unquote("/".join(path))
        if name is None or not document or re.fullmatch("[0-9a-f]{32}", document):
            return None
        shown = re.sub("[0-9a-f]{32,}", "…", LETTERS.get(document, document))
        content = json.loads(body) if body else {}
        ids = {document} if document[0] != "_" else {_id(d) for d in content.get("docs", ())}
        return Request(
            " ".join([method, f"{name}/{shown}", *self._shown(content)]),
            name,
            frozenset(ids) or None,
            method not in ("GET", "HEAD") and not READS.search(document),
        )

    def _shown(self, content: Mapping[str, Any]) -> Iterator[str]:
        names = {account_id: name for name, account_id in self.ids.items()}
        for document in content.get("docs", [content]):
            words = [
                LETTERS.get(_id(document), ""),
                document.get("pvt_status", ""),
                names.get(document.get("pvt_assigned_to", ""), ""),
                "deleted" if document.get("_deleted") else "",
                str(document.get("state", document.get("action", ""))),
                f"reply {document['reply']['status']}" if document.get("reply") else "",
            ]
            if any(words):
                yield f"[{' '.join(filter(None, words))}]"


@contextmanager
def world(settings: Settings, start: Pool, uncopied: str = "") -> Iterator[World]:
    """Create databases and a world on them, whose requests and sleeps the scheduler controls."""
    own = replace(settings, prefix=f"{settings.prefix}{uuid4().hex[:6]}-", identity_cache=1e6)
    databases = composition.databases(own)
    databases.create()
    add_member(own)
    try:
        made = World(own, start, uncopied)
        with patch(PATCHED, gated(made.describe)):
            yield made
    finally:
        databases.delete()


def _documents(database: Database) -> dict[str, dict[str, Any]]:
    query = {"include_docs": "true", "conflicts": "true"}
    rows = database._resource.get_json("_all_docs", **query)[2]["rows"]
    documents = (row["doc"] for row in rows if not row["id"].startswith("_design/"))
    return {
        d["_id"]: d
        for d in documents
        if database.name.endswith("kazoo_ips") or d.get("pvt_type") == "dedicated_ip"
    }


def _id(document: Mapping[str, Any]) -> str:
    return str(document.get("_id", document.get("id", "")))


def _without_revision(document: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k != "_rev"}


def _compared(document: Mapping[str, Any]) -> list[Any]:
    return [document.get(f"pvt_{name}") for name in ("request_id", "modified", "status")]


def _is_kept(document: Mapping[str, Any]) -> bool:
    """Whether a record may remain: an idempotency record, a checkpoint, a finished transaction."""
    return document["type"] in ("reply", "follower") or bool(document.get("finished"))


def _shown(document: Mapping[str, Any]) -> str:
    return " ".join(str(document.get(name, "")) for name in ("type", "action", "state"))


def _letters(data: Mapping[str, Any]) -> frozenset[str]:
    made = data.get("ips", [data])
    return frozenset(LETTERS[ip if isinstance(ip, str) else ip["ip"]] for ip in made)
