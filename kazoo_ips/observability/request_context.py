"""The request context: the id and the costs of what this thread is working on.

The work is a request or a round of the background worker. Its id is set once, when it starts.
Lower layers, which have no access to the request, read it here. Standard library only.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

_COUCHDB_TAKES = re.compile(r"[0-9A-Za-z_-]+")
"""The characters that CouchDB accepts in a request id, of 36 characters at most (`nonce/1` in its
`chttpd.erl`)."""
_LENGTH = 24
"""Characters of an id that identify the request. A hyphen and a number follow."""
_NUMBERS = count(secrets.randbelow(10**10))
"""Starts at a random number, so that no two processes send the same id."""


class Work:
    """A request or another unit of work. Used by one thread, and by threads that help it.

    :param request_id: its id, as the client knows it
    """

    __slots__ = (
        "account_id", "calls", "client", "dry_run", "notes", "request_id", "route", "seconds",
        "shared", "user_id",
    )  # fmt: skip

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.route = ""
        self.account_id: str | None = None
        self.user_id: str | None = None
        self.client = ""
        """The client's address, if a trusted proxy has named it."""
        self.dry_run = False
        """Whether it must not write to the database."""
        self.calls = 0
        """Number of requests sent to CouchDB."""
        self.seconds = 0.0
        """Seconds spent waiting for these requests, and for shared requests of other threads."""
        self.shared: list[str] = []
        """Beginnings of the ids of requests to CouchDB that other threads have sent and whose
        responses included what this work needs."""
        self.notes: list[str] = []
        """Special events, one word each, for the log line."""

    @property
    def couchdb_id(self) -> str:
        """The beginning of the ids of its requests to CouchDB.

        It is the first 24 characters of the request id, or of the id's SHA-256 in hex if CouchDB
        does not accept the request id.
        """
        if _COUCHDB_TAKES.fullmatch(self.request_id):
            return self.request_id[:_LENGTH]
        return hashlib.sha256(self.request_id.encode()).hexdigest()[:_LENGTH]

    def share(self, asked_as: str, seconds: float) -> None:
        """Record that another thread's request to CouchDB included what this work needs.

        :param asked_as: the beginning of that request's id in CouchDB's log
        :param seconds: how long this work has waited for it
        """
        self.shared.append(asked_as)
        self.seconds += seconds


_NO_WORK = "command"
"""The beginning of these ids if there is no current work."""

_current: ContextVar[Work | None] = ContextVar("work", default=None)


def begin(request_id: str) -> Work:
    """Start a unit of work in this thread, and return it. It replaces the previous one."""
    work = Work(request_id)
    _current.set(work)
    return work


def current() -> Work | None:
    """Return the current work of this thread; None in commands."""
    return _current.get()


def next_couchdb_id() -> str:
    """Return a unique id for one request to CouchDB: the id of the work, and a number."""
    work = _current.get()
    return f"{work.couchdb_id if work else _NO_WORK}-{next(_NUMBERS)}"


def rename(request_id: str) -> None:
    """Set the id of the current work, if there is any."""
    work = _current.get()
    if work is not None:
        work.request_id = request_id


@contextmanager
def dry_run() -> Iterator[None]:
    """Forbid the current work to write to the database, inside this context."""
    work = _current.get()
    if work is None:
        raise LookupError("a dry run needs a current request")
    work.dry_run = True
    note("dry_run")
    try:
        yield
    finally:
        work.dry_run = False


def is_dry_run() -> bool:
    """Whether the current work, if there is any, must not write to the database."""
    work = _current.get()
    return work is not None and work.dry_run


def note(word: str) -> None:
    """Add a word about a special event to the current work, if there is any."""
    work = _current.get()
    if work is not None and word not in work.notes:
        work.notes.append(word)
