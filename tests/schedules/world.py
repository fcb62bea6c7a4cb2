"""Workers on real databases that are reset before each run, and the documents after a run.

Each client has its own worker: an application with its own connections. The background thread is
not started. The tests call each of its rounds.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote
from uuid import uuid4

from flask.testing import FlaskClient

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.model import GREGORIAN_EPOCH as EPOCH
from kazoo_ips.model import AssignIP, AssignIPs, Attempt, CreateIP, ReleaseIP, Scope
from kazoo_ips.model.commands import ExtendReservation, ReserveIPs
from kazoo_ips.model.limits import Limits
from kazoo_ips.model.reservations import MAX_SECONDS
from kazoo_ips.model.trail import NOT_DONE
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.limits import INDEX
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.emptying import states
from tests.schedules.operations import (
    ADDRESSES,
    DRAINED,
    HOST,
    LETTERS,
    RESTS,
    UNASSIGNED,
    Operation,
    Pool,
)
from tests.schedules.scheduler import Clock, Request, gated, sleeping

PATCHED = "kazoo_ips.couch.client.Connections"
"""The name under which the application finds the class of its connections."""
READERS = (
    "kazoo_ips.services.maintenance.doctor.ThreadPoolExecutor",
    "kazoo_ips.services.maintenance.copy_examination.ThreadPoolExecutor",
)
"""The names under which the doctor finds the class of its threads. In a schedule it uses none."""
PAST_LEASE = 150.0
"""Seconds after which other workers regard the owner of a transaction as dead."""
FOLLOWER_STEPS = (10, 30, 20)
"""Seconds before each round of the change follower. The first round reads the changes, the second
one handles them when they are half a minute old, and the third one retries what could not be done.
"""
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
    pending: int | None = None
    """In the reply of a drain: how many addresses are still to be disabled."""

    @property
    def is_final(self) -> bool:
        """Whether the request is finished, so that the client need not repeat it."""
        return self.status < 500 and self.message != "in_progress"

    @property
    def is_done(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300

    def fits(self, letters: frozenset[str]) -> bool:
        """Return whether it can be the reply to an operation with this effect."""
        return letters == self.letters if self.pending is None else len(letters) <= self.pending

    def __str__(self) -> str:
        if self.pending is not None:
            return f"{self.status}, {self.pending} pending"
        return f"{self.status} {''.join(sorted(self.letters)) or self.message}"


class Recorded(NamedTuple):
    """An event of a trail that is in effect."""

    letter: str
    kind: str
    request_id: str


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


class Site:
    """Databases with the accounts operator, X and Y. All scenarios of a process use them in turn.

    :param settings: the settings of empty databases
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        services = composition.build(
            settings.as_administrator(), clock=lambda: self.clock.now - 3600
        )
        operator = services.accounts.create("Operator", "operator.example.com")
        self.ids: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        for name in ("operator", *ACCOUNTS):
            account = operator
            if name in ACCOUNTS:
                account = services.accounts.create(name, f"{name}.example.com", operator.id)
            user = services.accounts.create_user(account.id, "admin", "secret")
            now = composition.build(settings.as_administrator(), clock=self.clock)
            self.ids[name] = account.id
            self.tokens[name] = now.auth.open_session(account, user).token
        self.couch = composition.connect(settings.as_administrator())
        names = {account_database(self.ids[name]): shown for name, shown in COPIES.items()}
        self.names = {"dedicated_ips": "pool", "kazoo_ips": "records", **names}
        self.databases = {shown: self.couch.database(name) for name, shown in self.names.items()}
        self.empty = {shown: _documents(database) for shown, database in self.databases.items()}


class World:
    """A scenario's pool at a site, and workers that use it.

    :param start: the pool at the start of each run
    :param uncopied: addresses whose account lacks its copy at the start
    :param limits: the maximum number of addresses of each account that has a limit
    :param expired: addresses of a reservation of X that is over
    :param rested: available addresses that have rested, and are still `aging`; Y had them last
    """

    def __init__(
        self,
        site: Site,
        start: Pool,
        uncopied: str = "",
        limits: Mapping[str, int] = MappingProxyType({}),
        expired: str = "",
        rested: str = "",
    ) -> None:
        self.clock, self.ids = site.clock, site.ids
        self._settings, self._tokens, self._couch = site.settings, site.tokens, site.couch
        self._names, self._databases = site.names, site.databases
        self._workers: dict[int, Worker] = {}
        self._read: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {}
        self.clock.reset()
        for name, found in self._documents().items():  # those of the scenario before
            self._restore(name, site.empty[name], found)
        administrator = site.settings.as_administrator()
        services = composition.build(administrator, clock=lambda: self.clock.now - 3600)
        self._fill(services, start, rested)
        for letter, owner in start:
            if letter in uncopied:
                database = self._databases[COPIES[owner]]
                address = ADDRESSES[letter]
                database.remove(address, database.get(address)["_rev"])
        self._reserve_all(services, start, expired)
        for name, most in limits.items():
            services.limits.set(self.ids[name], Limits(most), uuid4().hex)
            # The limits are exact once they are counted after the time at which every process
            # knows them.
            now = composition.build(administrator, clock=self.clock)
            now.limits.set(self.ids[name], Limits(most), uuid4().hex)
        services.background.follow()  # sets the position in the changes feed from which it reads
        self._start = self.snapshot()

    def _reserve_all(self, services: Instance, start: Pool, expired: str) -> None:
        """Make one reservation of each account, and one of X that is over."""
        for name in ACCOUNTS:
            reserved = "".join(sorted(each for each, owner in start if owner == name.lower()))
            self._reserve(services, name, reserved, MAX_SECONDS)
        self._reserve(services, "X", expired, 60)

    def _reserve(self, services: Instance, name: str, letters: str, seconds: int) -> None:
        if letters:
            wanted = AssignIPs(self.ids[name], tuple(ADDRESSES[letter] for letter in letters))
            attempt = Attempt(f"{name} {letters}", 1)
            made = services.reservations.reserve(
                ReserveIPs(wanted, seconds), uuid4().hex, attempt=attempt
            )
            # Each worker reads documents in the same way if they name no transaction.
            later = ExtendReservation(made.account_id, made.id, seconds - 1)
            services.reservations.extend(later, uuid4().hex)

    def _fill(self, services: Instance, start: Pool, rested: str) -> None:
        """Add the addresses, and assign them or let them rest."""
        for letter, owner in sorted(start):
            services.pool.create(CreateIP(ADDRESSES[letter], "z", "h.example.com"), uuid4().hex)
            if owner == UNASSIGNED and letter in rested:
                _let_rest(services, ADDRESSES[letter], self.ids["Y"], 60)
            elif owner[0] == RESTS:
                _let_rest(services, ADDRESSES[letter], self.ids[owner[1:]], 10**7)
            elif owner.isupper():
                services.ips.assign(AssignIP(self.ids[owner], ADDRESSES[letter]), uuid4().hex)

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

    def send(
        self, number: int, operation: Operation, request_id: str, key: str | None
    ) -> Reply | None:
        """Send an operation to a worker. Return the reply, or None for a repair."""
        worker = self._workers[number]
        worker.services.background.read_settings()  # as its thread does each second
        if operation.verb == "repairs":
            self.repair(number, operation.what)
            return None
        method, path, data = operation.request(self.ids)
        headers = {"X-Auth-Token": self._tokens[operation.caller], "X-Request-ID": request_id}
        if key:
            headers["Idempotency-Key"] = key
        if operation.verb == "moves":
            headers["If-Match"] = "*"
        body = None if data is None else {"data": data}
        reply = worker.client.open(path, method=method, json=body, headers=headers)
        content = reply.get_json()
        done, message = reply.status_code < 300, content.get("message", "")
        if done and operation.verb == "drains":
            return Reply(reply.status_code, message, frozenset(), content["data"]["pending"])
        letters = _letters(content["data"]) if done else frozenset()
        return Reply(reply.status_code, message, letters)

    def repair(self, number: int, what: str = "") -> None:
        """Run `kazoo-ips doctor --repair`, or what ends the rests that are over."""
        if what == "rests":
            # Not the background worker's own method: that would hold the lease in the next runs
            # too.
            self._workers[number].services.background._states._expiry.end_due()
            return
        list(self._workers[number].services.doctor.examine(repair=True))

    def recover(self, living: Sequence[int]) -> None:
        """Run the background work of the living workers, then recovery by a new worker."""
        for number in living:
            self._workers[number].run_background_work()
        new = composition.build(self._settings, clock=self.clock, pause=sleeping(self.clock))
        new.background.recover()
        for seconds in FOLLOWER_STEPS:
            self.clock.now += seconds
            new.background.follow()
        new.drains.carry_out_all()

    def carry_out_drains(self) -> None:
        """Disable what is available on drained hosts, as a new worker does in the background."""
        new = composition.build(self._settings, clock=self.clock, pause=sleeping(self.clock))
        new.drains.carry_out_all()

    # Documents.

    def reset(self) -> None:
        """Restore the documents of the start; let the workers finish their queued work first."""
        for worker in self._workers.values():
            worker.run_background_work()
        self.clock.reset()
        now = self.snapshot().documents
        start = dict(self._start.documents)
        self._restore("pool", start.pop("pool"), now["pool"])
        # The change follower skips the changes of earlier runs.
        since = self._databases["pool"].changes(since="now", limit=1)["last_seq"]
        follower = {**start["records"]["follower-healing"], "since": str(since)}
        start["records"] = {**start["records"], "follower-healing": follower}
        for name, documents in start.items():
            self._restore(name, documents, now[name])

    def _restore(
        self,
        name: str,
        start: Mapping[str, Mapping[str, Any]],
        now: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Restore the documents of one database, by id."""
        deleted = [
            {"_id": i, "_rev": document["_rev"], "_deleted": True}
            for i, document in now.items()
            if i not in start
        ]
        restored = [
            {**d, "_rev": now[i]["_rev"]} if i in now else _without_revision(d)
            for i, d in start.items()
            if _without_revision(d) != _without_revision(now.get(i, {}))
        ]
        changed = deleted + restored
        for written in self._databases[name].put_all(changed) if changed else ():
            assert written.revision, "the pool differs from that at the start"

    def snapshot(self) -> Snapshot:
        """Read all documents and compare them with each other."""
        documents = self._documents()
        names = {account_id: name for name, account_id in self.ids.items()}
        pool = documents["pool"]
        owners = {i: self._owner(d, names) for i, d in pool.items()}
        violations = [
            f"unfinished record: {_shown(document)}"
            for document in documents["records"].values()
            if not _is_kept(document)
        ]
        violations += [
            f"{LETTERS[i]} is in conflict" for i, d in pool.items() if "_conflicts" in d
        ]
        for account in ACCOUNTS:
            ledger = documents["records"].get(f"limit-{self.ids[account]}")
            counted = {i for named in ledger["own"].values() for i in named} if ledger else set()
            violations += [
                f"the ledger of {account} lacks {LETTERS[i]}"
                for i in sorted(owners.keys() - counted)
                if ledger and owners[i] == account
            ]
            copies = documents[COPIES[account]]
            for i in sorted(copies.keys() | owners.keys()):
                owned = owners.get(i) == account
                if owned and i not in copies:
                    violations.append(f"{account} lacks the copy of {LETTERS[i]}")
                elif not owned and i in copies:
                    violations.append(f"{account} has a copy of {LETTERS[i]}")
                elif owned and _compared(copies[i]) != _compared(pool[i]):
                    violations.append(f"{account} has an old copy of {LETTERS[i]}")
        found = {(LETTERS[i], owner) for i, owner in owners.items()}
        hosts = documents["records"].get("place-settings", {}).get("hosts", {})
        if any(settings.get("drained") for settings in hosts.values()):
            found.add((HOST, DRAINED))
        return Snapshot(frozenset(found), violations, documents)

    def _owner(self, document: Mapping[str, Any], names: Mapping[str, str]) -> str:
        """Return the owner of an address, as `read_pool` has it."""
        match document["pvt_status"]:
            case "assigned":
                return names.get(document.get("pvt_assigned_to", ""), "?")
            case "available":
                return UNASSIGNED
            case "aging" if document["pvt_available_at"] > self.clock.now + EPOCH:
                return f"{RESTS}{names[document['pvt_last_assigned_to']]}"
            case "reserved" if document["pvt_reserved_until"] > self.clock.now + EPOCH:
                return names[document["pvt_reserved_for"]].lower()
            case "aging" | "reserved":
                return UNASSIGNED
        return str(document["pvt_status"])

    def _documents(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Read the databases that have changed since they were read; return all documents."""
        for full, state in states(self._couch, self._names).items():
            name = self._names[full]
            if name not in self._read or self._read[name][0] != state:
                self._read[name] = state, _documents(self._databases[name])
        return {name: documents for name, (_, documents) in self._read.items()}

    def recorded(self) -> list[Recorded]:
        """Return what the trails record as done, also those of deleted addresses."""
        ips = IPRepository(self._couch, ListRepository(self._couch))
        found: list[Recorded] = []
        for address, each in ips.branches(list(LETTERS)).items():
            ip = each.current
            events = [e for e in ip.trail if e.kind not in NOT_DONE] if ip else []
            found += [Recorded(LETTERS[address], str(e.kind), e.request_id) for e in events]
        return found

    @contextmanager
    def scheduled(self) -> Iterator[None]:
        """Let the scheduler control the requests and sleeps of the workers."""
        with (
            patch(PATCHED, gated(self.describe)),
            patch(READERS[0], _SameThread),
            patch(READERS[1], _SameThread),
        ):
            yield

    def describe(self, method: str, target: str, body: bytes | None) -> Request | None:
        """Return what a request reads or writes; None if no schedule stops it.

        Requests for accounts, tokens, and documents that never change do not stop.
        """
        database, *path = target.split("?", maxsplit=1)[0].strip("/").split("/")
        name = self._names.get(unquote(database).removeprefix(self._settings.prefix))
        document = unquote("/".join(path))
        if name is None or document in ("", INDEX) or re.fullmatch("[0-9a-f]{32}", document):
            return None
        if document == "place-settings" and method == "GET":
            return None  # the background thread reads them
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


class _SameThread(Executor):
    """Runs each call at once, in the thread that submits it."""

    def __init__(self, _: int) -> None:
        """:param _: the number of threads, of which there are none"""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call and return its result as a future."""
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done


def _let_rest(services: Instance, address: str, account_id: str, seconds: int) -> None:
    """Let an available address rest that an account had."""
    zone = Place(Scope.ZONE, "z")
    services.places.set(ChangePlace(zone, aging_seconds=seconds))
    services.ips.assign(AssignIP(account_id, address), uuid4().hex)
    services.ips.release(ReleaseIP(None, address), uuid4().hex)
    services.places.set(ChangePlace(zone, aging_seconds=0))


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
    """Return whether a record may remain. An unfinished transaction may not."""
    return document["type"] != "transaction" or bool(document.get("finished"))


def _shown(document: Mapping[str, Any]) -> str:
    return " ".join(str(document.get(name, "")) for name in ("type", "action", "state"))


def _letters(data: Mapping[str, Any]) -> frozenset[str]:
    made = data.get("ips", [data])
    return frozenset(LETTERS[ip if isinstance(ip, str) else ip["ip"]] for ip in made)
