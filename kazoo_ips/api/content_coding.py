"""The Content-Encoding: replies are compressed, and request bodies decoded, with gzip."""

import zlib
from collections.abc import Iterable, Iterator

from flask import Request, Response
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

MIN_LENGTH = 1000
"""Minimum bytes of a reply that is compressed. A shorter reply fits into one network packet."""
_LEVEL = 4
"""For a list of 1,000 addresses, level 6 takes twice the time and saves a tenth of the bytes."""
_GZIP = 16 + zlib.MAX_WBITS
"""zlib's parameter for data with a gzip header."""


class BadCoding(ValueError):
    """The body does not have the coding that its header names. The message says why."""


def decode(body: bytes, coding: str, limit: int) -> bytes:
    """Return a body without its coding.

    :param coding: the value of Content-Encoding
    :param limit: the maximum length of the decoded body, in bytes
    :raises UnsupportedMediaType: the coding is neither gzip nor identity
    :raises RequestEntityTooLarge: the decoded body is longer than the limit
    :raises BadCoding: the body is not gzip, or is incomplete
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "x-gzip"}:
        raise UnsupportedMediaType
    parts: list[bytes] = []
    while body:  # a gzip body may consist of several members
        decoder = zlib.decompressobj(_GZIP)
        try:
            part = decoder.decompress(body, limit + 1)
        except zlib.error:
            raise BadCoding("the body is not gzip") from None
        limit -= len(part)
        if limit < 0:
            raise RequestEntityTooLarge
        if not decoder.eof:
            raise BadCoding("the body ends within its gzip data")
        parts.append(part)
        body = decoder.unused_data
    return b"".join(parts)


def compress(incoming: Request, response: Response) -> None:
    """Compress the body of a reply, if the client accepts that and the reply is long enough.

    A streamed reply is compressed part by part, and each part is sent at once. The ETag stays the
    same, because it is the revision of a document, which `If-Match` compares.
    """
    response.vary.add("Accept-Encoding")
    streamed = response.is_streamed
    accepted = incoming.accept_encodings.best_match(["gzip", "identity"])
    if accepted != "gzip" or "Content-Encoding" in response.headers:
        return
    if not streamed and len(response.get_data()) < MIN_LENGTH:
        return
    if streamed:
        response.response = _parts(response.response)  # type: ignore[arg-type]
    else:
        response.set_data(b"".join(_parts([response.get_data()])))
    response.headers["Content-Encoding"] = "gzip"


def _parts(parts: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for part in parts:
        yield compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()
