"""Replies that are files of a page: a script, a style sheet, an image, or the page itself."""

from flask import Response, request


def file_reply(content: bytes, media: str, cache: str = "no-cache") -> Response:
    """Return a file with an ETag, or 304 if the client has it already.

    :param media: the media type
    :param cache: the value of Cache-Control. By default a browser asks each time whether its copy
        is still valid
    """
    response = Response(content, content_type=media)
    response.add_etag()
    tag, _ = response.get_etag()
    if tag and request.if_none_match.contains_weak(tag):
        response = Response(status=304)
        response.set_etag(tag)
    response.headers["Cache-Control"] = cache
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
