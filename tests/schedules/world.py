"""Workers on a real database, which begin from the same documents each time, and what they leave.

Each client has a worker of its own: an application with connections of its own. Its background
thread is not started; each round of it is a client.
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
from tests.schedules.operations import ADDRESSES, LETTERS, NOBODY, Operation, Pool
from tests.schedules.scheduler import Clock, Request, gated, sleeping

PATCHED = "kazoo_ips.couch.client.Connections"
"""Where applications get their connections from."""
LEASE_AND_MORE = 150.0
"""Seconds after which whoever has not answered is taken for dead."""
FOLLOWED = 6
"""Looks, each ten seconds after the one before, in which the pool's follower has seen all."""
ACCOUNTS = ("X", "Y")
COPIES = {name: f"{name}'s" for name in ACCOUNTS}
"""What the database of an account is called."""
READS = re.compile("/_view/|^_bulk_get$|^_find$")
"""Questions that are too long for a GET."""


@dataclass(frozen=True)
class Reply:
    """What a client was told."""

    status: int
    message: str
    letters: frozenset[str]
    """The addresses that it is about, if it is a success."""

    @property
    def is_final(self) -> bool:
        """Whether a request has come to its end with it."""
        return self.status < 500 and self.message != "in_progress"

    @property
    def is_done(self) -> bool:
        """Whether it says that the request was carried out."""
        return self.status < 300

    def __str__(self) -> str:
        return f"{self.status} {''.join(sorted(self.letters)) or self.message}"


@dataclass(frozen=True)
class Look:
    """What the documents say."""

    pool: Pool
    disorder: list[str]
    """What nobody should find once everything has come to its end."""
    documents: Mapping[str, Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Worker:
    """One application."""

    client: FlaskClient
    services: Instance

    def work(self) -> None:
        """What it has put off until its reply was sent."""
        self.services.background.work()

    def keep_house(self) -> None:
        """What its background worker does in the next minutes about what it has noted itself."""
        self.work()
        self.services.background.check_due(math.inf)


class World:
    """Databases with accounts X and Y, and workers on them.

    :param settings: of databases that are empty
    :param start: the pool that each run begins with
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
        self._names = {"dedicated_ips": "pool", "kazoo_ips": "journal", **names}
        self._databases = {shown: couch.database(name) for name, shown in self._names.items()}
        for letter, owner in sorted(start):
            services.pool.create(CreateIP(ADDRESSES[letter], "z", "h.example.com"), uuid4().hex)
            if owner != NOBODY:
                services.ips.assign(AssignIP(self.ids[owner], ADDRESSES[letter]), uuid4().hex)
        for letter, owner in start:
            if letter in uncopied:
                database = self._databases[COPIES[owner]]
                address = ADDRESSES[letter]
                database.remove(address, database.get(address)["_rev"])
        services.background.follow()  # from here on
        self._start = self.look()

    # Workers, and what is asked of them.

    def worker(self, number: int) -> Worker:
        """A worker, made when it is first asked for; it knows its callers."""
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

    def ask(self, number: int, operation: Operation, key: str | None) -> Reply | None:
        """Carry out an operation at a worker; None if it is none that is answered."""
        worker = self._workers[number]
        if operation.verb == "repairs":
            self.examine(number)
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

    def examine(self, number: int) -> None:
        """What `kazoo-ips doctor --repair` does."""
        list(self._workers[number].services.doctor.examine(repair=True))

    def recover(self, living: Sequence[int]) -> None:
        """What the background workers of living processes do in time, and that of a new one."""
        for number in living:
            self._workers[number].keep_house()
        new = composition.build(self._settings, clock=self.clock, pause=sleeping(self.clock))
        new.background.recover()
        for _ in range(FOLLOWED):
            self.clock.now += 10
            new.background.follow()

    # Documents.

    def reset(self) -> None:
        """Put the documents back as they were at the start; workers forget what they noted."""
        for worker in self._workers.values():
            worker.keep_house()
        self.clock.reset()
        now = self.look().documents
        for name, database in self._databases.items():
            start = self._start.documents[name]
            gone = [
                {"_id": i, "_rev": d["_rev"], "_deleted": True}
                for i, d in now[name].items()
                if i not in start
            ]
            other = [
                {**d, "_rev": now[name][i]["_rev"]} if i in now[name] else _without_revision(d)
                for i, d in start.items()
                if _without_revision(d) != _without_revision(now[name].get(i, {}))
            ]
            for written in database.put_all(gone + other):
                assert written.revision, "the pool is not as it was at the start"
        self._follow_from_here()

    def _follow_from_here(self) -> None:
        """Let the follower see nothing of the runs before."""
        records = self._databases["journal"]
        since = self._databases["pool"].changes(since="now", limit=1)["last_seq"]
        records.put({**records.get("follower-healing"), "since": str(since)})

    def look(self) -> Look:
        """What the documents say at this moment."""
        documents = {name: _documents(database) for name, database in self._databases.items()}
        names = {account_id: name for name, account_id in self.ids.items()}
        pool = documents["pool"]
        owners = {
            i: names.get(d.get("pvt_assigned_to", ""), "?")
            if d["pvt_status"] == "assigned"
            else NOBODY
            if d["pvt_status"] == "available"
            else d["pvt_status"]
            for i, d in pool.items()
        }
        disorder = [
            f"left over: {_shown(document)}"
            for document in documents["journal"].values()
            if not _is_kept(document)
        ]
        disorder += [f"{LETTERS[i]} is in conflict" for i, d in pool.items() if "_conflicts" in d]
        for account in ACCOUNTS:
            copies = documents[COPIES[account]]
            for i in sorted(copies.keys() | owners.keys()):
                owned = owners.get(i) == account
                if owned and i not in copies:
                    disorder.append(f"{account} lacks the copy of {LETTERS[i]}")
                elif not owned and i in copies:
                    disorder.append(f"{account} has a copy of {LETTERS[i]}")
                elif owned and _essence(copies[i]) != _essence(pool[i]):
                    disorder.append(f"{account} has an old copy of {LETTERS[i]}")
        return Look(
            frozenset((LETTERS[i], owner) for i, owner in owners.items()), disorder, documents
        )

    def describe(self, method: str, target: str, body: bytes | None) -> Request | None:
        """What a request is about; None if it is no concern of the schedules.

        Those are who is calling, and what never changes.
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
    """A world on databases of its own, whose requests and sleeps wait for their turn."""
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


def _essence(document: Mapping[str, Any]) -> list[Any]:
    return [document.get(f"pvt_{name}") for name in ("request_id", "modified", "status")]


def _is_kept(document: Mapping[str, Any]) -> bool:
    """Whether a record stays: of a key and its attempts, or one that might be made anew."""
    return document["type"] in ("reply", "follower") or bool(document.get("finished"))


def _shown(document: Mapping[str, Any]) -> str:
    return " ".join(str(document.get(name, "")) for name in ("type", "action", "state"))


def _letters(data: Mapping[str, Any]) -> frozenset[str]:
    made = data.get("ips", [data])
    return frozenset(LETTERS[ip if isinstance(ip, str) else ip["ip"]] for ip in made)
