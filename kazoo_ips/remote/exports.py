"""The export of everything, read over the API, and its import."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from kazoo_ips.errors import RemoteFailure
from kazoo_ips.remote.client import APIClient
from kazoo_ips.services.pool.exports import LAST, Line, Restored

_MOST_LINES, _MOST_CHARACTERS = 1000, 2_000_000
"""The lines of one request, and their characters in JSON. A body may have 8,000,000 bytes."""


class RemoteExports:
    """Exports everything."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    @staticmethod
    def size(*, history: bool = True) -> int:
        """Return 0: the API does not say how many lines an export has."""
        del history
        return 0

    def lines(self, *, history: bool = True) -> Iterator[Line]:
        """Yield the lines of an export: a header, settings, events, addresses, and the end.

        :param history: whether to include the events of the history
        :raises RemoteFailure: the reply breaks off
        """
        kind = None
        for text in self._client.lines("/ips/export", history=history):
            line: Line = json.loads(text)
            kind = line.get("type")
            yield line
        if kind != LAST:
            raise RemoteFailure("the export is incomplete: it has no last line")


class RemoteLineStorage:
    """Stores lines of an export."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def store(self, lines: Sequence[Line], *, dry_run: bool = False) -> Restored:
        """Store documents of one type, and of one year, in as many requests as necessary.

        :param dry_run: whether to store nothing, and return what would be done
        """
        counts: Counter[str] = Counter()
        different: list[str] = []
        without: set[str] = set()
        for part in _parts(lines):
            data = {"lines": part}
            found = self._client.write("POST", "/ips/restore", data, dry_run=dry_run or None).data
            counts.update(found["counts"])
            different += found["different"]
            without.update(found["accounts_without_database"])
        return Restored(lines[0]["type"], counts, tuple(different), tuple(sorted(without)))


def _parts(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield the lines in lists that fit into a request."""
    part: list[Line] = []
    length = 0
    for line in lines:
        size = len(json.dumps(line))
        if part and (len(part) == _MOST_LINES or length + size > _MOST_CHARACTERS):
            yield part
            part, length = [], 0
        part.append(line)
        length += size
    yield part
