"""The Content-Encoding of a request's body."""

import zlib

from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's parameter for data with a gzip header."""


class BadCoding(ValueError):
    """The body does not have the coding that its header names. The message says why."""


def decode(body: bytes, coding: str, limit: int) -> bytes:
    """Return a body without its coding.

    :param coding: the value of Content-Encoding; empty if there is no such header
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
