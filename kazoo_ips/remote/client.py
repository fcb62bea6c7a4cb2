"""The HTTP client of the API. It repeats a request until it gets a reply.

Each write has an Idempotency-Key, so the service executes a write once, also if it is repeated.
"""

import base64
import json
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import urllib3
from urllib3 import exceptions

from kazoo_ips import error_texts
from kazoo_ips.errors import IPNotFound, RemoteFailure
from kazoo_ips.remote import replies

PAGE = 1000
"""Lines of a page of a list: the most that the API permits."""
_CONNECT, _READ = 5.0, 60.0
"""Seconds to wait for a connection, and for a part of a reply."""
_TRIES = 4
"""How many times a request is sent at most, if connections break or the service is unavailable."""
_LONGEST_WAIT = 120.0
"""Seconds that a command waits at most because of a rate limit, or for another attempt to end."""
_PAUSE = 0.5
"""Seconds to wait if a reply does not say how many."""
_CONNECTIONS = 8
_ADDRESS = re.compile("[0-9A-Fa-f:.]+")
"""The characters of all spellings of addresses. No other resource of the API has such a name."""
_NDJSON = "application/x-ndjson"
_PART = 65_536
"""Bytes of a part of a stream."""
_UNAVAILABLE = (502, 503, 504)
_FINAL = (exceptions.SSLError, exceptions.LocationValueError)
"""Errors that a repetition of the request would have too."""
_WAITED_FOR = ("in_progress", "too_many_requests")
"""Messages of replies after which the client waits, because the request can succeed soon."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service at a URL, and the token that it is called with.

    :param url: the URL in front of `/v2`
    :param ca_file: a file with the certificates to trust; None trusts those of the system
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: str | None = None


def service_url(given: str) -> str:
    """Return the URL of a service without what follows the path in front of `/v2`.

    :raises ValueError: it is not an HTTP URL
    """
    host = None
    with suppress(ValueError):  # the port is not a number
        parts = urlsplit(given.strip())
        host = parts.hostname if parts.port != 0 else None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError(f"{given!r} is not of the form https://host or https://host:port")
    if parts.username or parts.password:
        raise ValueError("the URL of a service has no user and no password")
    path = re.sub(r"(/v2)?/*$", "", parts.path)
    return f"{parts.scheme}://{parts.netloc}{path}"


class APIClient:
    """Sends requests to one service. Several threads can use it at once.

    :param service: the service and the token
    :param timeout: seconds to wait for a connection, and for each part of a reply
    :param tries: how often a request is sent at most
    :param pause: sleeps for a number of seconds
    """

    def __init__(
        self,
        service: Service,
        *,
        timeout: tuple[float, float] = (_CONNECT, _READ),
        tries: int = _TRIES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._tries = tries
        self._pause = pause
        self._pool = _pool(service, urllib3.Timeout(connect=timeout[0], read=timeout[1]))

    @property
    def account_id(self) -> str:
        """The account of the token, or an empty text if the token does not contain it."""
        with suppress(ValueError, IndexError, AttributeError):
            payload = self._service.token.split(".")[1]
            content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return str(content.get("account_id", ""))
        return ""

    def get(self, path: str, **query: Any) -> replies.Reply:
        """Return the reply to a read.

        :param path: the path after `/v2`, with its parts encoded
        :param query: the parameters; those that are None are left out
        :raises KazooIPsError: the service refuses the request
        :raises RemoteFailure: there is no reply
        """
        return self._send("GET", path, query, None, {})

    def pages(self, path: str, **query: Any) -> Iterator[replies.Reply]:
        """Yield the pages of a list, one after the other; parameters are those of `get`."""
        start_key = None
        while True:
            page = self.get(path, **query, page_size=PAGE, start_key=start_key)
            yield page
            start_key = page.next_start_key
            if start_key is None:
                return

    def write(
        self,
        method: str,
        path: str,
        data: Mapping[str, Any] | None = None,
        *,
        request_id: str = "",
        **query: Any,
    ) -> replies.Reply:
        """Return the reply to a write, which the service executes once, however often it is sent.

        :param data: `data` of the body; None for a request without a body
        :param request_id: the request id that documents and log lines get
        :raises KazooIPsError: the service refuses the request
        :raises RemoteFailure: there is no reply
        """
        headers = {"X-Request-ID": request_id} if request_id else {}
        if not query.get("dry_run"):
            headers["Idempotency-Key"] = uuid4().hex
        return self._send(method, path, query, data, headers)

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        """Yield the lines of a reply that is a stream of JSON objects, of any length.

        :raises KazooIPsError: the service refuses the request
        :raises RemoteFailure: there is no reply, or it breaks off
        """
        reply = self._send("GET", path, query, None, {"Accept": _NDJSON})
        rest = b""
        try:
            for part in reply.stream:
                *lines, rest = (rest + part).split(b"\n")
                yield from lines
        except exceptions.HTTPError as error:
            raise _failure(self._service.url, error, is_write=False) from error
        if rest:
            yield rest

    def log_in(self, data: Mapping[str, Any]) -> replies.Reply:
        """Return the reply to `PUT /v2/user_auth`.

        :raises InvalidCredentials: they are wrong
        """
        return self._send("PUT", "/user_auth", {}, data, {})

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        data: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> replies.Reply:
        given = {name: _text(value) for name, value in query.items() if value is not None}
        url = f"{self._service.url}/v2{path}{'?' if given else ''}{urlencode(given)}"
        all_headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **headers}
        if self._service.token:
            all_headers["X-Auth-Token"] = self._service.token
        body = None
        if data is not None:
            body = json.dumps({"data": data}).encode()
            all_headers["Content-Type"] = "application/json"
        reply = self._send_repeatedly(method, url, body, all_headers)
        reply.raise_for_error()
        return reply

    def _send_repeatedly(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> replies.Reply:
        """Send a request, and repeat it if the connection breaks or the service is unavailable.

        :raises RemoteFailure: there is no reply
        """
        for number in range(1, self._tries + 1):
            is_last = number == self._tries
            try:
                reply = self._send_when_permitted(method, url, body, headers)
            except exceptions.HTTPError as error:
                if is_last or isinstance(error, _FINAL):
                    failure = _failure(self._service.url, error, is_write=method != "GET")
                    raise failure from error
            else:
                if is_last or reply.status not in _UNAVAILABLE:
                    return reply
            self._pause(0.25 * 2**number)
        raise AssertionError("a request is sent at least once")

    def _send_when_permitted(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> replies.Reply:
        """Send a request. Wait if a rate limit refuses it, or another attempt is in progress."""
        waited = 0.0
        while True:
            reply = self._exchange(method, url, body, headers)
            seconds = max(reply.retry_after, _PAUSE)
            if reply.message not in _WAITED_FOR or waited + seconds > _LONGEST_WAIT:
                return reply
            waited += seconds
            self._pause(seconds)

    def _exchange(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> replies.Reply:
        response = self._pool.request(
            method,
            url,
            body=body,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
        )
        if response.status == 200 and response.headers.get("Content-Type") == _NDJSON:
            return replies.Reply(
                self._service.url, 200, {}, stream=response.stream(_PART, decode_content=True)
            )
        return replies.read(self._service.url, response.status, response.headers, response.data)


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def address_segment(address: str) -> str:
    """Return an address as one segment of a path.

    :raises IPNotFound: it cannot be the address of a dedicated IP
    """
    if not _ADDRESS.fullmatch(address):
        raise IPNotFound(address)
    return segment(address)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pool(service: Service, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """Return the connections to a service, through the proxy that the environment names.

    :raises RemoteFailure: the file of certificates cannot be read, or has none
    """
    options: dict[str, Any] = {"timeout": timeout, "maxsize": _CONNECTIONS, "block": True}
    if service.ca_file:
        try:
            ssl.create_default_context(cafile=service.ca_file)
            options["ca_certs"] = service.ca_file
        except ssl.SSLError as error:
            raise RemoteFailure(f"{service.ca_file} has no certificates") from error
        except OSError as error:
            reason = error_texts.of_os_error(error)
            raise RemoteFailure(f"{service.ca_file} cannot be read: {reason}") from error
    parts = urlsplit(service.url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _failure(url: str, error: Exception, *, is_write: bool) -> RemoteFailure:
    """Return the error for a request without a reply.

    :param is_write: whether the service may have executed the request
    """
    reason = _reason(error)
    if isinstance(error, exceptions.SSLError):
        return RemoteFailure(f"{url}: {reason}; --ca-file names a file of certificates to trust")
    sent = not isinstance(error, exceptions.NewConnectionError | exceptions.ConnectTimeoutError)
    unknown = "; it is not known whether it was done" if is_write and sent else ""
    return RemoteFailure(f"{url} does not answer: {reason}{unknown}")


def _reason(error: BaseException) -> str:
    """Return why there is no reply: the error of the operating system, if there is one."""
    seen: list[Any] = [error, error.__cause__, error.__context__, *error.args]
    cause = next((each for each in seen if isinstance(each, OSError)), None)
    if cause is None and isinstance(error, exceptions.TimeoutError):
        cause = TimeoutError()
    if cause is None or (isinstance(cause, ConnectionError) and cause.errno is None):
        return "the connection broke"
    return error_texts.of_os_error(cause)
