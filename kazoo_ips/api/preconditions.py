"""If-Match on a write, as the revisions that the writer takes for current."""

from flask import request


def if_match() -> tuple[str, ...]:
    """The revisions of If-Match; empty when there is none, `*` is any.

    A weak tag, or what is no tag at all, is the revision of nothing.
    """
    tags = request.if_match
    if tags.star_tag:
        return ("*",)
    return tuple(tags.as_set()) or (("",) if request.headers.get("If-Match") else ())
