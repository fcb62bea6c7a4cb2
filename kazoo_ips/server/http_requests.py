"""gunicorn's HTTP, without what is the same for all requests of a connection or of the service."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property, lru_cache, partial
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from kazoo_ips.api import envelope, middleware

_CONSTANT = {envelope.JSON, middleware.POLICY, *middleware.HEADERS}
"""Response headers that need not be checked for each reply."""
_MOST_KEPT = 4096
"""Bytes of headers that are kept for each connection."""


@dataclass
class _Head:
    """The headers of the previous request of a connection, as bytes and parsed.

    Most clients send the same headers with each request of a connection, and to parse them takes a
    tenth of the processor time of a short request.
    """

    version: tuple[int, int] = (0, 0)
    raw: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class _Request(Request):  # type: ignore[misc]
    """A request over HTTP/1.1.

    :param previous: the previous head of the connection, which is replaced by that of this request
    """

    def __init__(self, *arguments: Any, previous: _Head) -> None:
        self._previous = previous
        super().__init__(*arguments)

    def parse_headers(self, data: bytes, from_trailer: bool = False) -> list[tuple[str, str]]:
        """Parse the headers, if they are not those of the previous request."""
        previous = self._previous
        if not from_trailer and data == previous.raw and self.version == previous.version:
            return list(previous.headers)
        scheme = self.scheme
        headers: list[tuple[str, str]] = super().parse_headers(data, from_trailer)
        # Some headers also change the request itself.
        is_plain = not self._expected_100_continue and self.scheme == scheme
        if is_plain and not from_trailer and len(data) <= _MOST_KEPT:
            previous.version, previous.raw, previous.headers = self.version, data, tuple(headers)
        return headers

    def should_close(self) -> bool:
        """Whether the connection ends after this request."""
        return self.must_close or self._is_last

    @cached_property
    def _is_last(self) -> bool:
        return bool(super().should_close())

    def _peer_is_trusted_proxy(self) -> bool:
        """Whether gunicorn trusts the peer; by this service's settings it trusts no address."""
        if isinstance(self.peer_addr, tuple) and not self.cfg.forwarded_allow_ips:
            return False
        return bool(super()._peer_is_trusted_proxy())

    @property
    def has_rest(self) -> bool:
        """Whether bytes of the body may not have been read yet."""
        reader = self.body.reader
        return self.body.failed or not isinstance(reader, LengthReader) or reader.length > 0


class Requests(RequestParser):  # type: ignore[misc]
    """The requests of one connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mesg_class = partial(_Request, previous=_Head())

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Read the rest of the body of the current request, if it has one.

        :returns: False if the connection cannot be used again
        """
        if self.mesg is not None and not self.mesg.has_rest:
            return True
        return bool(super().finish_body(deadline, max_bytes))


class _Response(wsgi.Response):  # type: ignore[misc]
    """A reply."""

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Check the headers, except those that are the same in most replies."""
        for header in headers:
            if header in _CONSTANT:
                self.headers.append(header)
            else:
                super().process_headers((header,))


def keep_constants(cfg: Any) -> None:
    """Let gunicorn compute once what is the same for all requests, or for those of one second.

    It reads twenty settings for each request. The settings of a running worker do not change.
    """
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})
    base = wsgi.base_environ(cfg)
    wsgi.base_environ = lambda _: dict(base)
    wsgi.Response = _Response
    util.http_date = _http_date


def _http_date() -> str:
    return _date_of(int(time.time()))


@lru_cache(maxsize=2)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
