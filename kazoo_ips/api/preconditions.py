"""The If-Match header of a write."""

from flask import request


def if_match() -> tuple[str, ...]:
    """Return the revisions in If-Match.

    :returns: empty without the header; `("*",)` for any revision; an empty string, which no
        document has as its revision, for a weak or malformed tag
    """
    tags = request.if_match
    if tags.star_tag:
        return ("*",)
    return tuple(tags.as_set()) or (("",) if request.headers.get("If-Match") else ())
