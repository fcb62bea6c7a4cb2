"""A process that is killed at one of its requests to CouchDB."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from kazoo_ips.couch.http_client import Transport


class Killed(BaseException):
    """The process was killed."""


@contextmanager
def killed_at(number: int, *, answered: bool) -> Iterator[list[int]]:
    """Kill the process at a request to CouchDB that this thread sends, inside this context.

    :param answered: whether CouchDB gets the request
    :returns: a list with the number of requests so far
    """
    send, count, thread = Transport.send, [0], threading.get_ident()

    def counting(self: Transport, *given: Any, **more: Any) -> Any:
        if threading.get_ident() != thread:
            return send(self, *given, **more)
        count[0] += 1
        if count[0] < number:
            return send(self, *given, **more)
        if count[0] == number and answered:
            send(self, *given, **more)
        raise Killed

    with patch.object(Transport, "send", counting):
        yield count
