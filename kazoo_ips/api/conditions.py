"""If-Match on a write, as the revisions that the writer takes for current."""

from flask import request


def if_match() -> tuple[str, ...]:
    """The revisions of If-Match; empty when there is none, `*` is any."""
    tags = request.if_match
    return ("*",) if tags.star_tag else tuple(tags.as_set())
