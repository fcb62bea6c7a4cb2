"""What this thread is working on, a request or a round of housekeeping, and what it has cost.

Whoever begins the work says its name once; what is done on its behalf further down, where nobody
knows of requests, finds it here. Standard library only.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

_COUCHDB_TAKES = re.compile(r"[0-9A-Za-z_-]+")
"""What CouchDB takes for the id of a request, 36 characters at the most (`nonce/1` of its
`chttpd.erl`)."""
_LENGTH = 24
"""So many of them say whose request it is; a hyphen and a number follow."""
_NUMBERS = count(secrets.randbelow(10**10))
"""From a number of chance on, so that no two processes send the same id."""


class Work:
    """One piece of work. Belongs to one thread, and to those that it has help from meanwhile.

    :param request_id: its name, as the caller knows it
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
        """The address it comes from, where a trusted proxy says so."""
        self.dry_run = False
        """Whether it may look at everything and write nothing."""
        self.calls = 0
        """Requests sent to CouchDB."""
        self.seconds = 0.0
        """Time spent waiting for them, and for those of others that brought an answer."""
        self.shared: list[str] = []
        """By what names others have asked CouchDB for it as well, instead of a request: those
        that the ids of their requests begin with."""
        self.notes: list[str] = []
        """What was out of the ordinary, a word each."""

    @property
    def couchdb_id(self) -> str:
        """What the ids of its requests to CouchDB begin with: the first 24 characters of its
        name, or of its SHA-256 in hex where CouchDB would not take that.
        """
        if _COUCHDB_TAKES.fullmatch(self.request_id):
            return self.request_id[:_LENGTH]
        return hashlib.sha256(self.request_id.encode()).hexdigest()[:_LENGTH]

    def share(self, asked_as: str, seconds: float) -> None:
        """Note that somebody else's request to CouchDB brought what this needs.

        :param asked_as: what its id in CouchDB's log begins with
        :param seconds: that this has waited for it
        """
        self.shared.append(asked_as)
        self.seconds += seconds


_NOBODYS = "command"
"""What those ids begin with where no work has begun."""

_current: ContextVar[Work | None] = ContextVar("work", default=None)


def begin(request_id: str) -> Work:
    """Begin a piece of work in this thread; the one before is over."""
    work = Work(request_id)
    _current.set(work)
    return work


def current() -> Work | None:
    """What this thread is working on; None in commands."""
    return _current.get()


def next_couchdb_id() -> str:
    """An id for one request to CouchDB, which no other has: whose it is, and a number."""
    work = _current.get()
    return f"{work.couchdb_id if work else _NOBODYS}-{next(_NUMBERS)}"


def rename(request_id: str) -> None:
    """Give the current work, if there is any, its name."""
    work = _current.get()
    if work is not None:
        work.request_id = request_id


@contextmanager
def dry_run() -> Iterator[None]:
    """In here the current work may look at everything and write nothing."""
    work = _current.get()
    if work is None:
        raise LookupError("only what has begun can be a dry run")
    work.dry_run = True
    note("dry_run")
    try:
        yield
    finally:
        work.dry_run = False


def is_dry_run() -> bool:
    """Whether the current work, if there is any, may write nothing."""
    work = _current.get()
    return work is not None and work.dry_run


def note(word: str) -> None:
    """Say of the current work what is out of the ordinary about it."""
    work = _current.get()
    if work is not None and word not in work.notes:
        work.notes.append(word)
