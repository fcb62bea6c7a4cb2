"""The rows of a view, cut from its response while CouchDB sends it.

CouchDB writes each row on a line of its own. Line ends within a row are escaped, as in all JSON.
"""

from collections.abc import Iterator
from itertools import chain

from kazoo_ips.couch.responses import ReadFailed

_START, _BETWEEN, _END = b'"rows":[\r\n', b",\r\n", b"]}"


def blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield all rows in blocks of whole rows, each as the JSON of a response of its own.

    :param parts: the body of the response; the first part has the start of the rows
    :raises ReadFailed: the body has another form, or ends early, perhaps with CouchDB's error
    """
    _, start, rest = next(parts, b"").partition(_START)
    if not start:
        raise ReadFailed("a view: its rows are not on lines of their own")
    for part in chain([b""], parts):
        rows, between, rest = (rest + part).rpartition(_BETWEEN)
        if between:
            yield b'{"rows":[%b]}' % rows
    last = rest.rstrip()
    if not last.endswith(_END):
        raise ReadFailed(f"a view: {last[-200:].decode(errors='replace')}")
    yield b'{"rows":[%b' % last
