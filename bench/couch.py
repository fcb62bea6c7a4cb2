"""The database directly: what the service does is compared with this.

Every request that is measured carries the headers that the service itself sends there, read off
the wire (`counting.py`), so that both pay for the same kind of authentication.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from bench import BenchError
from bench.servers import address
from bench.wrk import Plan, Request

Document = dict[str, Any]
_PATIENCE = 3600
"""Seconds that an index may take."""

_IDLE = 120
"""Seconds at the most to wait for work in the background."""

_BATCH = 1000
"""Documents sent at once."""


class Couch:
    """A CouchDB by its URL, with user and password in it.

    `headers` are what the service sends with each request, once `counting` has seen them.
    """

    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.prefix = prefix
        self.headers: dict[str, str] = {}
        basic = f"{parts.username}:{parts.password}" if parts.username else None
        self._own = urllib3.util.make_headers(basic_auth=basic, keep_alive=True)
        self._pool = urllib3.PoolManager(maxsize=4, timeout=7200, retries=False)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """One request that is not measured.

        :raises BenchError: CouchDB refuses it
        """
        content = None if body is None else json.dumps(body)
        headers = {**self._own, "Content-Type": "application/json"}
        url = address(self.url) + path
        return json.loads(self._answer(method, url, content, headers))

    def timed(self, method: str, path: str, body: Any = None) -> float:
        """Seconds that one request takes, with the headers of the service and JSON made before."""
        content = None if body is None else json.dumps(body)
        headers = {**(self.headers or self._own), "Content-Type": "application/json"}
        url = address(self.url) + path
        start = time.perf_counter()
        self._answer(method, url, content, headers)
        return time.perf_counter() - start

    def _answer(
        self, method: str, url: str, body: str | None, headers: Mapping[str, str]
    ) -> bytes:
        try:
            reply = self._pool.request(method, url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise BenchError(f"{method} {url}: {error}") from error
        if reply.status >= 400:
            raise BenchError(f"{method} {url}: {reply.status} {reply.data[:200]!r}")
        return reply.data

    def plan(self, requests: Iterable[Request], *, once: bool = False) -> Plan:
        """Requests for wrk to send, as the service would."""
        headers = {**self.headers, "Content-Type": "application/json"}
        return Plan(address(self.url), tuple(requests), headers, once)

    def database(self, name: str) -> "Database":
        """A database, by its name without the prefix."""
        return Database(self, f"/{quote(self.prefix + name, safe='')}")

    def wait_until_idle(self) -> None:
        """Wait for what CouchDB does in the background after a load, such as compaction."""
        end = time.monotonic() + _IDLE
        while time.monotonic() < end:
            tasks = self.send("GET", "/_active_tasks")
            if not any(self.prefix in task.get("database", "") for task in tasks):
                return
            time.sleep(0.5)

    def engine(self) -> tuple[str, str]:
        """Which it is, `couchdb` or `embedded`, and its version."""
        said = self.send("GET", "/")
        return ("couchdb" if "couchdb" in said else "embedded"), str(said.get("version", "?"))


@dataclass(frozen=True)
class Database:
    """One database. `path` is its own, quoted."""

    couch: Couch
    path: str

    def create(self) -> None:
        """Make it."""
        self.couch.send("PUT", self.path)

    def delete(self) -> None:
        """Delete it."""
        self.couch.send("DELETE", self.path)

    def load(self, documents: Sequence[Document]) -> list[Document]:
        """Write documents in batches; returns them at their revisions."""
        written = []
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            rows = self.couch.send("POST", f"{self.path}/_bulk_docs", {"docs": batch})
            if any("rev" not in row for row in rows):
                raise BenchError(f"{self.path}: not everything could be loaded")
            written += [{**d, "_rev": r["rev"]} for d, r in zip(batch, rows, strict=True)]
        return written

    def fetch(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those of these documents that are there."""
        path = f"{self.path}/_all_docs?include_docs=true"
        rows = self.couch.send("POST", path, {"keys": list(ids)})["rows"]
        return {row["id"]: row["doc"] for row in rows if row.get("doc")}

    def build(self, design: Mapping[str, Any]) -> float:
        """Write a design document and wait for its index; returns the seconds it took."""
        path = f"{self.path}/{design['_id']}"
        start = time.perf_counter()
        self.couch.send("PUT", path, design)
        for view in design["views"]:  # the embedded database keeps an index for each
            self._wait(f"{path}/_view/{view}?limit=1&reduce=false")
        return time.perf_counter() - start

    def _wait(self, view: str) -> None:
        """Ask a view until it answers: CouchDB gives up after a minute, and goes on indexing."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self.couch.send("GET", view)
                return
            except BenchError as error:
                if '"timeout"' not in str(error) or time.monotonic() > end:
                    raise

    def resolve(self, designs: Iterable[str]) -> None:
        """Wait until indexes have caught up, so that nothing is done beside what is measured."""
        for name in designs:
            design = f"{self.path}/_design/{name}"
            for view in self.couch.send("GET", design)["views"]:
                self._wait(f"{design}/_view/{view}?limit=1&reduce=false")

    # Requests for wrk.

    def read(self, document_id: str) -> Request:
        """Read a document."""
        return Request("GET", f"{self.path}/{quote(document_id, safe='')}")

    def view(self, design: str, view: str, **params: Any) -> Request:
        """Read a view; values of parameters are JSON."""
        query = urlencode({name: json.dumps(value) for name, value in params.items()})
        return Request("GET", f"{self.path}/_design/{design}/_view/{view}?{query}")

    def write(self, document: Document) -> Request:
        """Write a document, at the revision it has."""
        path = f"{self.path}/{quote(document['_id'], safe='')}"
        return Request("PUT", path, json.dumps(document, separators=(",", ":")))


def shown(path: str) -> str:
    """A path as a report may show it: without prefix, ids and query."""
    bare = path.split("?", maxsplit=1)[0]
    return re.sub(r"[0-9a-f]{28,}", "…", re.sub(r"bench-\w+-\w+-\w{4}-", "", bare))
