"""The request context: the id and the costs of the current work of a thread.

The work is a request, a command, or a round of the background worker. Lower layers have no access
to the request, and read its context from this module. Standard library only.
"""

import hashlib
import os
import re
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kazoo_ips.observability.spans import WorkSpan

_COUCHDB_ACCEPTS = re.compile(r"[0-9A-Za-z_-]+")
"""The characters that CouchDB accepts in a request id, of 36 characters at most (`nonce/1` in its
`chttpd.erl`)."""
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?",
    re.ASCII,
)
"""The header `traceparent` of W3C Trace Context: version, trace id, parent id, flags. Versions
after 00 may have more fields."""
_OF_TRACE, _OF_REQUEST = 15, 8
"""Numbers of characters of a trace id and of a request id in an id of a request to CouchDB. With
the hyphen they are `_LENGTH` characters. 15 hex digits are enough to find a trace in a log."""
_LENGTH = 24
"""Characters of an id that identify the request. A hyphen and a number follow."""
_IDS_AT_ONCE = 64
NUMBERS = count(secrets.randbelow(10**10))
"""Makes the ids of requests to CouchDB unique. Starts at a random number, so that the ids of two
processes differ."""


class Work:
    """A request or another unit of work. Used by one thread, and by the threads that it starts.

    :param request_id: its id, as in the reply to the client
    :param by: who does the work: an `account`, a `command`, or the `background` worker
    :param traceparent: the header with the trace and the parent that the client names; a header
        that is not valid is ignored
    """

    __slots__ = (
        "account_id", "by", "calls", "client", "command", "couchdb_id", "dry_run", "notes",
        "over_limit", "parent_id", "request_id", "route", "seconds", "shared", "span",
        "system_user", "trace_id", "user_id",
    )  # fmt: skip

    def __init__(self, request_id: str, by: str = "account", traceparent: str = "") -> None:
        self.trace_id = self.parent_id = ""
        """The trace that the client named, and the client's span that sent the request."""
        match = _TRACEPARENT.fullmatch(traceparent)
        if match and not (match["more"] and traceparent.startswith("00")):
            self.trace_id, self.parent_id = match[1], match[2]
        self.rename(request_id)
        self.by = by
        self.command = ""
        """The name of the command; empty for other work."""
        self.system_user = ""
        """The name of the operating system's user who runs the command."""
        self.route = ""
        self.account_id: str | None = None
        """The account and the user of the caller, after the authorisation."""
        self.user_id: str | None = None
        self.client = ""
        """The client's address, if a trusted proxy has reported it."""
        self.dry_run = False
        """Whether this work must not write to the database."""
        self.over_limit = False
        """Whether a rate limit has refused this work."""
        self.calls = 0
        """Number of requests sent to CouchDB."""
        self.seconds = 0.0
        """Seconds spent waiting for these requests, and for shared requests of other threads."""
        self.shared: list[str] = []
        """Beginnings of the ids of requests to CouchDB that other threads have sent for this work
        as well (group commit)."""
        self.notes: list[str] = []
        """Special events, one word each, for the log line."""
        self.span: WorkSpan | None = None
        """Its span, if spans are made (`tracing.py`) and it is sampled."""

    def rename(self, request_id: str) -> None:
        """Set the request id, and the beginning of the ids of its requests to CouchDB.

        This beginning is the first 24 characters of the request id. If CouchDB does not accept the
        request id, it is the first 24 hex digits of the id's SHA-256. In a trace it is 15
        characters of the trace id, a hyphen, and the first 8 of these 24 characters.
        """
        self.request_id = self.couchdb_id = request_id
        if _COUCHDB_ACCEPTS.fullmatch(request_id):
            self.couchdb_id = request_id[:_LENGTH]
        elif request_id:
            self.couchdb_id = hashlib.sha256(request_id.encode()).hexdigest()[:_LENGTH]
        if self.trace_id:
            self.couchdb_id = f"{self.trace_id[:_OF_TRACE]}-{self.couchdb_id[:_OF_REQUEST]}"

    def share(self, sent_as: str, sender: "WorkSpan | None", seconds: float) -> None:
        """Record that another thread sent a request to CouchDB for this work as well.

        :param sent_as: the beginning of that request's id in CouchDB's log
        :param sender: the span of the work that has sent it, if it has one
        :param seconds: how long this work has waited for it
        """
        self.shared.append(sent_as)
        self.seconds += seconds
        if self.span is not None:
            self.span.add_shared(sent_as, sender, seconds)


NO_WORK = "command"
"""The beginning of the ids of requests to CouchDB without current work."""

CURRENT: ContextVar[Work | None] = ContextVar("work", default=None)
"""The current work of this thread."""


_random_ids: deque[str] = deque()
os.register_at_fork(after_in_child=_random_ids.clear)


def random_id() -> str:
    """Return 32 random hex digits.

    The system is asked for the digits of several ids at once, because each time Python releases
    its global lock to another thread.
    """
    while True:
        try:
            return _random_ids.pop()
        except IndexError:
            digits = secrets.token_hex(_IDS_AT_ONCE * 16)
            _random_ids.extend(digits[i : i + 32] for i in range(0, len(digits), 32))


def begin(request_id: str, by: str = "account", traceparent: str = "") -> Work:
    """Start a unit of work in this thread, and return it. It replaces the previous one."""
    work = Work(request_id, by, traceparent)
    CURRENT.set(work)
    return work


@contextmanager
def command(name: str, system_user: str) -> Iterator[Work]:
    """Make a command the current work, inside this context, and yield it."""
    work = Work(f"{NO_WORK}-{secrets.token_hex(8)}", by="command")
    work.command, work.system_user = name, system_user
    token = CURRENT.set(work)
    try:
        yield work
    finally:
        CURRENT.reset(token)


def identify(account_id: str, user_id: str | None) -> None:
    """Record the caller of the current work, if there is any."""
    work = CURRENT.get()
    if work is not None:
        work.account_id, work.user_id = account_id, user_id


def rename(request_id: str) -> None:
    """Set the id of the current work, if there is any."""
    work = CURRENT.get()
    if work is not None:
        work.rename(request_id)


@contextmanager
def dry_run() -> Iterator[None]:
    """Forbid the current work to write to the database, inside this context."""
    work = CURRENT.get()
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
    work = CURRENT.get()
    return work is not None and work.dry_run


def over_limit(limit: str) -> None:
    """Record that a rate limit has refused the current work, if there is any."""
    work = CURRENT.get()
    if work is not None:
        work.over_limit = True
        note(f"{limit}_limit")


def note(word: str) -> None:
    """Add a word about a special event to the current work, if there is any."""
    work = CURRENT.get()
    if work is not None and word not in work.notes:
        work.notes.append(word)
