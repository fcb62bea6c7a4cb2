"""Direct requests to CouchDB, with which the service is compared.

Every measured request has the headers that the service sends to CouchDB, as a proxy has recorded
them (`counting.py`). So both use the same kind of authentication.
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
from kazoo_ips.couch import design_docs

Document = dict[str, Any]
_INDEX_TIMEOUT = 3600
"""Seconds that CouchDB may take to build an index."""

_IDLE_TIMEOUT = 120
"""Maximum number of seconds to wait for CouchDB's background work."""

_BATCH = 1000
"""Documents in one bulk write."""


class Couch:
    """A CouchDB, by its URL with user and password.

    `headers` are those that the service sends with each request, once `counting` has seen them.
    """

    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.prefix = prefix
        self.headers: dict[str, str] = {}
        basic = f"{parts.username}:{parts.password}" if parts.username else None
        found = urllib3.util.make_headers(basic_auth=basic)
        self.login = {name.title(): value for name, value in found.items()}
        """The header with the user and the password of the URL; empty if it has none."""
        self._own = {**self.login, **urllib3.util.make_headers(keep_alive=True)}
        self._pool = urllib3.PoolManager(maxsize=4, timeout=7200, retries=False)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that is not measured, and return the response as JSON.

        :raises BenchError: CouchDB refuses it
        """
        content = None if body is None else json.dumps(body)
        headers = {**self._own, "Content-Type": "application/json"}
        url = address(self.url) + path
        return json.loads(self._answer(method, url, content, headers))

    def timed(self, method: str, path: str, body: Any = None) -> float:
        """Return the seconds that a request takes. It has the headers of the service."""
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
        """Return a plan with which wrk sends these requests, with the headers of the service."""
        headers = {**self.headers, "Content-Type": "application/json"}
        return Plan(address(self.url), tuple(requests), headers, once)

    def database(self, name: str) -> "Database":
        """Return the database of a name, which has no prefix."""
        return Database(self, f"/{quote(self.prefix + name, safe='')}")

    def design(self, name: str) -> dict[str, Any]:
        """Return a design document of the service, as this server should have it."""
        return design_docs.wanted(name, self.send("GET", "/"))

    def wait_until_idle(self) -> None:
        """Wait until CouchDB has ended its background work, such as compaction."""
        end = time.monotonic() + _IDLE_TIMEOUT
        while time.monotonic() < end:
            tasks = self.send("GET", "/_active_tasks")
            if not any(self.prefix in task.get("database", "") for task in tasks):
                return
            time.sleep(0.5)

    def engine(self) -> tuple[str, str]:
        """Return the server's kind, `couchdb` or `embedded`, and its version."""
        welcome = self.send("GET", "/")
        kind = "couchdb" if "couchdb" in welcome else "embedded"
        return kind, str(welcome.get("version", "?"))


@dataclass(frozen=True)
class Database:
    """One database.

    :param path: its path in a URL, quoted
    """

    couch: Couch
    path: str

    def create(self) -> None:
        """Create the database."""
        self.couch.send("PUT", self.path)

    def delete(self) -> None:
        """Delete the database."""
        self.couch.send("DELETE", self.path)

    def load(self, documents: Sequence[Document]) -> list[Document]:
        """Write documents in batches; return them with their revisions."""
        written = []
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            rows = self.couch.send("POST", f"{self.path}/_bulk_docs", {"docs": batch})
            if any("rev" not in row for row in rows):
                raise BenchError(f"{self.path}: not everything could be loaded")
            written += [{**d, "_rev": r["rev"]} for d, r in zip(batch, rows, strict=True)]
        return written

    def fetch(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return those of these documents that exist, by id."""
        path = f"{self.path}/_all_docs?include_docs=true"
        rows = self.couch.send("POST", path, {"keys": list(ids)})["rows"]
        return {row["id"]: row["doc"] for row in rows if row.get("doc")}

    def build(self, design: Mapping[str, Any]) -> float:
        """Write a design document and wait for its index; return the seconds that this took."""
        path = f"{self.path}/{design['_id']}"
        start = time.perf_counter()
        self.couch.send("PUT", path, design)
        for view in design["views"]:  # the embedded database has an index for each view
            self._wait(f"{path}/_view/{view}?limit=1&reduce=false")
        return time.perf_counter() - start

    def _wait(self, view: str) -> None:
        """Query a view until it answers: CouchDB times out after a minute and indexes on."""
        end = time.monotonic() + _INDEX_TIMEOUT
        while True:
            try:
                self.couch.send("GET", view)
                return
            except BenchError as error:
                if '"timeout"' not in str(error) or time.monotonic() > end:
                    raise

    def resolve(self, designs: Iterable[str]) -> None:
        """Wait until all indexes are current, so that CouchDB is idle before a measurement."""
        for name in designs:
            design = f"{self.path}/_design/{name}"
            for view in self.couch.send("GET", design)["views"]:
                self._wait(f"{design}/_view/{view}?limit=1&reduce=false")

    # Requests for wrk.

    def read(self, document_id: str) -> Request:
        """Return a request that reads a document."""
        return Request("GET", f"{self.path}/{quote(document_id, safe='')}")

    def view(self, design: str, view: str, **params: Any) -> Request:
        """Return a request that reads a view. Values of parameters are converted to JSON."""
        query = urlencode({name: json.dumps(value) for name, value in params.items()})
        return Request("GET", f"{self.path}/_design/{design}/_view/{view}?{query}")

    def write(self, document: Document) -> Request:
        """Return a request that writes a document at its revision."""
        path = f"{self.path}/{quote(document['_id'], safe='')}"
        return Request("PUT", path, json.dumps(document, separators=(",", ":")))


def shown(path: str) -> str:
    """A path as a report may show it: without prefix, ids and query."""
    bare = path.split("?", maxsplit=1)[0]
    return re.sub(r"[0-9a-f]{28,}", "…", re.sub(r"bench-\w+-\w+-\w{4}-", "", bare))
