"""Parts of a page. A part that CouchDB cannot answer now is left out, and the page says so.

CouchDB cannot answer while the index of a view is behind, or while it cannot reach a shard. The
other parts of the page are useful without it. The page is complete when it is loaded again later.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, NamedTuple

from flask import g

from kazoo_ips.console.pages import is_partial
from kazoo_ips.errors import DatastoreError

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """One part of a page.

    :param what: what is missing without it, as in "Left out now: its hosts"
    :param read: reads it
    :param default: what the template gets if it is left out
    """

    what: str
    read: Callable[[], Any]
    default: Any = None


def read(**parts: Part) -> dict[str, Any]:
    """Read parts of a page at the same time, and return them by name.

    :raises DatastoreError: a part cannot be read, and the reply is only a part of a page, such as
        more rows of a table, which cannot show what is left out
    """
    return _read(parts, leaves_out=not is_partial())


def read_region(**parts: Part) -> dict[str, Any]:
    """Read parts as `read` does, also of a part of a page that says what is left out."""
    return _read(parts, leaves_out=True)


def _read(parts: Mapping[str, Part], *, leaves_out: bool) -> dict[str, Any]:
    (first, *others), found = parts.items(), {}
    with ThreadPoolExecutor(max(len(others), 1)) as executor:
        reads: dict[str, Callable[[], Any]] = {}
        for name, part in others:
            reads[name] = executor.submit(copy_context().run, part.read).result
        # This thread reads too, because other threads may wait for its first request.
        for name, result in {first[0]: first[1].read, **reads}.items():
            try:
                found[name] = result()
            except DatastoreError as error:
                if not leaves_out:
                    raise
                log.warning("request %s: %s is left out: %s", g.request_id, name, error)
                g.setdefault("left_out", []).append(parts[name].what)
                found[name] = parts[name].default
    return found
