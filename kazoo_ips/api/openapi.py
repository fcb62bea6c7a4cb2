"""The description of the API in OpenAPI 3.1, made from its routes, schemas and table of errors.

Nothing is told here that a route, a schema or `errors.py` tells: this module knows only how
OpenAPI writes it. Made once, when first asked for.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.routing import Rule

from kazoo_ips import errors
from kazoo_ips.api import envelope, schemas
from kazoo_ips.api.errors import HEADERS, REPLIES, TOKENS
from kazoo_ips.api.fields import Field
from kazoo_ips.api.route_descriptions import CSV, JSON, Operation, Shape, Who

_DESCRIPTION = """\
The dedicated IP addresses of Kazoo, as Crossbar's IPs API has them. Every reply is an envelope:
`data` and what belongs to it, or what was wrong, every broken rule at once.

A token comes from `PUT /v2/user_auth` or `PUT /v2/api_auth`. Beside the `data` of a body there may
be `auth_token`, the token, and in a POST `verb`, the method that is meant.
"""

_TAGS = {
    "account_ips": "What an account has and may have",
    "ips": "The operator's pool",
    "login": "Tokens",
    "about": "What runs here",
    "kazoo_schemas": "JSON schemas, as Kazoo has them",
    "health": "Health and metrics",
    "docs": "This description",
}

_SECURITY = {
    "XAuthToken": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "Basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The account's id, and the MD5 of `user:password` in hex digits",
    },
    "AuthToken": {"type": "apiKey", "in": "query", "name": "auth_token"},
}

_TEXT: dict[str, Any] = {"type": "string"}
_PRINTABLE = {"type": "string", "pattern": "^[!-~]{1,128}$"}
_ALWAYS = {
    "request_id": {
        **_PRINTABLE,
        "description": "The name of the request, as in `X-Request-ID`",
        "examples": ["07752b1c6d3f4e9a8b5c0d1e2f3a4b5c"],
    },
    "node": {
        **_TEXT,
        "description": "Which machine has replied",
        "pattern": r"^[\w-]{22}$",
        "examples": ["aGyCGoCRSu-CJGW0gBnNNA"],
    },
    "timestamp": {"type": "string", "format": "date-time"},
    "version": {**_TEXT, "description": "Of the service"},
}
_TOKEN = {"auth_token": {**_TEXT, "description": "The token, where one was given or made"}}
_DRY_RUN = {"dry_run": {"const": True, "description": "Nothing was done: it was asked for that"}}
_PAGING = {
    "page_size": {"type": "integer", "minimum": 0, "description": "Lines on this page"},
    "start_key": {**_TEXT, "description": "Where it starts, as it was asked for"},
    "next_start_key": {**_TEXT, "description": "Where the next page starts; the last has none"},
}
_ENVELOPES = {
    "Success": {
        "type": "object",
        "required": ["data", "status", "revision", *_ALWAYS],
        "properties": {
            "data": {},
            "status": {"const": "success"},
            "revision": {**_TEXT, "description": "Of `data`, as in `ETag`", "minLength": 1},
            **_ALWAYS,
            **_TOKEN,
            **_DRY_RUN,
        },
    },
    "Failure": {
        "type": "object",
        "required": ["data", "status", "error", "message", *_ALWAYS],
        "properties": {
            "data": {"type": "object"},
            "status": {"const": "error"},
            "error": {**_TEXT, "description": "The status, as a string"},
            "message": {**_TEXT, "description": "What went wrong, in a word"},
            **_ALWAYS,
            **_TOKEN,
            **_DRY_RUN,
        },
    },
}

_CONFLICTS = (errors.Conflict, errors.IPExists, errors.IPAssigned, errors.IPStatusUnknown)
_REASONS = [kind.reason for kind in _CONFLICTS]
_COUNT = {"type": "integer", "minimum": 0}
_DATA: dict[type[Exception], dict[str, Any]] = {
    errors.ValidationFailed: {
        "description": "Every broken rule, by the field and the rule",
        "minProperties": 1,
        "additionalProperties": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["message"],
                "properties": {"message": _TEXT},
            },
        },
        "examples": [{"ips.1": {"not_found": {"message": "ip not found", "value": "5.6.7.8"}}}],
    },
    errors.BadIdentifier: {
        "required": ["cause", "message"],
        "properties": {"cause": _TEXT, "message": {"const": "bad identifier"}},
        "additionalProperties": False,
    },
    errors.Conflict: {
        "required": ["message"],
        "properties": {
            "message": {"const": "conflicting documents"},
            "ips": {"type": "object", "additionalProperties": {"enum": [*_REASONS]}},
        },
        "additionalProperties": False,
    },
    errors.NotReady: {
        "required": ["message", "reasons"],
        "properties": {
            "message": {"const": "not ready"},
            "reasons": {"type": "array", "items": _TEXT, "minItems": 1},
        },
        "additionalProperties": False,
    },
    errors.InsufficientIPs: {
        "required": ["requested", "available", "message"],
        "properties": {"requested": _COUNT, "available": _COUNT, "message": _TEXT},
        "additionalProperties": False,
    },
}
"""The `data` of those failures that say more than a text."""

_EVERYWHERE: tuple[type[Exception] | int, ...] = (
    400, errors.ValidationFailed, 406, 408, 413, 415, Exception,
)  # fmt: skip
_WITH_TOKEN = (
    errors.InvalidCredentials, errors.Forbidden, errors.TooManyAttempts,
    errors.DatastoreUnreachable, errors.DatastoreForbidden,
    errors.DatastoreLoginRefused, errors.DatastoreMissing, errors.DatastoreMissingView,
)  # fmt: skip

_PARAMETERS = {
    "account_id": {"schema": {**_TEXT, "minLength": 1}, "description": "Id of an account"},
    "address": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "IPv4 or IPv6 address, in any spelling",
        "example": "1.2.3.4",
    },
    "name": {"schema": {**_TEXT, "minLength": 1}, "description": "Name"},
}


def describe(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    return _Description(app).document()


def json_schema(schema: type[Schema]) -> dict[str, Any]:
    """A schema of requests in JSON Schema, nothing else around it."""
    made: dict[str, Any] = _spec()[1].schema2jsonschema(schema)
    return made


def operation(app: Flask, rule: Rule) -> Operation:
    """What a route has told of itself."""
    handler: Any = app.view_functions[rule.endpoint]
    told: Operation = handler.operation
    return told


def _name(schema: Any) -> str:
    """A schema's name; one that leaves fields out has a name of its own."""
    name = type(schema).__name__.removeprefix("_").removesuffix("Schema")
    return "".join([name, *(f"-without-{each}" for each in sorted(schema.exclude))])


def _spec(**told: Any) -> tuple[APISpec, Any]:
    """An empty document and what turns schemas into parts of it."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec("kazoo_ips", envelope.VERSION, "3.1.0", plugins=[plugin], **told)
    converter: Any = plugin.converter

    def own(self: Any, field: Any, **_: Any) -> dict[str, Any]:
        if isinstance(field, fields.Constant):
            return {"const": field.constant}
        return field.json_schema() if isinstance(field, Field) else {}

    converter.add_attribute_function(own)
    return spec, converter


class _Description:
    """One document in the making."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._spec, self._marshmallow = _spec(
            info={
                "description": _DESCRIPTION,
                "license": {"name": "MPL-2.0", "identifier": "MPL-2.0"},
            },
            servers=[{"url": "/"}],
            tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
            security=[{name: []} for name in _SECURITY],
        )

    def document(self) -> dict[str, Any]:
        """All routes."""
        components = self._spec.components
        for name, scheme in _SECURITY.items():
            components.security_scheme(name, scheme)
        for name, schema in _ENVELOPES.items():
            components.schema(name, schema)
        kinds: list[type[Exception] | int] = [*TOKENS, *REPLIES]
        for kind in kinds:  # also those that no route has: a path that is none
            self._failure(kind)
        for rule in sorted(self._app.url_map.iter_rules(), key=lambda rule: rule.rule):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            told = operation(self._app, rule)
            self._spec.path(path=path, operations={told.method.lower(): self._made(rule, told)})
        document: dict[str, Any] = self._spec.to_dict()
        return document

    def _made(self, rule: Rule, told: Operation) -> dict[str, Any]:
        summary, _, more = told.summary.partition("\n")
        made = {
            "tags": [rule.endpoint.partition(".")[0]],
            "operationId": rule.endpoint,
            "summary": summary.strip().removesuffix("."),
            "description": f"For {told.who.value}. {' '.join(more.split())}".strip(),
            "parameters": [*self._parameters(rule, told)],
            "responses": {**self._success(told), **self._failures(rule, told)},
        }
        if told.who is Who.ANYONE:
            made["security"] = []
        if told.body or told.method in ("POST", "DELETE"):
            made["requestBody"] = self._body(told)
        return made

    def _parameters(self, rule: Rule, told: Operation) -> Iterator[dict[str, Any]]:
        for name in sorted(rule.arguments):
            yield {"name": name, "in": "path", "required": True, **_PARAMETERS[name]}
        if told.query:
            yield from self._marshmallow.schema2parameters(told.query, location="query")
        if told.dry_run:
            yield {**self._dry_run_parameter, "required": False}
        headers = {"X-Request-ID": "A name for the request, to find it by"}
        if told.method == "GET":
            headers["If-None-Match"] = "The `ETag` of a reply at hand: 304 when nothing changed"
        if told.if_match:
            headers["If-Match"] = "The `ETag` of what is to be changed: 412 when it has changed"
        if told.is_write:
            headers["Idempotency-Key"] = "Repeated, it gives the first reply again, for a day"
        for name, text in headers.items():
            schema = _PRINTABLE if name == "Idempotency-Key" else _TEXT
            yield {"name": name, "in": "header", "description": text, "schema": schema}

    @cached_property
    def _dry_run_parameter(self) -> dict[str, Any]:
        made: list[dict[str, Any]] = self._marshmallow.schema2parameters(
            schemas.DryRunSchema, location="query"
        )
        return made[0]

    def _body(self, told: Operation) -> dict[str, Any]:
        required = bool(told.body) and not told.optional_body
        envelope_ = {
            "type": "object",
            "properties": {
                "data": self._data(told.body),
                **({"dry_run": self._dry_run_parameter["schema"]} if told.dry_run else {}),
            },
            **({"required": ["data"]} if required or told.optional_body else {}),
        }
        return {"required": required, "content": {JSON: {"schema": envelope_}}}

    def _data(self, accepted: tuple[type[Schema], ...]) -> dict[str, Any]:
        """The form of `data`: where there are several, the required fields tell which."""
        if not accepted:
            return {"description": "Ignored"}
        refs = {each: self._ref(each()) for each in accepted}
        if len(refs) == 1:
            return refs[accepted[0]]
        return {
            "anyOf": [
                {"allOf": [ref], "not": {"anyOf": [*_required(set(refs) - {each})]}}
                for each, ref in refs.items()
            ]
        }

    def _ref(self, shape: Shape) -> dict[str, Any]:
        converter = self._marshmallow
        if isinstance(shape, tuple):
            return {"anyOf": [self._ref(each) for each in shape]}
        if isinstance(shape, Schema):
            ref: dict[str, Any] = converter.resolve_nested_schema(shape)
        else:
            ref = converter.field2property(shape)
        return ref

    def _success(self, told: Operation) -> dict[str, Any]:
        status, headers = str(told.status), _headers("X-Request-ID")
        if told.replies is None:
            schema = {"type": "object"} if told.media == JSON else _TEXT
            content: dict[str, Any] = {told.media: {"schema": schema}}
            unchanged = {"description": "Nothing has changed", "headers": headers}
            done = {"description": "Done", "headers": headers, "content": content}
            return {status: done, "304": unchanged}
        paging = _PAGING if told.query is schemas.ListSchema else {}
        content = {
            JSON: {
                "schema": {
                    "allOf": [{"$ref": "#/components/schemas/Success"}],
                    "properties": {"data": self._ref(told.replies), **paging},
                    "unevaluatedProperties": False,
                }
            }
        }
        if told.csv:
            content[CSV] = {"schema": {**_TEXT, "description": "A header row, then the lines"}}
        tags = _headers("ETag", required=False)
        replayed = _headers("Idempotency-Replayed", required=False) if told.is_write else {}
        made = {
            status: {
                "description": "Done",
                "headers": {**headers, **tags, **replayed},
                "content": content,
            }
        }
        if told.dry_run and told.status != 200:
            made["200"] = {**made[status], "description": "What a dry run would have done"}
        if told.method == "GET":
            made["304"] = {"description": "Nothing has changed", "headers": {**headers, **tags}}
        return made

    def _failures(self, rule: Rule, told: Operation) -> dict[str, Any]:
        by_status: dict[str, list[str]] = {}
        for kind in dict.fromkeys(_possible(rule, told)):
            status, name = self._failure(kind)
            by_status.setdefault(status, []).append(name)
        return {each: self._response(each, by_status[each]) for each in sorted(by_status)}

    def _failure(self, kind: type[Exception] | int) -> tuple[str, str]:
        """The status and the name of the form of one failure."""
        if isinstance(kind, int):
            message, text = TOKENS[kind]
            status, name = str(kind), message.title().replace("_", "")
            data = _just(text)
        else:
            code, message, said = REPLIES[kind]
            status, name = str(code), "Fault" if kind is Exception else kind.__name__
            data = _DATA.get(kind) or _just(_text_of(said))
        if name not in self._spec.components.schemas:
            schema = {
                "allOf": [{"$ref": "#/components/schemas/Failure"}],
                "properties": {
                    "data": {"type": "object", **data},
                    "error": {"const": status},
                    "message": {"const": message},
                },
                "unevaluatedProperties": False,
            }
            self._spec.components.schema(name, schema)
        return status, name

    def _response(self, status: str, names: list[str]) -> str:
        """The name of the reply of a status that can have several reasons."""
        name = "-or-".join(names)
        if name not in self._spec.components.responses:
            refs = [{"$ref": f"#/components/schemas/{each}"} for each in names]
            words = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", each).capitalize() for each in names]
            more = [*HEADERS.get(int(status), {}), *(["Allow"] if status == "405" else [])]
            response = {
                "description": ", or ".join(words),
                "headers": _headers("X-Request-ID", *more),
                "content": {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}},
            }
            self._spec.components.response(name, response)
        return name


def _possible(rule: Rule, told: Operation) -> Iterator[type[Exception] | int]:
    """All that can go wrong in a route."""
    yield from _EVERYWHERE
    if told.method == "POST":
        yield 405  # the verb of the body may be none that the path has
    if told.who is not Who.ANYONE:
        yield from _WITH_TOKEN
    if told.who is Who.ACCOUNT or rule.arguments - {"account_id"}:
        yield errors.BadIdentifier
    if told.is_write:
        yield from (errors.IdempotencyMismatch, errors.InProgress)
    if told.if_match:
        yield errors.PreconditionFailed
    yield from told.raises


def _headers(*names: str, required: bool = True) -> dict[str, Any]:
    return {name: {"schema": _TEXT, "required": required} for name in names}


def _just(text: str) -> dict[str, Any]:
    return {
        "required": ["message"],
        "properties": {"message": {"const": text}},
        "additionalProperties": False,
    }


def _text_of(said: Callable[[Any], Any]) -> str:
    return str(said(None)["message"])


def _required(others: Iterable[type[Schema]]) -> Iterator[dict[str, Any]]:
    for other in sorted(others, key=lambda each: each.__name__):
        for name, field in other().fields.items():
            if field.required:
                yield {"required": [name]}
