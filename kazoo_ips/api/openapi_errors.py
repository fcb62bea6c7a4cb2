"""The schemas of error replies in the OpenAPI description, one for each `message` of a status.

They are generated from the table in `api/errors.py`, so that a new error has a schema.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from kazoo_ips import errors
from kazoo_ips.api import examples, openapi_envelope
from kazoo_ips.api.errors import REPLIES, TOKENS

Kind = type[Exception] | int
"""An exception of the service, or the status of an exception of the framework."""

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_CONFLICTS = (errors.Conflict, errors.IPExists, errors.IPAssigned, errors.IPStatusUnknown)

_SHARED: dict[str, dict[str, Any]] = {
    "ErrorMessage": {
        "type": "object",
        "description": "The `data` of an error that has only a text",
        "required": ["message"],
        "properties": {"message": _TEXT},
    },
    "BrokenRule": {
        "type": "object",
        "description": "One broken rule. Its other members depend on the rule",
        "required": ["message"],
        "properties": {
            "message": _TEXT,
            "value": {"description": "The value that was sent"},
            "target": {"description": "What the rule permits"},
            "cause": {"description": "Why the value breaks the rule"},
        },
    },
    "BrokenRules": {
        "type": "object",
        "description": "The broken rules of one field, by name of the rule",
        "minProperties": 1,
        "additionalProperties": {"$ref": "#/components/schemas/BrokenRule"},
    },
    "ValidationErrors": {
        "type": "object",
        "description": "The broken rules of all fields, by path of the field",
        "minProperties": 1,
        "additionalProperties": {"$ref": "#/components/schemas/BrokenRules"},
    },
}
"""The schemas of `data` that several errors have, and those of a validation error."""

_EXAMPLES: list[Exception] = [
    errors.ValidationFailed(
        {"ips.1": {"not_found": {"message": "ip not found", "value": "192.0.2.99"}}}
    ),
    errors.BadIdentifier("192.0.2.99"),
    errors.Conflict(*examples.AVAILABLE),
    errors.InsufficientIPs(requested=20, available=4),
    errors.LimitReached("max", limit=10, used=9, requested=2, account_id=examples.ACCOUNT_ID),
    errors.ReservationLimitReached(limit=100, used=100),
    errors.ReservationExpired(examples.RESERVATION_ID),
    errors.WebhookLimitReached(limit=20, used=20),
    errors.JobExists(examples.JOB_ID),
    errors.NotReady(["the database dedicated_ips is missing"]),
]
"""Examples of the errors whose `data` has more than a fixed text."""

_PROPERTIES: dict[type[Exception], dict[str, Any]] = {
    errors.TokenRestricted: {"cause": _TEXT},
    errors.BadIdentifier: {"cause": {**_TEXT, "description": "The part of the path"}},
    errors.NotReady: {"reasons": {"type": "array", "items": _TEXT, "minItems": 1}},
    errors.InsufficientIPs: {"requested": _COUNT, "available": _COUNT},
    errors.LimitReached: {"limit": _COUNT, "used": _COUNT, "requested": _COUNT},
    errors.ReservationLimitReached: {"limit": _COUNT, "used": _COUNT, "requested": _COUNT},
    errors.JobExists: {"id": _TEXT},
    errors.WebhookLimitReached: {"limit": _COUNT, "used": _COUNT, "requested": _COUNT},
}
"""The members of `data` that an error always has next to `message`."""

_OPTIONAL: dict[type[Exception], dict[str, Any]] = {
    errors.LimitReached: {
        "which": {**_TEXT, "enum": ["max", "zones", "descendants_max"]},
        "account_id": {**_TEXT, "description": "The account that has the limit"},
        "zone": {**_TEXT, "description": "The zone, if the limit is that of a zone"},
    },
    errors.InsufficientIPs: {
        "aging": {**_COUNT, "description": "Addresses that still rest"},
        "next_at": {**_COUNT, "description": "When the first rest ends, in Gregorian seconds"},
    },
    errors.Conflict: {
        "ips": {
            "type": "object",
            "description": "The addresses, each with the reason",
            "additionalProperties": {
                **_TEXT, "examples": [kind.reason for kind in _CONFLICTS]
            },
        }
    },
}  # fmt: skip
"""The members of `data` that an error can have."""


def token_of(kind: Kind) -> tuple[int, str]:
    """Return the status and the `message` of an error."""
    return (kind, TOKENS[kind][0]) if isinstance(kind, int) else REPLIES[kind][:2]


def name_of(kind: Kind) -> str:
    """Return the name of the schema of an error: `ErrorBadIdentifier` for `bad_identifier`."""
    words = re.split("[ _]", token_of(kind)[1].removesuffix(" error"))
    return "".join(["Error", *map(str.capitalize, words)])


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the schema of each error.

    This includes those that no operation has, such as the error of an unknown path.
    """
    yield from _SHARED.items()
    kinds: dict[str, list[Kind]] = {}
    every: list[Kind] = [*TOKENS, *REPLIES]
    for kind in every:
        kinds.setdefault(name_of(kind), []).append(kind)
    for name, same in kinds.items():
        status, message = token_of(same[0])
        data, form = _data(name, same)
        yield data, form
        ref = {"$ref": f"#/components/schemas/{data}", "examples": [*map(_example, same)]}
        yield name, openapi_envelope.failure(ref, status, message)


def union_name(names: Sequence[str]) -> str:
    """Return the name of the schema of a reply that is one of several errors.

    If all names begin with the same words after `Error`, it is these words: `ErrorDatastore`.
    """
    words = [re.findall("[A-Z]+[a-z]+", name) for name in names]
    shared = "".join(w[0] for w in takewhile(lambda w: len({*w}) == 1, zip(*words, strict=False)))
    if len(names) == 1 or shared != "Error":
        return shared
    return "Or".join([names[0], *(name.removeprefix("Error") for name in names[1:])])


def union(names: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a reply that is one of several errors. `message` says which."""
    refs = {
        properties["message"]["const"]: f"#/components/schemas/{name}"
        for name, schema in schemas()
        if name in names and (properties := schema["properties"])
    }
    return {
        "oneOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "message", "mapping": refs},
    }


def _data(error: str, kinds: list[Kind]) -> tuple[str, dict[str, Any]]:
    """Return the name and the schema of the `data` of errors with the same `message` and status.

    :param error: the name of their schema
    """
    if errors.ValidationFailed in kinds:
        return "ValidationErrors", _SHARED["ValidationErrors"]
    exceptions = [kind for kind in kinds if not isinstance(kind, int)]
    of_each = [_PROPERTIES.get(kind, {}) for kind in exceptions] or [{}]
    more: dict[str, Any] = {}
    for each in [*of_each, *(_OPTIONAL.get(kind, {}) for kind in exceptions)]:
        more |= each
    if not more:
        return "ErrorMessage", _SHARED["ErrorMessage"]
    always = [name for name in of_each[0] if all(name in each for each in of_each)]
    return f"{error}Data", {
        "type": "object",
        "required": ["message", *always],
        "properties": {"message": _TEXT, **more},
    }


def _example(kind: Kind) -> dict[str, Any]:
    """Return an example of the `data` of an error, made as a reply is made."""
    if isinstance(kind, int):
        return {"message": TOKENS[kind][1]}
    error = next((each for each in _EXAMPLES if type(each) is kind), None)
    return dict(REPLIES[kind][2](error))
