"""Log lines without secrets, as one JSON object each or as text for human readers.

A record with `fields` is the log line of a request, or an audit line. Its fields contain no
secrets. In all other messages secrets are masked, because texts of libraries may quote input.
"""

import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from socket import AF_UNIX, SOCK_DGRAM, socket
from threading import Event, Lock, Thread
from typing import Any, TextIO

import msgspec

from kazoo_ips.model.names import printable
from kazoo_ips.observability import audit, request_context

MASK = "***"
_MAX_DELAY = 0.1
"""Seconds that a line may wait, so that several lines are written at once."""
_MAX_WAIT = 1.0
"""Seconds that a command waits for the system's log to accept a line."""
_PRIORITY = 14
"""Syslog's priority of these lines: facility user, severity info."""

_SECRETS = re.compile(
    r"""eyJ[\w-]{6,}(?:\.[\w-]+)*             # a token
      | (?<=//)[^\s'"]+@                    # user and password of a URL
      | (?<=\?)[^\s'"<>]*=[^\s'"<>]*           # a query
      | (?<=[Bb]asic\ )[\w+/=-]{4,}
      | (?<=[Bb]earer\ )[^\s'"]{4,}
    """,
    re.VERBOSE,
)
_VERBOSE = ("amqp", "kombu", "urllib3", "werkzeug")
"""Loggers that log whole requests at debug level."""


def set_up(
    level: str, form: str, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Configure all loggers of this process to write to one stream in one format.

    :param level: debug, info, warning or error
    :param form: json or text
    :param secrets: words that are masked in every line
    :param stream: the stream; standard error unless given
    """
    handler = _BatchHandler(stream or sys.stderr)
    words = tuple(secret for secret in secrets if secret)
    handler.setFormatter(JSONFormatter(words) if form == "json" else TextFormatter(words))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    audit.log.setLevel(logging.INFO)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # No line contains thread and process names, so logging need not determine them.
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False


@contextmanager
def command_log(form: str, syslog: str) -> Iterator[None]:
    """Write the audit lines of a command, inside this context.

    A command writes no other lines: it prints its errors.

    :param form: json or text
    :param syslog: the socket of the system's log; standard error is used if nothing listens on it
    """
    handler: logging.Handler
    try:
        handler = _SystemLog(syslog)
    except OSError:
        handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    before = audit.log.level, audit.log.propagate
    audit.log.addHandler(handler)
    audit.log.setLevel(logging.INFO)
    audit.log.propagate = False
    try:
        yield
    finally:
        audit.log.level, audit.log.propagate = before
        audit.log.removeHandler(handler)
        handler.close()


class _SystemLog(logging.Handler):
    """Writes lines to the system's log, and to standard error if the system's log refuses them.

    The standard library's handler waits for ever if the system's log accepts nothing.

    :raises OSError: there is no such socket
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._socket = socket(AF_UNIX, SOCK_DGRAM)
        self._socket.settimeout(_MAX_WAIT)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        line = self.format(record)
        try:
            self._socket.send(f"<{_PRIORITY}>kazoo-ips: {line}".encode())
        except OSError:
            sys.stderr.write(f"{line}\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


class _BatchHandler(logging.StreamHandler[TextIO]):
    """Writes lines in batches. Audit lines, and those above the level info, are written at once.

    Each write releases Python's global lock to another thread. Without batches, requests took a
    tenth longer. If a process is killed, the lines of its last tenth of a second are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Start without lines and without a thread. A forked process calls this too."""
        self._lines: deque[str] = deque()
        self._due = Event()
        self._writing = Lock()
        self._writer: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. Write it at once if its level is above info, or if it is an audit line."""
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
        if record.levelno > logging.INFO or record.name == audit.log.name:
            self.flush()
        elif not self._due.is_set():
            self._due.set()
            if self._writer is None:
                self._writer = Thread(target=self._write, name="log", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write the queued lines. `logging` calls this at the end of the process."""
        with self._writing, suppress(OSError, ValueError):  # the stream is closed
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self.stream.write("\n".join(lines) + "\n")
                self.stream.flush()

    def _write(self) -> None:
        while True:
            self._due.wait()
            time.sleep(_MAX_DELAY)
            self._due.clear()
            self.flush()


class _Formatter(logging.Formatter):
    """The base of both formatters.

    :param secrets: words that are masked in every line
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._words = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def clean(self, text: str) -> str:
        """Return the text without the given words and without text that looks like a secret."""
        text = _SECRETS.sub(MASK, text)
        return self._words.sub(MASK, text) if self._words else text

    def exception(self, record: logging.LogRecord) -> str | None:
        """Return the traceback of a record, or None."""
        return self.clean(self.formatException(record.exc_info)) if record.exc_info else None


class JSONFormatter(_Formatter):
    """Formats a line as one JSON object.

    `time` and `level` come first. The fields of a request or of an audit line follow. Other lines
    have `logger` and `message`, and `request_id` and `exception` if they exist.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
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
            current = request_context.CURRENT.get()
            if current is not None:
                line["request_id"] = current.request_id
            exception = self.exception(record)
            if exception:
                line["exception"] = exception
        try:
            text = msgspec.json.encode(line).decode()
        except UnicodeEncodeError:  # text that is not valid UTF-8
            return json.dumps(line)
        # JSON may contain characters that some readers treat as the end of a line. `json` escapes
        # them.
        return text if text.isprintable() else json.dumps(line)


class TextFormatter(_Formatter):
    """Formats a line as text for human readers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback."""
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = f"{record.levelname.lower():7}"
        fields = record.__dict__.get("fields")
        if fields is None or "audit" in fields:
            text = self.clean(record.getMessage())
        else:
            text = (
                f"{fields['status']} {fields['method']} {fields['path']}  "
                f"{fields['duration_ms']:.1f} ms, CouchDB {fields['couchdb_calls']} times "
                f"{fields['couchdb_ms']:.1f} ms {' '.join(fields.get('notes', ()))}".rstrip()
            )
        text = printable(text)
        exception = self.exception(record)
        return f"{moment} {level} {text}" + (f"\n{exception}" if exception else "")
