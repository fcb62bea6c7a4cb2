"""Documents, views and bulk writes of a CouchDB, with outcomes instead of hopes.

The one room that imports couchdb-python, together with its neighbours. Knows revisions and
rows; does not know what is in the documents.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from operator import attrgetter
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import couchdb
import orjson
from cachetools import LRUCache, cachedmethod
from cachetools.keys import methodkey
from couchdb.http import Resource

from kazoo_ips.couch.batching import Batches
from kazoo_ips.couch.http_client import NotInTime, Observe, OutcomeUnknown, Transport
from kazoo_ips.couch.http_connections import Connections
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.errors import (
    DatastoreMissing,
    DocumentNotFound,
    RevisionConflict,
    WriteInDryRun,
)
from kazoo_ips.model import Outcome, Written, generation
from kazoo_ips.observability import request_context
from kazoo_ips.processes.rendezvous import FIRST_QUESTION, Rendezvous

log = logging.getLogger(__name__)

Document = dict[str, Any]
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)
"""An id that stands in a URL as it is."""
_MANY = 200
"""Documents of which two halves are read side by side."""
_PATIENCE = 0.02
"""Seconds that a question about a document waits for its turn to be asked with others: several
times what a busy CouchDB takes for a batch."""
_PATIENCE_WRITING = 0.2
"""Seconds that a document waits for its turn to be written with others: a slow disk takes a tenth
of one for each commit, however many documents are in it."""
_GATHER, _GATHER_WRITES = 0.005, 0.02
"""Seconds at the most that reads, and writes, wait for others that are on their way."""
_PATIENCE_ALIKE = 2.5
"""Seconds to wait for the answer to the very same question: to ask it once more beside it would
only make both slower, and a view of the embedded server can take a second."""
_DATABASES, _QUERIES = 1000, 100
"""So many are remembered, with how long their answers take."""
Key = list[Any]

_FORBIDDEN = ("forbidden", "unauthorized")
"""What CouchDB calls it when the user may not, or a `validate_doc_update` says no."""


class Row(NamedTuple):
    """One row of a view."""

    id: str
    key: Any
    value: Any


class _Told(NamedTuple):
    """An answer for all who asked for it, and by what name CouchDB was asked."""

    answer: Any
    asked_as: str


class _Write(NamedTuple):
    """A document to be written, and how many nodes must have it."""

    document: Document
    w: int | None


class Database:
    """One database, by its name in CouchDB. Making this object sends nothing."""

    def __init__(self, name: str, resource: Resource) -> None:
        self.name = name
        self._resource = resource
        self._credentials = resource.credentials
        self._transport: Transport = resource.session
        self._lock = Lock()
        self._writers = Rendezvous()
        self._queries: LRUCache[str, Batches[str, _Told]] = LRUCache(_QUERIES)
        self._reads: Batches[str, _Told] = Batches(
            self._read, self._read_all, _PATIENCE, FIRST_QUESTION, _GATHER
        )
        self._writes: Batches[_Write, _Told] = Batches(
            self._write, self._write_all, _PATIENCE_WRITING, self._writers, _GATHER_WRITES
        )
        self._replicas: int | None = None

    @cachedmethod(attrgetter("_queries"), key=methodkey, lock=attrgetter("_lock"))
    def _alike(self, _url: str) -> Batches[str, _Told]:
        """Where those meet who ask the same: different questions do not wait for each other."""
        return Batches(self._rows_at, self._rows_for_all, _PATIENCE_ALIKE, FIRST_QUESTION, _GATHER)

    def get(self, document_id: str, **params: Any) -> Document:
        """A document as it is now.

        :raises DocumentNotFound: it is not there
        :raises DatastoreMissing: the database is not there
        """
        # The most frequent request by far; the driver takes longer to join a URL than to send it.
        plain = _PLAIN.fullmatch(document_id)
        path = document_id if plain else "/".join(quote(p, safe="") for p in _path(document_id))
        url = f"{self._resource.url}/{path}"
        if params:
            url += _encoded(tuple(params.items()))
        document: Document = json.loads(self._transport.ask("GET", url, self._credentials))
        return document

    def find(self, document_id: str, **params: Any) -> Document | None:
        """A document as it is now, or None."""
        try:
            return self.get(document_id, **params)
        except DocumentNotFound:
            return None

    def read(self, document_id: str) -> Document | None:
        """A document as it is now, or None; those read at the same time share a request.

        One in conflict names its other revisions in `_conflicts`. Who asked for the same document
        at that time has the same object: it is not to be changed.
        """
        document: Document | None = _share(self._reads, document_id)
        return document

    def _read(self, document_id: str) -> _Told:
        return _Told(self.find(document_id, conflicts=True), _name())

    def _read_all(self, document_ids: Sequence[str]) -> list[_Told | None]:
        try:
            there, _ = self.look_up(set(document_ids))
        except NotInTime:  # it may be one of them alone that cannot be read
            return [None for _ in document_ids]
        return [_Told(there.get(i), _name()) for i in document_ids]

    def leaves(self, document_id: str, **params: Any) -> list[Document]:
        """Every current revision of a document: more than one in a conflict, tombstones too."""
        path = _path(document_id)
        try:
            answer = self._resource.get(path, **_query({"open_revs": "all", **params}))
        except DocumentNotFound:
            return []
        return [leaf["ok"] for leaf in json.load(answer[2]) if "ok" in leaf]

    def put(self, document: Mapping[str, Any], **params: Any) -> Written:
        """Write one document at the revision it carries.

        :returns: done, refused or unknown: a write never fails silently and is never repeated
        :raises DatastoreUnreachable: nothing was sent
        """
        self._before_write()
        path = _path(document["_id"])
        try:
            status, _, body = self._resource.put(path, body=document, **_query(params))
        except RevisionConflict:
            return Written(Outcome.REFUSED)
        except OutcomeUnknown:
            return Written(Outcome.UNKNOWN)
        outcome = Outcome.UNKNOWN if status == 202 else Outcome.DONE
        return Written(outcome, json.load(body).get("rev"))

    def _before_write(self) -> None:
        """Called where anything is written, by whoever wants it written.

        :raises WriteInDryRun: it may not
        """
        if request_context.is_dry_run():
            raise WriteInDryRun(self.name)

    def expect_write(self) -> None:
        """Say that this thread is going to `write` here before long: others may wait."""
        if not request_context.is_dry_run():
            self._writers.expect()

    def write(self, document: Document, w: int | None = None) -> Written:
        """Write one document as `put` does; those written at the same time share a request.

        :param w: how many nodes must have it for it to be done
        """
        self._before_write()
        written: Written = _share(self._writes, _Write(document, w))
        return written

    def _write(self, write: _Write) -> _Told:
        return _Told(self.put(write.document, w=write.w), _name())

    def _write_all(self, writes: Sequence[_Write]) -> list[_Told | None]:
        """Those of different documents together. What CouchDB forbids, it has to say by itself."""
        w = writes[0].w
        together = {each.document["_id"]: each for each in reversed(writes) if each.w == w}
        rows = self._put_all([each.document for each in together.values()], w=w)
        told = {
            id(each): _Told(_written(row), _name())
            for each, row in zip(together.values(), rows, strict=True)
            if row.get("error") not in _FORBIDDEN
        }
        return [told.get(id(each)) for each in writes]

    def remove(self, document_id: str, revision: str) -> Written:
        """Delete one document at a revision; the outcome is as for `put`."""
        self._before_write()
        try:
            status, _, body = self._resource.delete(_path(document_id), rev=revision)
        except (RevisionConflict, DocumentNotFound):
            return Written(Outcome.REFUSED)
        except OutcomeUnknown:
            return Written(Outcome.UNKNOWN)
        outcome = Outcome.UNKNOWN if status == 202 else Outcome.DONE
        return Written(outcome, json.load(body).get("rev"))

    def put_all(self, documents: Sequence[Mapping[str, Any]], **params: Any) -> list[Written]:
        """Write many documents in one request; each has its own outcome, in the order given."""
        self._before_write()
        rows = self._put_all(documents, **params)
        for row in rows:
            if row.get("error") in _FORBIDDEN:
                log.error("CouchDB refuses %s: %s", row.get("id"), row.get("reason"))
        return [_written(row) for row in rows]

    def _put_all(self, documents: Sequence[Mapping[str, Any]], **params: Any) -> list[Document]:
        """What CouchDB says of each, or would have said."""
        if not documents:
            return []
        body = {"docs": list(documents)}
        try:
            _, _, answer = self._resource.post("_bulk_docs", body=body, **_query(params))
        except RevisionConflict:  # not CouchDB's own words, but a proxy may say so
            return [{"error": "conflict"} for _ in documents]
        except OutcomeUnknown:
            return [{"error": "unknown"} for _ in documents]
        rows: list[Document] = json.load(answer)
        return rows

    def graft(self, document: Mapping[str, Any], parent: str) -> bool:
        """Write a document at a revision of our choosing, as replication does.

        Whoever grafts the same document writes the same revision, so that nobody conflicts.

        :param document: with the `_rev` that it shall have
        :param parent: the revision it follows
        :returns: as `replicate`
        :raises OutcomeUnknown: nobody says
        """
        self._before_write()
        generation, digest = document["_rev"].split("-")
        ids = [digest, parent.split("-")[1]]
        return self.replicate({**document, "_revisions": {"start": int(generation), "ids": ids}})

    def replicate(self, document: Mapping[str, Any]) -> bool:
        """Write a revision that some node has to all of them, as replication does.

        :param document: with its `_rev` and the `_revisions` that led to it
        :returns: whether all nodes that answered have it now; it can be a single one
        :raises OutcomeUnknown: nobody says
        """
        body = {"docs": [document], "new_edits": False}
        status, _, answer = self._resource.post("_bulk_docs", body=body)
        return bool(status == 201) and not json.load(answer)

    def reaches_majority(self) -> bool:
        """Whether a majority of the nodes takes writes at this moment.

        CouchDB says so of a write that makes a new revision only, not of a read nor of
        `replicate`, and makes none on a tombstone. What is written here has no other purpose.
        """
        return self.put({"_id": "_local/kazoo_ips"}).outcome is Outcome.DONE

    def get_all(self, document_ids: Iterable[str]) -> dict[str, Document]:
        """Those of these documents that are there, by id, in one request.

        One by itself is read as `read` does it.
        """
        ids = list(document_ids)
        if len(ids) != 1:
            return self.look_up(ids)[0]
        document = self.read(ids[0])
        return {ids[0]: document} if document else {}

    def look_up(
        self, document_ids: Iterable[str]
    ) -> tuple[dict[str, Document], dict[str, Document]]:
        """Those of these documents that are there, and the tombstones of those that were; by id.

        A document in conflict names its other revisions in `_conflicts`. For 1,000 documents
        `_bulk_get` takes CouchDB a quarter of the time of `_all_docs`, which opens one by one what
        it is given keys of (3.5.0: 0.13 s and 0.45 s). Two halves side by side take three fifths
        of that again, as CouchDB makes each answer on one core; writes gain nothing by it.

        :raises NotInTime: CouchDB could not read one of them
        """
        ids = list(document_ids)
        if len(ids) < _MANY:
            return self._look_up(ids)
        half = len(ids) // 2
        with ThreadPoolExecutor(1) as beside:
            other = beside.submit(copy_context().run, self._look_up, ids[half:])
            there, gone = self._look_up(ids[:half])
        more_there, more_gone = other.result()
        return there | more_there, gone | more_gone

    def _look_up(self, ids: Sequence[str]) -> tuple[dict[str, Document], dict[str, Document]]:
        body = {"docs": [{"id": document_id} for document_id in ids]}
        results = _object(self._resource.post("_bulk_get", body=body))["results"]
        there: dict[str, Document] = {}
        gone: dict[str, Document] = {}
        for result in results:
            leaves = [_leaf(leaf) for leaf in result["docs"] if not _is_missing(leaf)]
            live = [leaf for leaf in leaves if not leaf.get("_deleted")]
            if live:
                there[result["id"]] = _winner(live)
            elif leaves:
                gone[result["id"]] = _winner(leaves)
        return there, gone

    def range(self, start: str, end: str, chunk: int = 1000) -> Iterator[Document]:
        """All documents whose ids lie between two, read in chunks.

        One in conflict names its other revisions in `_conflicts`.
        """
        while True:
            answer = self._resource.get(
                "_all_docs",
                **_query(
                    {
                        "startkey": start,
                        "endkey": end,
                        "limit": chunk,
                        "include_docs": True,
                        "conflicts": True,
                    }
                ),
            )
            rows = _object(answer)["rows"]
            yield from (row["doc"] for row in rows)
            if len(rows) < chunk:
                return
            start = rows[-1]["id"] + "\0"

    def rows(self, view: str, **params: Any) -> list[Row]:
        """The rows of a view, all read at once so that errors show here and nowhere else.

        Who sends the same query at the same time shares a request, and the rows: they are not to
        be changed.

        :param view: `design document/view`
        :param params: CouchDB's own; `keys` is sent as a body, other values as JSON
        :raises DatastoreMissingView: the view is not there
        """
        design, name = view.split("/")
        path = ["_design", design, "_view", name]
        keys = params.pop("keys", None)
        if keys is not None:
            answer = self._resource.post(path, body={"keys": keys}, **_query(params))
            return _rows(answer[2].read())
        url = f"{self._resource.url}/{'/'.join(path)}?{urlencode(_query(params))}"
        rows: list[Row] = _share(self._alike(url), url)
        return rows

    def _rows_at(self, url: str) -> _Told:
        return _Told(_rows(self._transport.ask("GET", url, self._credentials)), _name())

    def _rows_for_all(self, urls: Sequence[str]) -> list[_Told]:
        return [self._rows_at(urls[0])] * len(urls)  # they are all the same

    def select(self, selector: Mapping[str, Any], limit: int, **params: Any) -> list[Document]:
        """Documents by a Mango selector: for questions that no view answers."""
        body = {"selector": selector, "limit": limit, **params}
        docs: list[Document] = _object(self._resource.post("_find", body=body))["docs"]
        return docs

    def changes(self, **params: Any) -> Document:
        """CouchDB's `_changes`, one request."""
        return _object(self._resource.get("_changes", **_query(params)))

    def attachment(self, document_id: str, name: str) -> bytes:
        """The bytes of an attachment."""
        _, _, body = self._resource.get([document_id, name])
        content: bytes = body.read()
        return content

    def create(self) -> bool:
        """Make the database; False when it is there already."""
        self._before_write()
        try:
            self._resource.put()
        except RevisionConflict:  # 412, file_exists
            return False
        return True

    def delete(self) -> None:
        """Delete the database; nothing happens when it is not there."""
        self._before_write()
        try:
            self._resource.delete()
        except (DatastoreMissing, DocumentNotFound):
            return

    def info(self) -> Document:
        """What CouchDB says of the database.

        :raises DatastoreMissing: it is not there
        """
        return _object(self._resource.get())

    @property
    def replicas(self) -> int:
        """On how many nodes CouchDB keeps each document; 1 where there is no cluster.

        Asked once, and by each thread that needs it before there is an answer: no thread waits
        for another's request.
        """
        if self._replicas is None:
            self._replicas = int(self.info().get("cluster", {}).get("n", 1))
        return self._replicas

    def security(self) -> Document:
        """Who may use the database, CouchDB's `_security`; empty where the server has none."""
        try:
            return _object(self._resource.get("_security"))
        except DocumentNotFound:
            return {}

    def secure(self, security: Mapping[str, Any]) -> None:
        """Say who may use the database. It has no revision: the last one to write wins."""
        self._before_write()
        self._resource.put("_security", body=security)

    def clean_up_views(self) -> None:
        """Let CouchDB remove the indexes that no design document needs any more."""
        self._before_write()
        self._resource.post("_view_cleanup", headers={"Content-Type": "application/json"})


class Couch:
    """A CouchDB by its URL.

    :param url: with user and password in it
    :param prefix: stands before every database's name, for tests and shared servers
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is one setting
        self,
        url: str,
        prefix: str = "",
        connect_timeout: float = 1.0,
        read_timeout: float = 5.0,
        connections: int = 8,
        trace: Callable[[str, str], None] | None = None,
        observe: Observe | None = None,
        breaker: LoginBreaker | None = None,
    ) -> None:
        kept = Connections(url, connect_timeout, read_timeout, connections)
        self._server = couchdb.Server(url, session=Transport(kept, trace, observe, breaker))
        self._prefix = prefix
        self._lock = Lock()
        self._databases: LRUCache[str, Database] = LRUCache(_DATABASES)

    @cachedmethod(attrgetter("_databases"), key=methodkey, lock=attrgetter("_lock"))
    def database(self, name: str) -> Database:
        """The database of that name. Nothing is sent.

        All who use one at the same time have the same object, and so share requests.
        """
        full = self._prefix + name
        return Database(full, self._server.resource(full))

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The name and password of the URL, or None."""
        credentials: tuple[str, str] | None = self._server.resource.credentials
        return credentials

    def users(self) -> Database:
        """The database of CouchDB's own users, the same for every prefix. Nothing is sent."""
        return Database("_users", self._server.resource("_users"))

    def session(self) -> Document:
        """Who CouchDB takes us for, by `userCtx`.

        :raises DatastoreLoginRefused: name or password are wrong
        """
        context: Document = _object(self._server.resource.get("_session"))["userCtx"]
        return context

    def databases(self) -> list[str]:
        """The names of all databases with our prefix, without it."""
        names = json.load(self._server.resource.get("_all_dbs")[2])
        return [n.removeprefix(self._prefix) for n in names if n.startswith(self._prefix)]

    def greeting(self) -> Document:
        """What the server says of itself.

        :raises DatastoreUnreachable: it does not answer
        """
        return _object(self._server.resource.get(""))

    def version(self) -> str:
        """The server's version.

        :raises DatastoreUnreachable: it does not answer
        """
        return str(self.greeting().get("version", "?"))


def _winner(live: list[Document]) -> Document:
    """The one that CouchDB shows first, by its own rule, and what it is in conflict with."""
    if len(live) == 1:
        return live[0]
    first, *others = sorted(
        live, key=lambda leaf: (generation(leaf["_rev"]), leaf["_rev"]), reverse=True
    )
    return {**first, "_conflicts": [leaf["_rev"] for leaf in others]}


def _is_missing(leaf: Mapping[str, Any]) -> bool:
    return "error" in leaf and leaf["error"].get("error") == "not_found"


def _leaf(leaf: Mapping[str, Any]) -> Document:
    """One revision of an answer of `_bulk_get`.

    :raises NotInTime: there is an error in its place: most of its copies are out of reach
    """
    if "error" in leaf:
        error = leaf["error"]
        raise NotInTime(f"{error.get('id')}: {error.get('error')} {error.get('reason')}")
    document: Document = leaf["ok"]
    return document


def _rows(body: bytes) -> list[Row]:
    # Rows are only looked at; a document has to keep its numbers as they are, see `_object`.
    rows = orjson.loads(body)["rows"]
    return [Row(row.get("id", ""), row["key"], row["value"]) for row in rows]


def _share(batches: Batches[Any, _Told], asked: Any) -> Any:
    """The answer to a question, noted where somebody else has asked it."""
    started = perf_counter()
    told = batches.answer(asked)
    current = request_context.current()
    if current is not None and current.couchdb_id != told.asked_as:
        current.share(told.asked_as, perf_counter() - started)
    return told.answer


def _name() -> str:
    """The name by which CouchDB is asked at this moment."""
    current = request_context.current()
    return current.couchdb_id if current else ""


def _path(document_id: str) -> list[str]:
    # The slash of such an id is the one that CouchDB wants to see.
    named = document_id.startswith(("_design/", "_local/"))
    return document_id.split("/", 1) if named else [document_id]


@lru_cache
def _encoded(params: tuple[tuple[str, Any], ...]) -> str:
    return f"?{urlencode(_query(dict(params)))}"


def _query(params: Mapping[str, Any]) -> dict[str, str]:
    """CouchDB reads most parameters as JSON; a revision is a bare word."""
    return {
        name: value if name in ("rev", "since", "style", "open_revs") else json.dumps(value)
        for name, value in params.items()
        if value is not None
    }


def _object(answer: tuple[int, Mapping[str, str], Any]) -> Document:
    # Not with the faster parser: a whole number beyond 64 bits would come back another one.
    body: Document = json.load(answer[2])
    return body


def _written(row: Mapping[str, Any]) -> Written:
    if "error" in row:
        refused = row["error"] in ("conflict", *_FORBIDDEN)
        return Written(Outcome.REFUSED if refused else Outcome.UNKNOWN)
    return Written(Outcome.UNKNOWN if row.get("accepted") else Outcome.DONE, row["rev"])
