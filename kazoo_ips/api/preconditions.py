"""The If-Match header of a write."""

from flask import request


def if_match() -> tuple[str, ...]:
    """Return the revisions in If-Match.

    :returns: empty without the header; `("*",)` for any revision. A weak or malformed tag is an
        empty string, which is the revision of no document
    """
    tags = request.if_match
    if tags.star_tag:
        return ("*",)
    return tuple(tags.as_set()) or (("",) if request.headers.get("If-Match") else ())
