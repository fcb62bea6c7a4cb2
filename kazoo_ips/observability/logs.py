"""Log lines: one JSON object each, or a line for human eyes; either way without secrets.

A record with `fields` is a request that was answered, whose fields are clean already. Everything
else is looked through, since text that others wrote may quote what they were given.
"""

import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Any, TextIO

import orjson

from kazoo_ips.observability import request_context

MASK = "***"
_MOMENT = 0.1
"""Seconds that a line may wait for others."""

_SECRETS = re.compile(
    r"""eyJ[\w-]{6,}(?:\.[\w-]+)*             # a token
      | (?<=//)[^\s'"]+@                    # user and password of a URL
      | (?<=\?)[^\s'"<>]*=[^\s'"<>]*           # a query
      | (?<=[Bb]asic\ )[\w+/=-]{4,}
      | (?<=[Bb]earer\ )[^\s'"]{4,}
    """,
    re.VERBOSE,
)
_LOUD = ("urllib3", "werkzeug")
"""Loggers that at debug level quote whole requests."""


def set_up(
    level: str, form: str, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Let every logger of this process write to one place in one form.

    :param level: debug, info, warning or error
    :param form: json or text
    :param secrets: words that must not be in any line, whoever wrote it
    :param stream: where to; standard error unless given
    """
    handler = _BatchHandler(stream or sys.stderr)
    known = tuple(secret for secret in secrets if secret)
    handler.setFormatter(JSONFormatter(known) if form == "json" else TextFormatter(known))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # What no line tells need not be found out.
    logging.logThreads = logging.logMultiprocessing = False


class _BatchHandler(logging.StreamHandler[TextIO]):
    """Writes what comes within a moment together, and at once what is worse than information.

    Python's lock goes to another thread at each write, which made a request cost a tenth more. A
    process that is killed takes the lines of its last moment with it.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Begin without lines and without a writer: neither comes along with a fork."""
        self._lines: deque[str] = deque()
        self._due = Event()
        self._writing = Lock()
        self._writer: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
        if record.levelno > logging.INFO:
            self.flush()
        elif not self._due.is_set():
            self._due.set()
            if self._writer is None:
                self._writer = Thread(target=self._write, name="log", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write what there is; at the end of the process logging itself asks for it."""
        with self._writing, suppress(OSError, ValueError):  # nobody reads any more
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self.stream.write("\n".join(lines) + "\n")
                self.stream.flush()

    def _write(self) -> None:
        while True:
            self._due.wait()
            time.sleep(_MOMENT)
            self._due.clear()
            self.flush()


class _Formatter(logging.Formatter):
    """What both forms share.

    :param secrets: words that must not be in any line
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._words = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def clean(self, text: str) -> str:
        """The text without what looks like a secret, or is known to be one."""
        text = _SECRETS.sub(MASK, text)
        return self._words.sub(MASK, text) if self._words else text

    def exception(self, record: logging.LogRecord) -> str | None:
        """The traceback, if there is one."""
        return self.clean(self.formatException(record.exc_info)) if record.exc_info else None


class JSONFormatter(_Formatter):
    """One object a line: `time` and `level` first, then a request's fields, or `logger`,
    `message`, and `request_id` and `exception` where there are any.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": f"{moment[:-6]}Z",
            "level": record.levelname.lower(),
        }
        fields = record.__dict__.get("fields")
        if fields is not None:
            line.update(fields)
        else:
            line["logger"] = record.name
            line["message"] = self.clean(record.getMessage())
            current = request_context.current()
            if current is not None:
                line["request_id"] = current.request_id
            exception = self.exception(record)
            if exception:
                line["exception"] = exception
        try:
            return orjson.dumps(line).decode()
        except TypeError:  # text that is no UTF-8
            return json.dumps(line)


class TextFormatter(_Formatter):
    """A line for human eyes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = f"{record.levelname.lower():7}"
        fields = record.__dict__.get("fields")
        if fields is None:
            text = self.clean(record.getMessage())
        else:
            text = (
                f"{fields['status']} {fields['method']} {fields['path']}  "
                f"{fields['duration_ms']:.1f} ms, CouchDB {fields['couchdb_calls']} times "
                f"{fields['couchdb_ms']:.1f} ms {' '.join(fields.get('notes', ()))}".rstrip()
            )
        exception = self.exception(record)
        return f"{moment} {level} {text}" + (f"\n{exception}" if exception else "")
