"""Counts the requests that the service sends to CouchDB for one request of a client.

A proxy between a service with one worker and CouchDB records every request. It is never timed.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import urllib3

from bench import BenchError
from bench.servers import Gunicorn
from bench.wrk import Plan, Request
from tests.faults.proxy import FaultProxy

_BACKGROUND = b"x-couch-request-id: background-"
"""Requests of the background worker, which belong to no request of a client."""
_LEFT_OUT = {"host", "content-length", "content-type", "connection", "transfer-encoding"}


@dataclass(frozen=True)
class Counted:
    """The status of one request of a client, and its requests to CouchDB, as `METHOD target`."""

    status: int
    sent: tuple[str, ...]


class CountingService:
    """The service behind a counting proxy, from `start` to `stop`.

    :param url: the URL of the database, with user and password
    :param environment: the service's settings
    """

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self._proxy = FaultProxy(url)
        self._environment = environment
        self._client = urllib3.PoolManager(retries=False, timeout=300)

    def start(self) -> None:
        """Start the proxy and the service, and return when the service answers."""
        self._proxy.start_listening()
        settings = {
            **self._environment,
            "COUCHDB_URL": self._proxy.url,
            "KAZOO_IPS_WORKERS": "1",
            "KAZOO_IPS_READ_TIMEOUT": "60",
        }
        self._gunicorn = Gunicorn(settings)
        self._gunicorn.__enter__()

    def stop(self) -> None:
        """Stop the service and the proxy."""
        self._gunicorn.__exit__()
        self._proxy.stop_listening()

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self._gunicorn.url

    def count(self, plan: Plan, request: Request) -> Counted:
        """Return what one request sends, right after a read that has filled the caches.

        :param plan: its first request is that read; its headers are used for both
        """
        self._send(plan, plan.requests[0])
        self._proxy.wait_until_idle()
        self._proxy.clear()
        status = self._send(plan, request)
        self._proxy.wait_until_idle()
        records = [record.request for record in self._proxy.records]
        own = [r for r in records if _BACKGROUND not in r.head.lower()]
        return Counted(status, tuple(f"{r.method} {r.target}" for r in own))

    def headers(self, plan: Plan) -> dict[str, str]:
        """Return the headers of the service's requests to CouchDB, without those of a body."""
        self._proxy.clear()
        end = time.monotonic() + 10
        while not self._proxy.records and time.monotonic() < end:
            self._send(plan, plan.requests[0])
        if not self._proxy.records:
            raise BenchError("the service sends nothing to its database")
        head = self._proxy.records[-1].request.head.decode("latin-1")
        lines = [line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line]
        headers = {name.strip(): value.strip() for name, value in lines}
        return {n: v for n, v in headers.items() if n.lower() not in _LEFT_OUT}

    def per_request(self, requests: int) -> float:
        """Return the mean number of requests to CouchDB for each of these requests of clients."""
        self._proxy.wait_until_idle()
        return len(self._proxy.records) / requests

    def clear(self) -> None:
        """Delete the records."""
        self._proxy.clear()

    def _send(self, plan: Plan, request: Request) -> int:
        reply = self._client.request(
            request.method,
            self.url + request.path,
            body=request.body or None,
            headers={**plan.headers, "Content-Type": "application/json"},
        )
        if reply.status >= 400:
            said = json.loads(reply.data).get("message")
            raise BenchError(f"{request.method} {request.path}: {reply.status} {said}")
        return reply.status
