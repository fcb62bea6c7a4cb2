"""The schemas of the envelope of replies in the OpenAPI description.

Each reply has its own schema with all members, from which client generators make a class. With
schemas composed by `allOf`, some generators would make one class for all replies.
"""

from collections.abc import Mapping
from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
PRINTABLE = {"type": "string", "pattern": "^[!-~]+$", "maxLength": 128}
"""A request id or an Idempotency-Key.

The Go client of openapi-generator fails on patterns with a comma, such as `{1,128}`.
"""

_ALWAYS = {
    "request_id": {
        **PRINTABLE,
        "description": "The id of the request, as in `X-Request-ID`",
        "examples": ["07752b1c6d3f4e9a8b5c0d1e2f3a4b5c"],
    },
    "node": {
        **_TEXT,
        "description": "Identifies the machine that has replied",
        "pattern": r"^[\w-]{22}$",
        "examples": ["aGyCGoCRSu-CJGW0gBnNNA"],
    },
    "timestamp": {"type": "string", "format": "date-time"},
    "version": {**_TEXT, "description": "Version of the service"},
}
_SOMETIMES = {
    "auth_token": {**_TEXT, "description": "The token of the request, or the new one"},
    "dry_run": {
        "type": "boolean",
        "const": True,
        "description": "This was a dry run: nothing was written",
    },
}
_PAGING = {
    "page_size": {"type": "integer", "minimum": 0, "description": "Number of lines on this page"},
    "start_key": {**_TEXT, "description": "The `start_key` of the request"},
    "next_start_key": {
        **_TEXT,
        "description": "The `start_key` of the next page; missing on the last page",
    },
}


def success(
    data: dict[str, Any], *, paged: bool = False, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the schema of a successful reply.

    :param data: the schema of its `data`
    :param paged: whether the reply can be a page of a list
    :param more: schemas of further members, which every reply has
    """
    members = {
        "data": data,
        "status": {**_TEXT, "const": "success"},
        "revision": {**_TEXT, "description": "Revision of `data`, as in `ETag`", "minLength": 1},
        **(more or {}),
    }
    return _reply(members, _PAGING if paged else {})


def failure(data: dict[str, Any], status: int, message: str) -> dict[str, Any]:
    """Return the schema of an error.

    :param data: the schema of its `data`
    :param status: the HTTP status
    :param message: the kind of error
    """
    return _reply(
        {
            "data": data,
            "status": {**_TEXT, "const": "error"},
            "error": {**_TEXT, "const": str(status), "description": "The HTTP status"},
            "message": {**_TEXT, "const": message, "description": "The kind of error"},
        }
    )


def _reply(members: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    always = {**members, **_ALWAYS}
    properties = {**always, **_SOMETIMES, **(optional or {})}
    return {"type": "object", "required": [*always], "properties": properties}
