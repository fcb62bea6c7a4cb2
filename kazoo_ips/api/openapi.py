"""The OpenAPI 3.1 description, generated from the routes, the schemas and the table of errors.

What a route, a schema or `errors.py` states is not repeated in this module.
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
from kazoo_ips.api.route_descriptions import CSV, HTML, JSON, Operation, Shape, Who

_DESCRIPTION = """\
The dedicated IP addresses of Kazoo, with the routes of Crossbar's IPs API. Every reply is an
envelope: a JSON object with `data`. A validation error lists all broken rules.

`PUT /v2/user_auth` and `PUT /v2/api_auth` return a token. The envelope of a request has `data`. It
can also have `auth_token` (the token) and, in a POST, `verb` (the method to use instead of POST).
"""

_TAGS = {
    "account_ips": "The addresses of an account, and those that it can get",
    "ips": "The pool, for the operator",
    "login": "Tokens",
    "about": "Versions",
    "kazoo_schemas": "JSON schemas, as Kazoo serves them",
    "health": "Health and metrics",
    "home": "Links to the documentation",
    "docs": "This description",
}

_SECURITY = {
    "XAuthToken": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "Basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The account's id, and the MD5 hash of `user:password` in hex digits",
    },
    "AuthToken": {"type": "apiKey", "in": "query", "name": "auth_token"},
}

_TEXT: dict[str, Any] = {"type": "string"}
_PRINTABLE = {"type": "string", "pattern": "^[!-~]{1,128}$"}
_ALWAYS = {
    "request_id": {
        **_PRINTABLE,
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
_TOKEN = {"auth_token": {**_TEXT, "description": "The token of the request, or the new one"}}
_DRY_RUN = {"dry_run": {"const": True, "description": "This was a dry run: nothing was written"}}
_PAGING = {
    "page_size": {"type": "integer", "minimum": 0, "description": "Number of lines on this page"},
    "start_key": {**_TEXT, "description": "The `start_key` of the request"},
    "next_start_key": {
        **_TEXT,
        "description": "The `start_key` of the next page; missing on the last page",
    },
}
_ENVELOPES = {
    "Success": {
        "type": "object",
        "required": ["data", "status", "revision", *_ALWAYS],
        "properties": {
            "data": {},
            "status": {"const": "success"},
            "revision": {
                **_TEXT,
                "description": "Revision of `data`, as in `ETag`",
                "minLength": 1,
            },
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
            "error": {**_TEXT, "description": "The HTTP status, as a string"},
            "message": {**_TEXT, "description": "The kind of error"},
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
        "description": "Every broken rule, by field and by name of the rule",
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
    errors.TokenRestricted: {
        "required": ["cause", "message"],
        "properties": {"cause": _TEXT, "message": {"const": "forbidden"}},
        "additionalProperties": False,
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
"""The `data` of the errors whose `data` is more than a message."""

_EVERYWHERE: tuple[type[Exception] | int, ...] = (
    400, errors.ValidationFailed, 406, 408, 413, 415, Exception,
)  # fmt: skip
_WITH_TOKEN = (
    errors.InvalidCredentials, errors.Forbidden, errors.TooManyRequests,
    errors.DatastoreUnreachable, errors.DatastoreForbidden,
    errors.DatastoreLoginRefused, errors.DatastoreMissing, errors.DatastoreMissingView,
)  # fmt: skip

_LIMITS = ("RateLimit-Policy", "RateLimit")
"""Headers of a reply while a rate limit is near."""

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
    """Return the OpenAPI document of an application's routes."""
    return _Description(app).document()


def json_schema(schema: type[Schema]) -> dict[str, Any]:
    """Return a schema of request data in JSON Schema."""
    converted: dict[str, Any] = _spec()[1].schema2jsonschema(schema)
    return converted


def operation_of(app: Flask, rule: Rule) -> Operation:
    """Return the description that a route was registered with."""
    handler: Any = app.view_functions[rule.endpoint]
    operation: Operation = handler.operation
    return operation


def _name(schema: Any) -> str:
    """Return the name of a schema. A schema that excludes fields gets another name."""
    name = type(schema).__name__.removeprefix("_").removesuffix("Schema")
    return "".join([name, *(f"-without-{each}" for each in sorted(schema.exclude))])


def _spec(**options: Any) -> tuple[APISpec, Any]:
    """Return an empty document, and the converter from marshmallow schemas to JSON Schema."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec("kazoo_ips", envelope.VERSION, "3.1.0", plugins=[plugin], **options)
    converter: Any = plugin.converter

    def convert_own_fields(self: Any, field: Any, **_: Any) -> dict[str, Any]:
        if isinstance(field, fields.Constant):
            return {"const": field.constant}
        return field.json_schema() if isinstance(field, Field) else {}

    converter.add_attribute_function(convert_own_fields)
    return spec, converter


class _Description:
    """Builds one document."""

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
        """Return the description of all routes."""
        components = self._spec.components
        for name, scheme in _SECURITY.items():
            components.security_scheme(name, scheme)
        for name, schema in _ENVELOPES.items():
            components.schema(name, schema)
        kinds: list[type[Exception] | int] = [*TOKENS, *REPLIES]
        for kind in kinds:  # includes errors that no route has, such as that of an unknown path
            self._failure(kind)
        for rule in sorted(self._app.url_map.iter_rules(), key=lambda rule: rule.rule):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            operation = operation_of(self._app, rule)
            description = self._operation(rule, operation)
            self._spec.path(path=path, operations={operation.method.lower(): description})
        document: dict[str, Any] = self._spec.to_dict()
        return document

    def _operation(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        summary, _, more = operation.summary.partition("\n")
        description: dict[str, Any] = {
            "tags": [rule.endpoint.partition(".")[0]],
            "operationId": rule.endpoint,
            "summary": summary.strip().removesuffix("."),
            "description": f"For {operation.who.value}. {' '.join(more.split())}".strip(),
            "parameters": [*self._parameters(rule, operation)],
            "responses": {**self._success(operation), **self._failures(rule, operation)},
        }
        if operation.who is Who.ANYONE:
            description["security"] = []
        if operation.body or operation.method in ("POST", "DELETE"):
            description["requestBody"] = self._body(operation)
        return description

    def _parameters(self, rule: Rule, operation: Operation) -> Iterator[dict[str, Any]]:
        for name in sorted(rule.arguments):
            yield {"name": name, "in": "path", "required": True, **_PARAMETERS[name]}
        if operation.query:
            yield from self._marshmallow.schema2parameters(operation.query, location="query")
        if operation.dry_run:
            yield {**self._dry_run_parameter, "required": False}
        headers = {"X-Request-ID": "An id for the request, to find it in logs"}
        if operation.method == "GET":
            headers["If-None-Match"] = "The `ETag` of an earlier reply: 304 if nothing has changed"
        if operation.if_match:
            headers["If-Match"] = "The `ETag` of the address: 412 if the address has changed"
        if operation.is_write:
            headers["Idempotency-Key"] = (
                "A request with the same key gets the same reply, for a day, and is done once"
            )
        for name, text in headers.items():
            schema = _PRINTABLE if name == "Idempotency-Key" else _TEXT
            yield {"name": name, "in": "header", "description": text, "schema": schema}

    @cached_property
    def _dry_run_parameter(self) -> dict[str, Any]:
        parameters: list[dict[str, Any]] = self._marshmallow.schema2parameters(
            schemas.DryRunSchema, location="query"
        )
        return parameters[0]

    def _body(self, operation: Operation) -> dict[str, Any]:
        required = bool(operation.body) and not operation.optional_body
        envelope_ = {
            "type": "object",
            "properties": {
                "data": self._data(operation.body),
                **({"dry_run": self._dry_run_parameter["schema"]} if operation.dry_run else {}),
            },
            **({"required": ["data"]} if required or operation.optional_body else {}),
        }
        return {"required": required, "content": {JSON: {"schema": envelope_}}}

    def _data(self, accepted: tuple[type[Schema], ...]) -> dict[str, Any]:
        """Return the form of `data`. Of several forms, the required fields decide which it is."""
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

    def _success(self, operation: Operation) -> dict[str, Any]:
        status, headers = str(operation.status), _headers("X-Request-ID")
        if operation.replies is None:
            schema = {"type": "object"} if operation.media == JSON else _TEXT
            content: dict[str, Any] = {operation.media: {"schema": schema}}
            unchanged = {"description": "Nothing has changed", "headers": headers}
            success = {"description": "Success", "headers": headers, "content": content}
            return {status: success, "304": unchanged}
        paging = _PAGING if operation.query is schemas.ListSchema else {}
        content = {
            JSON: {
                "schema": {
                    "allOf": [{"$ref": "#/components/schemas/Success"}],
                    "properties": {"data": self._ref(operation.replies), **paging},
                    "unevaluatedProperties": False,
                }
            }
        }
        if operation.csv:
            content[CSV] = {"schema": {**_TEXT, "description": "A header line, then the lines"}}
        if operation.page:
            content[HTML] = {"schema": {**_TEXT, "description": "A page with the same links"}}
        limited = operation.who is not Who.ANYONE
        tags = _headers("ETag", *(_LIMITS if limited else ()), required=False)
        replayed = _headers("Idempotency-Replayed", required=False) if operation.is_write else {}
        responses = {
            status: {
                "description": "Success",
                "headers": {**headers, **tags, **replayed},
                "content": content,
            }
        }
        if operation.dry_run and operation.status != 200:
            responses["200"] = {**responses[status], "description": "Success of a dry run"}
        if operation.method == "GET":
            responses["304"] = {
                "description": "Nothing has changed",
                "headers": {**headers, **tags},
            }
        return responses

    def _failures(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        by_status: dict[str, list[str]] = {}
        for kind in dict.fromkeys(_possible(rule, operation)):
            status, name = self._failure(kind)
            by_status.setdefault(status, []).append(name)
        return {each: self._response(each, by_status[each]) for each in sorted(by_status)}

    def _failure(self, kind: type[Exception] | int) -> tuple[str, str]:
        """Return the status of an error and the name of its form, which is added if it is new."""
        if isinstance(kind, int):
            message, text = TOKENS[kind]
            status, name = str(kind), message.title().replace("_", "")
            data = _only_message(text)
        else:
            code, message, make_data = REPLIES[kind]
            status, name = str(code), "Fault" if kind is Exception else kind.__name__
            data = _DATA.get(kind) or _only_message(_message(make_data))
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
        """Return the name of the reply with a status that several errors can have."""
        name = "-or-".join(names)
        if name not in self._spec.components.responses:
            refs = [{"$ref": f"#/components/schemas/{each}"} for each in names]
            words = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", each).capitalize() for each in names]
            more = [*HEADERS.get(int(status), {}), *(["Allow"] if status == "405" else [])]
            limits = _headers(*_LIMITS, required=False) if status == "429" else {}
            response = {
                "description": ", or ".join(words),
                "headers": {**_headers("X-Request-ID", *more), **limits},
                "content": {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}},
            }
            self._spec.components.response(name, response)
        return name


def _possible(rule: Rule, operation: Operation) -> Iterator[type[Exception] | int]:
    """Yield all errors that a route can reply with."""
    yield from _EVERYWHERE
    if operation.method == "POST":
        yield 405  # the path may not have the method that the member `verb` names
    if operation.who is not Who.ANYONE:
        yield from _WITH_TOKEN
    if operation.who is Who.ACCOUNT:
        yield errors.TokenRestricted
    if operation.who is Who.ACCOUNT or rule.arguments - {"account_id"}:
        yield errors.BadIdentifier
    if operation.is_write:
        yield from (errors.IdempotencyMismatch, errors.InProgress, errors.TooManyKeys)
    if operation.if_match:
        yield errors.PreconditionFailed
    yield from operation.raises


def _headers(*names: str, required: bool = True) -> dict[str, Any]:
    return {name: {"schema": _TEXT, "required": required} for name in names}


def _only_message(text: str) -> dict[str, Any]:
    return {
        "required": ["message"],
        "properties": {"message": {"const": text}},
        "additionalProperties": False,
    }


def _message(make_data: Callable[[Any], Any]) -> str:
    return str(make_data(None)["message"])


def _required(others: Iterable[type[Schema]]) -> Iterator[dict[str, Any]]:
    for other in sorted(others, key=lambda each: each.__name__):
        for name, field in other().fields.items():
            if field.required:
                yield {"required": [name]}
