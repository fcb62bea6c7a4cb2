"""The client of a CouchDB server: documents, views and bulk writes.

Each write returns its outcome: done, refused or unknown. This module handles revisions and rows,
and does not interpret the content of documents.
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
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

import couchdb
import msgspec
from cachetools import LRUCache, cachedmethod
from cachetools.keys import methodkey
from couchdb.http import Resource

from kazoo_ips.couch import view_streams
from kazoo_ips.couch.batching import READ_SIBLINGS, Batcher, Siblings
from kazoo_ips.couch.http_client import Observe, Transport
from kazoo_ips.couch.http_connections import Connections
from kazoo_ips.couch.login_circuit_breaker import LoginBreaker
from kazoo_ips.couch.responses import OutcomeUnknown, ReadFailed, Response
from kazoo_ips.errors import (
    DatastoreMissing,
    DocumentNotFound,
    RevisionConflict,
    WriteInDryRun,
)
from kazoo_ips.model import Outcome, Written, generation
from kazoo_ips.observability import request_context

if TYPE_CHECKING:
    from kazoo_ips.observability.spans import WorkSpan

log = logging.getLogger(__name__)

Document = dict[str, Any]
_PLAIN_ID = re.compile(r"[\w.-]+", re.ASCII)
"""A document id that needs no quoting in a URL."""
_PARALLEL_READ = 200
"""Minimum number of documents of which two halves are read in parallel."""
_MAX_WAIT_READ = 0.02
"""Seconds that the read of a document waits for its turn in a batch: several times the duration of
a batch in a busy CouchDB."""
_MAX_WAIT_WRITE = 0.2
"""Seconds that a write waits for its turn in a batch. A slow disk takes a tenth of a second for
each commit, however many documents it contains."""
_MAX_GATHER_READS, _MAX_GATHER_WRITES = 0.005, 0.02
"""Maximum seconds that a batch waits for requests that other threads have announced."""
_MAX_WAIT_SAME_QUERY = 2.5
"""Seconds to wait for the response to the same query. A second copy of the query would only make
both slower, and a view of the embedded server can take a second."""
_DATABASES, _QUERIES = 1000, 100
"""The number of databases, and of queries per database, whose batchers are kept."""
Key = list[Any]

_PLAIN_PARAMETERS = ("rev", "since", "style", "open_revs", "feed", "startkey_docid")
"""Query parameters that are plain text. The others are JSON."""
_FORBIDDEN = ("forbidden", "unauthorized")
"""CouchDB's errors if the user lacks a permission, or a `validate_doc_update` rejects a
document."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a view.

    :param id: the id of the document; empty for a row of a reduce
    """

    key: Any
    value: Any
    id: str = ""


class _Rows(msgspec.Struct, gc=False):
    rows: list[Row]


_DECODE_ROWS = msgspec.json.Decoder(_Rows).decode


class _Shared(NamedTuple):
    """A result for all threads that requested it.

    :param sent_as: the beginning of the request's id in CouchDB's log
    :param sender: the span of the work that has sent it, if it has one
    """

    result: Any
    sent_as: str
    sender: "WorkSpan | None"


class _Write(NamedTuple):
    """A document to be written, and the number of nodes that must confirm it."""

    document: Document
    w: int | None


class Database:
    """One database, by its full name in CouchDB. Creating this object sends nothing."""

    def __init__(self, name: str, server: Resource) -> None:
        self.name = name
        self._server = server
        self._resource = resource = server(name)
        self._credentials = resource.credentials
        self._transport: Transport = resource.session
        self._lock = Lock()
        self._writers = Siblings()
        self._queries: LRUCache[str, Batcher[str, _Shared]] = LRUCache(_QUERIES)
        self._reads: Batcher[tuple[str, ...], _Shared] = Batcher(
            self._read, self._read_all, _MAX_WAIT_READ, READ_SIBLINGS, _MAX_GATHER_READS
        )
        self._writes: Batcher[_Write, _Shared] = Batcher(
            self._write, self._write_all, _MAX_WAIT_WRITE, self._writers, _MAX_GATHER_WRITES
        )
        self._replicas: int | None = None

    @cachedmethod(attrgetter("_queries"), key=methodkey, lock=attrgetter("_lock"))
    def _query_batcher(self, _url: str) -> Batcher[str, _Shared]:
        """Return the batcher of one query. Different queries do not wait for each other."""
        return Batcher(
            self._query_one, self._query_all, _MAX_WAIT_SAME_QUERY, READ_SIBLINGS,
            _MAX_GATHER_READS,
        )  # fmt: skip

    def get(self, document_id: str, **params: Any) -> Document:
        """Read a document.

        :raises DocumentNotFound: the document does not exist
        :raises DatastoreMissing: the database does not exist
        """
        document: Document = self._send(
            "GET", _quoted(document_id) + _document_query(tuple(params.items()))
        ).content
        return document

    def _send(self, method: str, path: str, body: Any = None, **params: Any) -> Response:
        """Send a request for this database's documents or views.

        The driver is for less frequent requests. It takes longer to join a URL than to send it.

        :param path: below the database, quoted
        :param params: CouchDB's parameters; None is left out
        """
        url = f"{self._resource.url}/{path}{_query(params)}"
        return self._transport.send(method, url, body, {}, self._credentials)

    def find(self, document_id: str, **params: Any) -> Document | None:
        """Read a document, or return None if it does not exist."""
        try:
            return self.get(document_id, **params)
        except DocumentNotFound:
            return None

    def read(self, document_id: str) -> Document | None:
        """Read a document, or return None if it does not exist. Concurrent reads are batched.

        A document in conflict has its other revisions in `_conflicts`. Threads that read the same
        document at the same time get the same object. They must not change it.
        """
        return self.read_several((document_id,)).get(document_id)

    def read_several(self, document_ids: tuple[str, ...]) -> dict[str, Document]:
        """Read documents, by id, as `read` does. Those that do not exist are left out.

        The result may contain other documents, which other threads read at the same time.
        """
        documents: dict[str, Document] = _share(self._reads, document_ids)
        return documents

    def _read(self, document_ids: tuple[str, ...]) -> _Shared:
        if len(document_ids) > 1:
            return _shared(self.look_up(document_ids)[0])
        document = self.find(document_ids[0], conflicts=True)
        return _shared({document_ids[0]: document} if document else {})

    def _read_all(self, reads: Sequence[tuple[str, ...]]) -> list[_Shared | None]:
        try:
            live, _ = self.look_up({i for document_ids in reads for i in document_ids})
        except ReadFailed:  # perhaps only one of them cannot be read
            return [None for _ in reads]
        return [_shared(live)] * len(reads)

    def leaves(self, document_id: str, **params: Any) -> list[Document]:
        """Read all leaf revisions of a document, tombstones included: several in a conflict.

        :raises ReadFailed: CouchDB could not read one of them
        """
        try:
            response = self._send("GET", _quoted(document_id), open_revs="all", **params)
        except DocumentNotFound:
            return []
        missing = [leaf["missing"] for leaf in response.content if "ok" not in leaf]
        if missing:  # not a document that does not exist: that is 404
            raise ReadFailed(f"{document_id}: revisions are missing: {missing}")
        return [leaf["ok"] for leaf in response.content]

    def leaves_of(self, document_ids: Sequence[str]) -> dict[str, list[Document]]:
        """Read all leaf revisions of several documents in one request, with their `_revisions`.

        :raises ReadFailed: CouchDB could not read one of them
        """
        body = {"docs": [{"id": document_id} for document_id in document_ids]}
        results = self._send("POST", "_bulk_get", body, revs=True).content["results"]
        return {
            result["id"]: [_leaf(leaf) for leaf in result["docs"] if not _is_missing(leaf)]
            for result in results
        }

    def revision(self, document_id: str, revision: str) -> Document | None:
        """Read one revision of a document. Return None if CouchDB does not have it any more."""
        return self.find(document_id, rev=revision)

    def put(self, document: Mapping[str, Any], **params: Any) -> Written:
        """Write one document at its `_rev`.

        :returns: the outcome: done, refused or unknown. The write is never repeated
        :raises DatastoreUnreachable: nothing was sent
        """
        self._require_no_dry_run()
        try:
            response = self._send("PUT", _quoted(document["_id"]), document, **params)
        except RevisionConflict:
            return Written(Outcome.REFUSED)
        except OutcomeUnknown:
            return Written(Outcome.UNKNOWN)
        outcome = Outcome.UNKNOWN if response.status == 202 else Outcome.DONE
        return Written(outcome, response.content.get("rev"))

    def _require_no_dry_run(self) -> None:
        """Refuse a write in a dry run. The thread that wants to write calls it.

        :raises WriteInDryRun: the current request is a dry run
        """
        if request_context.is_dry_run():
            raise WriteInDryRun(self.name)

    def expect_write(self) -> None:
        """Announce that this thread will soon call `write`, so that a leader may wait for it."""
        if not request_context.is_dry_run():
            self._writers.expect()

    def expect_no_write(self) -> None:
        """Announce that this thread will not call `write` after all."""
        self._writers.arrived()

    def write(self, document: Document, w: int | None = None) -> Written:
        """Write one document as `put` does. Concurrent writes are batched.

        :param w: the number of nodes that must confirm it
        """
        self._require_no_dry_run()
        written: Written = _share(self._writes, _Write(document, w))
        return written

    def _write(self, write: _Write) -> _Shared:
        return _shared(self.put(write.document, w=write.w))

    def _write_all(self, writes: Sequence[_Write]) -> list[_Shared | None]:
        """Write different documents as one request.

        A write that CouchDB forbids gets None, so that it is sent by itself and its own thread
        raises the error.
        """
        w = writes[0].w
        together = {each.document["_id"]: each for each in reversed(writes) if each.w == w}
        rows = self._put_all([each.document for each in together.values()], w=w)
        shared = {
            id(each): _shared(_written(row))
            for each, row in zip(together.values(), rows, strict=True)
            if row.get("error") not in _FORBIDDEN
        }
        return [shared.get(id(each)) for each in writes]

    def remove(self, document_id: str, revision: str) -> Written:
        """Delete one document at a revision. The outcome is as for `put`."""
        self._require_no_dry_run()
        try:
            response = self._send("DELETE", _quoted(document_id), rev=revision)
        except (RevisionConflict, DocumentNotFound):
            return Written(Outcome.REFUSED)
        except OutcomeUnknown:
            return Written(Outcome.UNKNOWN)
        outcome = Outcome.UNKNOWN if response.status == 202 else Outcome.DONE
        return Written(outcome, response.content.get("rev"))

    def put_all(self, documents: Sequence[Mapping[str, Any]], **params: Any) -> list[Written]:
        """Write many documents in one request. Return the outcome of each, in their order."""
        self._require_no_dry_run()
        rows = self._put_all(documents, **params)
        for row in rows:
            if row.get("error") in _FORBIDDEN:
                log.error("CouchDB refuses %s: %s", row.get("id"), row.get("reason"))
        return [_written(row) for row in rows]

    def _put_all(self, documents: Sequence[Mapping[str, Any]], **params: Any) -> list[Document]:
        """Write many documents in one request. Return CouchDB's row for each, in their order.

        If there is no response, each row has the error `unknown`.
        """
        if not documents:
            return []
        body = {"docs": list(documents)}
        try:
            rows: list[Document] = self._send("POST", "_bulk_docs", body, **params).content
        except RevisionConflict:  # CouchDB does not answer 409 here, but a proxy may
            return [{"error": "conflict"} for _ in documents]
        except OutcomeUnknown:
            return [{"error": "unknown"} for _ in documents]
        return rows

    def graft(self, document: Mapping[str, Any], parent: str) -> bool:
        """Write a document with a given revision, as replication does.

        Several clients that graft the same document write the same revision, so that there is no
        conflict.

        :param document: with the `_rev` that it gets
        :param parent: the revision before it
        :returns: as `replicate`
        :raises OutcomeUnknown: as `replicate`
        """
        self._require_no_dry_run()
        generation, digest = document["_rev"].split("-")
        ids = [digest, parent.split("-")[1]]
        return self.replicate({**document, "_revisions": {"start": int(generation), "ids": ids}})

    def replicate(self, document: Mapping[str, Any]) -> bool:
        """Write a revision to all nodes, as replication does.

        :param document: with its `_rev`, and the `_revisions` before it
        :returns: whether all nodes that answered have it now; that can be a single one
        :raises OutcomeUnknown: it is unknown whether any node has it
        """
        return self.replicate_all([document])

    def replicate_all(self, documents: Sequence[Mapping[str, Any]]) -> bool:
        """Write revisions of several documents as `replicate` does.

        :returns: whether all nodes that answered have all of them now
        :raises OutcomeUnknown: it is unknown whether any node has them
        """
        self._require_no_dry_run()
        body = {"docs": list(documents), "new_edits": False}
        response = self._send("POST", "_bulk_docs", body)
        return response.status == 201 and not response.content

    def reaches_majority(self) -> bool:
        """Whether a majority of the nodes accepts writes at this moment.

        Only the status of a write that makes a new revision shows this. The status of a read does
        not, nor that of `replicate`, which makes no new revision on a tombstone. The document that
        is written has no other purpose.
        """
        return self.put({"_id": "_local/kazoo_ips"}).outcome is Outcome.DONE

    def get_all(self, document_ids: Iterable[str]) -> dict[str, Document]:
        """Read several documents in one request. Return those that exist, by id.

        A single document is read as `read` does it.
        """
        ids = list(document_ids)
        if len(ids) != 1:
            return self.look_up(ids)[0]
        document = self.read(ids[0])
        return {ids[0]: document} if document else {}

    def look_up(
        self, document_ids: Iterable[str]
    ) -> tuple[dict[str, Document], dict[str, Document]]:
        """Read several documents. Return those that exist, and the tombstones of deleted ones.

        Both by id. A document in conflict has its other revisions in `_conflicts`. For 1,000
        documents `_bulk_get` takes a quarter of the time of `_all_docs`, which opens each key by
        itself (3.5.0: 0.13 s and 0.45 s). Two halves in parallel take three fifths of the time of
        one `_bulk_get`, because CouchDB makes each response on one core. Writes are not faster in
        parallel.

        :raises ReadFailed: CouchDB could not read one of them
        """
        ids = list(document_ids)
        if len(ids) < _PARALLEL_READ:
            return self._look_up(ids)
        half = len(ids) // 2
        with ThreadPoolExecutor(1) as executor:
            second = executor.submit(copy_context().run, self._look_up, ids[half:])
            live, deleted = self._look_up(ids[:half])
        more_live, more_deleted = second.result()
        return live | more_live, deleted | more_deleted

    def _look_up(self, ids: Sequence[str]) -> tuple[dict[str, Document], dict[str, Document]]:
        body = {"docs": [{"id": document_id} for document_id in ids]}
        results = self._send("POST", "_bulk_get", body).content["results"]
        live: dict[str, Document] = {}
        deleted: dict[str, Document] = {}
        for result in results:
            leaves = [_leaf(leaf) for leaf in result["docs"] if not _is_missing(leaf)]
            candidates = [leaf for leaf in leaves if not leaf.get("_deleted")]
            if candidates:
                live[result["id"]] = _winner(candidates)
            elif leaves:
                deleted[result["id"]] = _winner(leaves)
        return live, deleted

    def range(self, start: str, end: str, chunk: int = 1000) -> Iterator[Document]:
        """Read all documents whose ids lie between two ids, in chunks.

        A document in conflict has its other revisions in `_conflicts`.
        """
        while True:
            params = {
                "startkey": start, "endkey": end, "limit": chunk,
                "include_docs": True, "conflicts": True,
            }  # fmt: skip
            rows = self._send("GET", "_all_docs", **params).content["rows"]
            yield from (row["doc"] for row in rows)
            if len(rows) < chunk:
                return
            start = rows[-1]["id"] + "\0"

    def last(self, ranges: Sequence[tuple[str, str]]) -> list[Document | None]:
        """Read the document with the greatest id of each range, or None, in their order.

        In one request CouchDB takes half of the time that it takes for one request each (3.5.0: 1
        ms and 2 ms for each range).

        :param ranges: the least and the greatest id of each
        """
        queries = [
            {
                "startkey": end, "endkey": start, "descending": True, "limit": 1,
                "include_docs": True,
            }
            for start, end in ranges
        ]  # fmt: skip
        if len(queries) == 1:
            results = [self._send("GET", "_all_docs", **queries[0]).content]
        else:
            body = {"queries": queries}
            results = self._send("POST", "_all_docs/queries", body).content["results"]
        rows = [result["rows"] for result in results]
        return [each[0]["doc"] if each else None for each in rows]

    def rows(self, view: str, **params: Any) -> list[Row]:
        """Read the rows of a view, all at once.

        Threads that send the same query at the same time share one request, and get the same list.
        They must not change it.

        :param view: `design document/view`
        :param params: CouchDB's parameters; `keys` is sent as a body, other values as JSON
        :raises DatastoreMissingView: the view does not exist
        """
        path, keys = _view_path(view), params.pop("keys", None)
        if keys is not None:
            return _rows(self._send("POST", path, {"keys": keys}, **params).body)
        query = path + _query(params)
        rows: list[Row] = _share(self._query_batcher(query), query)
        return rows

    def stream(self, view: str, **params: Any) -> Iterator[list[Row]]:
        """Read the rows of a view in parts, while CouchDB sends them.

        :param view: as for `rows`
        :param params: as for `rows`, without `keys`
        :raises DatastoreError: the same as `rows`, also after some of the rows. Nothing is sent
            again: the caller may read the rest by `rows`
        """
        url = f"{self._resource.url}/{_view_path(view)}{_query(params)}"
        yield from map(_rows, view_streams.blocks(self._transport.stream(url, self._credentials)))

    def _query_one(self, query: str) -> _Shared:
        response = self._send("GET", query)
        return _shared(response.content if query.startswith("_changes") else _rows(response.body))

    def _query_all(self, queries: Sequence[str]) -> list[_Shared]:
        return [self._query_one(queries[0])] * len(queries)  # all queries are equal

    def select(self, selector: Mapping[str, Any], limit: int, **params: Any) -> list[Document]:
        """Read documents by a Mango selector, for queries that no view answers."""
        body = {"selector": selector, "limit": limit, **params}
        docs: list[Document] = self._send("POST", "_find", body).content["docs"]
        return docs

    def changes(self, **params: Any) -> Document:
        """Send one request to `_changes`, and return CouchDB's response."""
        feed: Document = self._send("GET", "_changes", **params).content
        return feed

    def changes_until_now(self, **params: Any) -> Document:
        """Send one request to `_changes` as `changes` does, without waiting for new changes.

        Threads that send the same request at the same time share one, as in `rows`.
        """
        query = "_changes" + _query(params)
        feed: Document = _share(self._query_batcher(query), query)
        return feed

    def attachment(self, document_id: str, name: str) -> bytes:
        """Return the bytes of an attachment."""
        _, _, body = self._resource.get([document_id, name])
        content: bytes = body.read()
        return content

    def create(self, shards: int | None = None) -> bool:
        """Create the database. Return False if it exists already.

        :param shards: CouchDB's `q`; the server's default if None
        """
        self._require_no_dry_run()
        try:
            self._resource.put(**({"q": str(shards)} if shards else {}))
        except RevisionConflict:  # 412, file_exists
            return False
        return True

    def delete(self) -> None:
        """Delete the database, if it exists."""
        self._require_no_dry_run()
        try:
            self._resource.delete()
        except (DatastoreMissing, DocumentNotFound):
            return

    def greeting(self) -> Document:
        """Return the welcome message of the server."""
        return _object(self._server.get(""))

    def info(self) -> Document:
        """Return CouchDB's information about the database.

        :raises DatastoreMissing: the database does not exist
        """
        return _object(self._resource.get())

    def shards(self) -> dict[str, list[str]]:
        """Return the nodes that have each shard; nothing if the server has no shards."""
        try:
            shards: dict[str, list[str]] = _object(self._resource.get("_shards"))["shards"]
        except (DocumentNotFound, DatastoreMissing, KeyError):
            return {}
        return shards

    def index_info(self, design_doc: str) -> Document:
        """Return CouchDB's information about the index of a design document."""
        info = self._send("GET", f"_design/{design_doc}/_info").content.get("view_index")
        return info if isinstance(info, dict) else {}

    @property
    def replicas(self) -> int:
        """The number of nodes that keep each document; 1 without a cluster.

        It is read once. Until it is known, each thread that needs it sends a request of its own,
        so that no thread waits for another.
        """
        if self._replicas is None:
            self._replicas = int(self.info().get("cluster", {}).get("n", 1))
        return self._replicas

    def security(self) -> Document:
        """Return the database's `_security` object; an empty one if the server has none."""
        try:
            return _object(self._resource.get("_security"))
        except DocumentNotFound:
            return {}

    def secure(self, security: Mapping[str, Any]) -> None:
        """Set the database's `_security` object. It has no revision: the last write wins."""
        self._require_no_dry_run()
        self._resource.put("_security", body=security)

    def clean_up_views(self) -> None:
        """Have CouchDB remove the indexes that no design document uses."""
        self._require_no_dry_run()
        self._resource.post("_view_cleanup", headers={"Content-Type": "application/json"})


class Couch:
    """A CouchDB server.

    :param url: with user and password
    :param prefix: precedes each database's name, for tests and shared servers
    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds to wait for a response, and between two parts of it
    :param connections: the number of idle connections kept open
    :param trace: see `Transport`
    :param observe: see `Transport`
    :param breaker: see `Transport`
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
        pool = Connections(url, connect_timeout, read_timeout, connections)
        self._server = couchdb.Server(url, session=Transport(pool, trace, observe, breaker))
        self._prefix = prefix
        self._lock = Lock()
        self._databases: LRUCache[str, Database] = LRUCache(_DATABASES)

    @cachedmethod(attrgetter("_databases"), key=methodkey, lock=attrgetter("_lock"))
    def database(self, name: str) -> Database:
        """Return the database of a name. Nothing is sent.

        All threads get the same object, so that their requests are batched.
        """
        full = self._prefix + name
        return Database(full, self._server.resource)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The name and password of the URL, or None."""
        credentials: tuple[str, str] | None = self._server.resource.credentials
        return credentials

    def users(self) -> Database:
        """Return the database `_users`, which has no prefix. Nothing is sent."""
        return Database("_users", self._server.resource)

    def session(self) -> Document:
        """Return the `userCtx` of the user that the service logs in as.

        :raises DatastoreLoginRefused: the name or the password is wrong
        """
        context: Document = _object(self._server.resource.get("_session"))["userCtx"]
        return context

    def databases(self) -> list[str]:
        """Return the names of all databases with the prefix, without the prefix."""
        names = json.load(self._server.resource.get("_all_dbs")[2])
        return [n.removeprefix(self._prefix) for n in names if n.startswith(self._prefix)]

    def membership(self) -> Document:
        """Return the nodes of the cluster: `cluster_nodes`, and `all_nodes` that are connected."""
        return _object(self._server.resource.get("_membership"))

    def greeting(self) -> Document:
        """Return the server's welcome message.

        :raises DatastoreUnreachable: it does not answer
        """
        return _object(self._server.resource.get(""))

    def version(self) -> str:
        """Return the server's version.

        :raises DatastoreUnreachable: it does not answer
        """
        return str(self.greeting().get("version", "?"))


def _winner(live: list[Document]) -> Document:
    """Return the revision that wins by CouchDB's rule, with the other ones in `_conflicts`."""
    if len(live) == 1:
        return live[0]
    first, *others = sorted(
        live, key=lambda leaf: (generation(leaf["_rev"]), leaf["_rev"]), reverse=True
    )
    return {**first, "_conflicts": [leaf["_rev"] for leaf in others]}


def _is_missing(leaf: Mapping[str, Any]) -> bool:
    """Return whether a response of `_bulk_get` says that the document does not exist."""
    error = leaf.get("error", {})
    return (error.get("error"), error.get("rev")) == ("not_found", "undefined")


def _leaf(leaf: Mapping[str, Any]) -> Document:
    """Return one revision of a response of `_bulk_get`.

    :raises ReadFailed: the response has an error, because most replicas cannot be reached
    """
    if "error" in leaf:
        error = leaf["error"]
        raise ReadFailed(f"{error.get('id')}: {error.get('error')} {error.get('reason')}")
    document: Document = leaf["ok"]
    return document


def _view_path(view: str) -> str:
    """Return the path of `design document/view` below its database."""
    design, name = view.split("/")
    return f"_design/{design}/_view/{name}"


def _rows(body: bytes) -> list[Row]:
    """Return the rows of the body of a response.

    :raises ReadFailed: they are incomplete: an error occurred after CouchDB had sent some of them
    """
    try:
        return _DECODE_ROWS(body).rows
    except msgspec.DecodeError:
        pass
    try:  # msgspec rejects half surrogates, which CouchDB accepts
        rows = json.loads(body)["rows"]
    except ValueError as error:
        raise ReadFailed(f"a view: {body[-200:].decode(errors='replace')}") from error
    return [Row(row["key"], row["value"], row.get("id", "")) for row in rows]


def _share(batcher: Batcher[Any, _Shared], content: Any) -> Any:
    """Send a request by a batcher. Record it in the request context if another thread sent it."""
    started = perf_counter()
    shared = batcher.send(content)
    work = request_context.CURRENT.get()
    if work is not None and work.couchdb_id != shared.sent_as:
        work.share(shared.sent_as, shared.sender, perf_counter() - started)
    return shared.result


def _shared(result: Any) -> _Shared:
    """Return a result of this thread's request to CouchDB, for all threads that requested it."""
    work = request_context.CURRENT.get()
    return _Shared(result, work.couchdb_id, work.span) if work else _Shared(result, "", None)


def _quoted(document_id: str) -> str:
    """Return the path of a document. CouchDB expects the slash of `_design/` unquoted."""
    if _PLAIN_ID.fullmatch(document_id):
        return document_id
    has_slash = document_id.startswith(("_design/", "_local/"))
    parts = document_id.split("/", 1) if has_slash else [document_id]
    return "/".join(quote(part, safe="") for part in parts)


def _query(params: Mapping[str, Any]) -> str:
    """Return CouchDB's parameters as a query."""
    given = [
        _parameter(name, value if name in _PLAIN_PARAMETERS else json.dumps(value))
        for name, value in params.items()
        if value is not None
    ]
    return f"?{'&'.join(given)}" if given else ""


@lru_cache(1000)
def _parameter(name: str, value: str) -> str:
    """Return a parameter of a query. Most of them are the same again and again."""
    return urlencode({name: value})


@lru_cache
def _document_query(params: tuple[tuple[str, Any], ...]) -> str:
    """Return the same as `_query`. Reads of documents have few different queries."""
    return _query(dict(params))


def _object(response: tuple[int, Mapping[str, str], Any]) -> Document:
    body: Document = json.load(response[2])
    return body


def _written(row: Mapping[str, Any]) -> Written:
    if "error" in row:
        refused = row["error"] in ("conflict", *_FORBIDDEN)
        return Written(Outcome.REFUSED if refused else Outcome.UNKNOWN)
    return Written(Outcome.UNKNOWN if row.get("accepted") else Outcome.DONE, row["rev"])
