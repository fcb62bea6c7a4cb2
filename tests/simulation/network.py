"""The network between the service and the nodes: connections, requests and their faults.

A connection has the methods of a socket that the service uses. It carries bytes, so the service
uses its own HTTP client. A node implements only the requests that the service sends.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tests.simulation import cluster as fabric
from tests.simulation.cluster import DOWN, Cluster, Node
from tests.simulation.documents import (
    CONFLICT,
    VIEWS,
    Document,
    Revision,
    Tree,
    generation,
    to_json,
)
from tests.simulation.scheduler import TIMED_OUT, Scheduler, Wait, current_task
from tests.simulation.standard_library import receive_timeout

_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 404: "Object Not Found", 409: "Conflict",
            412: "Precondition Failed", 500: "Internal Server Error"}  # fmt: skip
_JSON = {"startkey", "endkey", "key", "keys", "limit", "skip", "reduce", "group_level", "group",
         "descending", "revs", "include_docs",
         "conflicts", "r", "w", "new_edits", "heartbeat", "timeout"}  # fmt: skip


@dataclass
class RequestFaults:
    """The probability of each fault of a request, and the latency.

    :param refused: the connection is refused
    :param lost: the request never arrives
    :param late: the request arrives seconds later
    :param cut: the connection is reset instead of a response
    :param twice: a view responds twice, with two errors
    :param latency: mean seconds in each direction
    """

    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    cut: float = 0.0
    twice: float = 0.0
    latency: float = 0.0003

    def clear(self) -> None:
        """Cause no more faults."""
        self.refused = self.lost = self.late = self.cut = self.twice = 0.0


class Network:
    """Opens connections to the nodes."""

    def __init__(
        self, scheduler: Scheduler, cluster: Cluster, request_faults: RequestFaults
    ) -> None:
        self.scheduler = scheduler
        self.cluster = cluster
        self.request_faults = request_faults
        self.faults_end = float("inf")
        """The time of the end of all faults. A request that was sent before never arrives after
        it."""
        self._open: dict[Connection, None] = {}
        self._requests = 0
        cluster.on_crash = self._crashed

    def connect(self, host: str, timeout: float) -> "Connection":
        """Open a connection to the node with this name; to any node if none has it.

        :raises OSError: the connection is refused
        """
        task = current_task()
        self.scheduler.sleep(self.latency())
        chance = self.scheduler.chance
        named = [node for node in self.cluster.nodes if node.name == host]
        node = named[0] if named else chance.choice(self.cluster.nodes)
        if not node.up and not named:  # a load balancer avoids a node that is down
            node = next((n for n in self.cluster.nodes if n.up), node)
        if not node.up or chance.random() < self.request_faults.refused:
            raise ConnectionRefusedError("refused")
        connection = Connection(self, node, task.process.pid)
        self._open[connection] = None
        return connection

    def latency(self) -> float:
        """Return a random latency of one direction."""
        return self.scheduler.chance.expovariate(1 / self.request_faults.latency)

    def _crashed(self, node: Node) -> None:
        for connection in list(self._open):
            if connection.node is node:
                connection.reset()

    def forget(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        self._open.pop(connection, None)

    def send(self, connection: "Connection", data: bytes) -> None:
        """Send a request to its node, with a random fault."""
        self._requests += 1
        request = Request.read(data, self._requests)
        if self.scheduler.is_traced:
            self.scheduler.note(f"{connection} {request}")
        chance, request_faults = self.scheduler.chance, self.request_faults
        kinds = ("lost", "late", "cut", "none")
        rates = [request_faults.lost, request_faults.late, request_faults.cut]
        [fault] = chance.choices(kinds, [*rates, 1 - sum(rates)])
        if request.is_view and chance.random() < request_faults.twice:
            fault = "twice"
        delay = self.latency() + (chance.uniform(0.2, 12) if fault == "late" else 0.0)
        if fault != "none":
            self.scheduler.note(f"{connection} #{request.number} {fault}")
        if fault != "lost":
            self.scheduler.after(delay, _Exchange(self, connection, request, fault).arrive)


class _Exchange:
    """One request and its response."""

    def __init__(
        self, network: Network, connection: "Connection", request: "Request", fault: str
    ) -> None:
        self._network = network
        self._connection = connection
        self._request = request
        self._fault = fault
        self._life = connection.node.life
        self._sent = network.scheduler.now

    def arrive(self) -> None:
        """Deliver the request to the node."""
        network, node = self._network, self._connection.node
        if self._sent < network.faults_end < network.scheduler.now:
            return  # all faults have ended, so a late request is lost instead
        if node.life != self._life:
            self._connection.reset()
        else:
            network.cluster.when_awake(node, self._serve)

    def _serve(self) -> None:
        network, node = self._network, self._connection.node
        if node.life != self._life:
            return
        if self._fault != "twice":
            RequestHandler(network.cluster, node, self._request, self._respond).begin()
            return
        chance = network.scheduler.chance
        self._respond(500, {"error": "nodedown", "reason": "progress not possible"})
        again = 500, {"error": "timeout", "reason": "The request could not be processed"}
        network.scheduler.after(
            chance.choice((0.0, chance.uniform(0, 0.2))), self._respond, *again
        )

    def _respond(self, status: int, body: Any) -> None:
        network, connection = self._network, self._connection
        if connection.node.life != self._life:
            return
        head, content = _written(status, body, self._request.request_id)
        if network.scheduler.is_traced:
            shown = content[:300].decode(errors="replace").strip()
            network.scheduler.note(f"{connection} #{self._request.number} {status} {shown}")
        if self._fault == "cut":
            network.scheduler.after(network.latency(), connection.reset)
        else:
            network.scheduler.after(network.latency(), connection.arrive, head + content)


class Connection:
    """A simulated socket from the service to a node."""

    def __init__(self, network: Network, node: Node, pid: int) -> None:
        self._network = network
        self.node = node
        self._pid = pid
        self._received = bytearray()
        self._ended = False
        self._timeout: float | None = None
        self._waiting: Wait | None = None

    def __str__(self) -> str:
        return f"worker {self._pid} {self.node.name}"

    @property
    def readable(self) -> bool:
        """Whether there are bytes to read, or the connection has ended."""
        return bool(self._received) or self._ended

    def settimeout(self, seconds: float | None) -> None:
        """As in `socket`."""
        self._timeout = seconds

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """As in `socket`; only the receive timeout has an effect."""
        seconds = receive_timeout(option, value)
        self._timeout = self._timeout if seconds is None else seconds

    def sendall(self, data: bytes) -> None:
        """As in `socket`. A request is always sent in one call."""
        if self._ended:
            raise BrokenPipeError("broken pipe")
        self._network.send(self, data)

    def recv(self, size: int) -> bytes:
        """As in `socket`."""
        if not self.readable:
            woken = self._network.scheduler.wait(self._wait, self._timeout)
            self._waiting = None
            if woken is TIMED_OUT:
                raise BlockingIOError("timed out")
        if self._received:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data
        raise ConnectionResetError("reset by peer")

    def _wait(self, wait: Wait) -> None:
        self._waiting = wait

    def close(self) -> None:
        """As in `socket`."""
        self._network.forget(self)

    def arrive(self, data: bytes) -> None:
        """Receive bytes from the node."""
        if not self._ended:
            self._received += data
            self._wake()

    def reset(self) -> None:
        """End the connection from the node's side."""
        self._ended = True
        self._network.forget(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.wake()


@dataclass(frozen=True)
class Request:
    """A request to a node."""

    number: int
    method: str
    path: tuple[str, ...]
    query: Mapping[str, Any]
    body: Any
    request_id: str
    shown: str

    @classmethod
    def read(cls, data: bytes, number: int) -> "Request":
        """Parse the bytes of a request."""
        head, _, body = data.partition(b"\r\n\r\n")
        method, target, _ = head[: head.index(b"\r\n")].decode("latin-1").split(" ")
        assert _header(_CONTENT_LENGTH, head, "0") == str(len(body)), "not sent in one call"
        path, query = _parsed(target)
        name = _header(_REQUEST_ID, head, "")
        name = name if _VALID_ID.fullmatch(name) else f"{number:010x}"
        content = msgspec.json.decode(body) if body else None
        shown = f"{target} {body[:300].decode(errors='replace')}"
        return cls(number, method, path, query, content, name, shown)

    @property
    def is_view(self) -> bool:
        """Whether it reads a view."""
        return "_view" in self.path

    def __str__(self) -> str:
        return f"#{self.number} {self.method} {self.shown}"


_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:([^\r]*)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\r\nx-couch-request-id:([^\r]*)", re.IGNORECASE)
_VALID_ID = re.compile(r"[\w-]{1,36}", re.ASCII)


def _header(pattern: re.Pattern[bytes], head: bytes, default: str) -> str:
    """Return the value of a header of a request."""
    found = pattern.search(head)
    return found[1].decode("latin-1").strip() if found else default


@lru_cache(10_000)
def _parsed(target: str) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Return the path and the query of a target."""
    parts = urlsplit(target)
    given = parse_qsl(parts.query, keep_blank_values=True)
    query = {k: json.loads(v) if k in _JSON else v for k, v in given}
    return tuple(unquote(part) for part in parts.path.strip("/").split("/")), query


def _written(status: int, body: Any, request_id: str) -> tuple[bytes, bytes]:
    content = msgspec.json.encode(body) + b"\n" if not isinstance(body, bytes) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nX-Couch-Request-ID: {request_id}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode(), content


_NO_DATABASE = {"error": "not_found", "reason": "Database does not exist."}
_CONFLICTING = {"error": "conflict", "reason": "Document update conflict."}
_FAILED = {"error": "internal_server_error", "reason": "No DB shards could be opened."}

Respond = Callable[[int, Any], None]


class RequestHandler:
    """One request that a node handles as coordinator (`chttpd_db.erl`)."""

    def __init__(self, cluster: Cluster, node: Node, request: Request, respond: Respond) -> None:
        self.cluster, self.node, self.request, self.respond = cluster, node, request, respond
        self.database = request.path[0]

    def begin(self) -> None:
        """Handle the request. The response is sent when it is complete."""
        method, path = self.request.method, self.request.path
        if path == ("",):
            self.respond(200, {"couchdb": "Welcome", "version": "3.3.3"})
        elif len(path) == 1 and method == "PUT":
            if self.cluster.exists(self.database):
                self.respond(412, {"error": "file_exists", "reason": "exists"})
            else:
                self.cluster.create(self.database)
                self.respond(201, {"ok": True})
        elif not self.cluster.exists(self.database):
            self.respond(404, _NO_DATABASE)
        elif len(path) == 1:
            self._one_replica(self._info)
        elif path[1] in _SPECIAL:
            _SPECIAL[path[1]](self)
        elif "_view" in path:
            self._view()
        else:
            document_id = "/".join(path[1:3]) if path[1] in _NAMED else path[1]
            _METHODS[method](self, document_id)

    # One document.

    def _get(self, document_id: str) -> None:
        query = self.request.query
        r = query.get("r", 2)
        if query.get("open_revs") == "all":
            self.cluster.open_revs(self.node, self.database, document_id, r, self._leaves)
            return
        if "rev" in query:
            self._revision(document_id)
            return
        if self.request.path[2:] and self.request.path[1] != "_design":
            self.cluster.open(self.node, self.database, document_id, r, self._attachment)
            return

        def done(opened: Any) -> None:
            if opened is None:
                self.respond(500, _FAILED)
            elif not opened.is_live:
                reason = "deleted" if opened.path else "missing"
                self.respond(404, {"error": "not_found", "reason": reason})
            else:
                conflicts = bool(query.get("conflicts"))
                self.respond(200, fabric.shown(document_id, opened, conflicts))

        self.cluster.open(self.node, self.database, document_id, r, done)

    def _revision(self, document_id: str) -> None:
        """Return one revision, of which some replica has the body."""
        rev = self.request.query["rev"]

        def work(node: Node) -> Document | None:
            tree = node.shards[self.database].trees.get(document_id)
            found = tree.revisions.get(rev) if tree else None
            return to_json(document_id, found) if found and found.body is not None else None

        def done(result: Any) -> None:
            if result is None:
                self.respond(404, {"error": "not_found", "reason": "missing"})
            else:
                self.respond(500 if result is DOWN else 200, _FAILED if result is DOWN else result)

        self.cluster.one_replica(self.node, work, done)

    def _attachment(self, opened: Any) -> None:
        attached = opened.path[0].body["_attachments"][self.request.path[2]]
        self.respond(200, base64.b64decode(attached["data"]))

    def _leaves(self, leaves: list[tuple[Revision, ...]] | None) -> None:
        if leaves is None:
            self.respond(500, _FAILED)
            return
        document_id, revs = self.request.path[1], self.request.query.get("revs")
        self.respond(200, [{"ok": _leaf(document_id, path, bool(revs))} for path in leaves])

    def _put(self, document_id: str) -> None:
        document = {**self.request.body, "_id": document_id}
        w = self.request.query.get("w", 2)
        self.cluster.update(self.node, self.database, [document], w, self._one_written)

    def _delete(self, document_id: str) -> None:
        rev = self.request.query.get("rev")
        document = {"_id": document_id, "_rev": rev, "_deleted": True}
        self.cluster.update(self.node, self.database, [document], 2, self._one_written)

    def _one_written(self, health: str, results: list[Any]) -> None:
        path = self.request.path
        document_id = "/".join(path[1:3]) if path[1] in _NAMED else path[1]
        match health, results[0]:
            case "error", _:
                self.respond(500, _FAILED)
            case _, str(rev) if rev != CONFLICT:
                self.respond(201, {"ok": True, "id": document_id, "rev": rev})
            case _, (rev,):
                self.respond(202, {"ok": True, "id": document_id, "rev": rev})
            case _:
                self.respond(409, _CONFLICTING)

    # Many documents.

    def _bulk_docs(self) -> None:
        documents = self.request.body["docs"]
        if self.request.body.get("new_edits", True):
            w = self.request.query.get("w", 2)
            self.cluster.update(self.node, self.database, documents, w, self._all_written)
        else:
            grafts = [(d["_id"], fabric.revision_path(d)) for d in documents]

            def done(health: str, results: list[Any]) -> None:
                self.respond(500 if health == "error" else 201, [])

            self.cluster.graft(self.node, self.database, grafts, done)

    def _all_written(self, health: str, results: list[Any]) -> None:
        rows: list[Document] = []
        for document, result in zip(self.request.body["docs"], results, strict=True):
            row = {"id": document["_id"]}
            match result:
                case None:
                    row |= {"error": "internal_server_error", "reason": "none"}
                case str(rev) if rev != CONFLICT:
                    row |= {"ok": True, "rev": rev}
                case (rev,):
                    row |= {"ok": True, "rev": rev, "accepted": True}
                case _:
                    row |= _CONFLICTING
            rows.append(row)
        self.respond({"ok": 201, "accepted": 202, "error": 500}[health], rows)

    def _bulk_get(self) -> None:
        ids = [each["id"] for each in self.request.body["docs"]]

        def error(document_id: str, name: str, reason: str) -> Document:
            content = {"id": document_id, "rev": "undefined", "error": name, "reason": reason}
            return {"id": document_id, "docs": [{"error": content}]}

        revs = bool(self.request.query.get("revs"))

        def done(found: list[list[tuple[Revision, ...]]] | None) -> None:
            if found is None:
                results = [error(i, "internal_fabric_error", "nodedown") for i in ids]
            else:
                results = [
                    {"id": i, "docs": [{"ok": _leaf(i, path, revs)} for path in leaves]}
                    if leaves
                    else error(i, "not_found", "missing")
                    for i, leaves in zip(ids, found, strict=True)
                ]
            self.respond(200, {"results": results})

        self.cluster.bulk_get(self.node, self.database, ids, done)

    # Reads from one replica.

    def _one_replica(self, work: Callable[[Node], Any]) -> None:
        def done(result: Any) -> None:
            if result is DOWN:
                self.respond(500, _FAILED)
            else:
                self.respond(200, result)

        self.cluster.one_replica(self.node, work, done)

    def _info(self, node: Node) -> Document:
        shard = node.shards[self.database]
        return {
            "db_name": self.database,
            "doc_count": sum(1 for _ in shard.live()),
            "update_seq": f"{shard.seq}-{node.name}",
            "cluster": {"q": 1, "n": 3, "w": 2, "r": 2},
        }

    def _view(self) -> None:
        design, name = self.request.path[2], self.request.path[4]
        query = {**self.request.query, **(self.request.body or {})}

        def work(node: Node) -> Document | None:
            shard = node.shards[self.database]
            if f"_design/{design}" not in shard.trees or f"{design}/{name}" not in VIEWS:
                return None
            return {"rows": fabric.select_rows(shard, f"{design}/{name}", query)}

        def done(result: Any) -> None:
            if result is None:
                self.respond(404, {"error": "not_found", "reason": "missing"})
            else:
                self.respond(500 if result is DOWN else 200, _FAILED if result is DOWN else result)

        self.cluster.one_replica(self.node, work, done)

    def _all_docs(self) -> None:
        """Read a range of documents, or several ranges with `/queries`."""
        several = self.request.path[2:] == ("queries",)
        queries = self.request.body["queries"] if several else [self.request.query]

        def doc(document_id: str, tree: Tree, winner: Revision, conflicts: bool) -> Document:
            opened = fabric.Opened(tree.path(winner.rev), tree.conflicts)
            return fabric.shown(document_id, opened, conflicts)

        def select(node: Node, query: Document) -> Document:
            start, end = query.get("startkey", ""), query.get("endkey", "\uffff")
            descending = bool(query.get("descending"))
            if descending:
                start, end = end, start
            rows = [
                {
                    "id": i,
                    "key": i,
                    "value": {"rev": winner.rev},
                    "doc": doc(i, tree, winner, bool(query.get("conflicts"))),
                }
                for i, tree, winner in node.shards[self.database].live()
                if start <= i <= end
            ]
            return {"rows": (rows[::-1] if descending else rows)[: query.get("limit")]}

        def work(node: Node) -> Document:
            results = [select(node, query) for query in queries]
            return {"results": results} if several else results[0]

        self._one_replica(work)

    def _find(self) -> None:
        selector, limit = self.request.body["selector"], self.request.body["limit"]

        def work(node: Node) -> Document:
            found = [
                to_json(i, winner)
                for i, _, winner in node.shards[self.database].live()
                if all((winner.body or {}).get(k) == v for k, v in selector.items())
            ]
            return {"docs": found[:limit]}

        self._one_replica(work)

    def _changes(self) -> None:
        """Continue the feed at the replica that it started with; another one starts from 0."""
        query = self.request.query
        place, _, name = str(query.get("since", "0")).partition("-")

        def work(node: Node) -> Document:
            shard = node.shards[self.database]
            since = shard.seq if place == "now" else int(place) if name == node.name else 0
            changes = [(i, seq) for i, seq in shard.changes.items() if seq > since]
            changes = changes[: query.get("limit")]
            last = changes[-1][1] if changes else max(since, 0)
            results = [self._change(node, i, seq) for i, seq in changes]
            return {"results": results, "last_seq": f"{last}-{node.name}", "pending": 0}

        named = [n for n in self.cluster.nodes if n.name == name]
        if not named:
            self._one_replica(work)
            return

        def done(result: Any) -> None:
            if result is DOWN:
                self._one_replica(work)
            else:
                self.respond(200, result)

        self.cluster.call(self.node, named[0], work, done)

    def _change(self, node: Node, document_id: str, seq: int) -> Document:
        tree = node.shards[self.database].trees[document_id]
        winner = tree.winner
        leaves = sorted(tree.leaves) if self.request.query.get("style") else [winner.rev]
        row: Document = {
            "seq": f"{seq}-{node.name}",
            "id": document_id,
            "changes": [{"rev": rev} for rev in leaves],
        }
        if winner.deleted:
            row["deleted"] = True
        if self.request.query.get("include_docs"):
            opened = fabric.Opened(tree.path(winner.rev), tree.conflicts)
            row["doc"] = fabric.shown(
                document_id, opened, bool(self.request.query.get("conflicts"))
            )
        return row


def _leaf(document_id: str, path: Sequence[Revision], revs: bool) -> Document:
    """Return a leaf revision.

    :param path: the revision and its ancestors
    :param revs: whether the request has `revs=true`
    """
    document = to_json(document_id, path[0])
    if revs:
        ids = [revision.rev.split("-", 1)[1] for revision in path]
        document["_revisions"] = {"start": generation(path[0].rev), "ids": ids}
    return document


_METHODS: dict[str, Callable[[RequestHandler, str], None]] = {
    "GET": RequestHandler._get,
    "PUT": RequestHandler._put,
    "DELETE": RequestHandler._delete,
}
_NAMED = ("_design", "_local")
_SPECIAL: dict[str, Callable[[RequestHandler], None]] = {
    "_bulk_docs": RequestHandler._bulk_docs,
    "_bulk_get": RequestHandler._bulk_get,
    "_all_docs": RequestHandler._all_docs,
    "_find": RequestHandler._find,
    "_changes": RequestHandler._changes,
    "_security": lambda handler: handler.respond(200, {}),
    "_view_cleanup": lambda handler: handler.respond(202, {"ok": True}),
}
