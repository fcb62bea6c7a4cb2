"""gunicorn's parser of requests, without what is the same for each request of this service."""

import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser


class _Request(Request):  # type: ignore[misc]
    """A request over HTTP/1.1."""

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

    mesg_class = _Request

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Read the rest of the body of the current request, if it has one.

        :returns: False if the connection cannot be used again
        """
        if self.mesg is not None and not self.mesg.has_rest:
            return True
        return bool(super().finish_body(deadline, max_bytes))


def keep_constants(cfg: Any) -> None:
    """Let gunicorn compute once what is the same for all requests, or for those of one second.

    It reads twenty settings for each request. The settings of a running worker do not change.
    """
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})
    base = wsgi.base_environ(cfg)
    wsgi.base_environ = lambda _: dict(base)
    util.http_date = _http_date


def _http_date() -> str:
    return _date_of(int(time.time()))


@lru_cache(maxsize=2)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
