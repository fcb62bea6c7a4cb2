"""The OpenAPI 3.1 description, generated from the routes, the schemas and the table of errors.

This module repeats nothing that a route, a schema or `errors.py` states.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.routing import Rule

from kazoo_ips import errors
from kazoo_ips.api import (
    envelope,
    examples,
    openapi_envelope,
    openapi_errors,
    openapi_links,
    queries,
    schemas,
    webhook_schemas,
)
from kazoo_ips.api.errors import HEADERS
from kazoo_ips.api.fields import Field
from kazoo_ips.api.route_descriptions import CSV, HTML, JSON, Operation, Shape, Who

_DESCRIPTION = """\
The dedicated IP addresses of Kazoo, with the routes of Crossbar's IPs API. Every reply is an
envelope: a JSON object with `data`. A validation error lists all broken rules.

`PUT /v2/user_auth` and `PUT /v2/api_auth` return a token. The envelope of a request has `data`. It
can also have `auth_token` (the token) and, in a POST, `verb` (the method to use instead of POST).
"""

_TAGS = {
    "login": "Tokens",
    "account_ips": "The addresses of an account, and those that it can get",
    "reservations": "Addresses that are set aside for an account",
    "limits": "How many addresses an account may have",
    "ips": "The pool, for the operator",
    "places": "Zones and hosts: draining, resting addresses, low zones",
    "jobs": "Jobs on all addresses of a host",
    "exports": "The whole pool as a file, and its import",
    "accounts": "The accounts that have addresses",
    "summaries": "How many addresses of each status there are",
    "usage": "How full zones and hosts were, and when a zone runs out",
    "history": "The history of addresses",
    "changes": "The feed of events",
    "webhooks": "Webhooks, which send events to receivers",
    "status": "The service, its processes and its databases, for the operator",
    "health": "Health and metrics",
    "about": "Versions",
    "kazoo_schemas": "JSON schemas, as Kazoo serves them",
    "home": "Links to the documentation",
    "docs": "This description",
}
"""The groups of routes, by blueprint, in the order in which pages show them."""

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
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer"}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_EVERYWHERE: tuple[type[Exception] | int, ...] = (
    400, errors.ValidationFailed, 406, 408, 413, 414, 415, Exception,
)  # fmt: skip
_WITH_TOKEN = (
    errors.InvalidCredentials, errors.Forbidden, errors.TooManyRequests,
    errors.DatastoreUnreachable, errors.DatastoreForbidden,
    errors.DatastoreLoginRefused, errors.DatastoreMissing, errors.DatastoreMissingView,
)  # fmt: skip

_LIMITS = ("RateLimit-Policy", "RateLimit")
"""Headers of a reply while a rate limit is near."""

_PARAMETERS = {
    "account_id": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "Id of an account",
        "example": examples.ACCOUNT_ID,
    },
    "address": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "IPv4 or IPv6 address, in any spelling",
    },
    "host": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "Name of a host",
        "example": examples.HOST,
    },
    "job_id": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "Id of a job",
        "example": examples.JOB_ID,
    },
    "name": {"schema": {**_TEXT, "minLength": 1}, "description": "Name"},
    "reservation_id": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "Id of a reservation",
        "example": examples.RESERVATION_ID,
    },
    "year": {
        "schema": {**_TEXT, "pattern": "^[0-9]{1,4}$"},
        "description": "A year",
        "example": examples.YEAR,
    },
    "zone": {"schema": {**_TEXT, "minLength": 1}, "description": "Name of a zone"},
    "webhook_id": {
        "schema": {**_TEXT, "minLength": 1},
        "description": "Id of a webhook",
        "example": examples.WEBHOOK_ID,
    },
}

_OF_ACCOUNTS = (Who.ACCOUNT, Who.ABOVE, Who.BETWEEN)
"""Who may call the routes with accounts in the path or in the body."""


def describe(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an application's routes."""
    return _Description(app).document()


def json_schema(schema: type[Schema]) -> dict[str, Any]:
    """Return a schema of request data in JSON Schema."""
    converted: dict[str, Any] = _spec()[1].schema2jsonschema(schema)
    return converted


def rules_of(app: Flask) -> list[Rule]:
    """Return the routes of the API, by path, without the pages of the console."""
    handlers = app.view_functions
    rules = [r for r in app.url_map.iter_rules() if hasattr(handlers[r.endpoint], "operation")]
    return sorted(rules, key=lambda rule: rule.rule)


def operation_of(app: Flask, rule: Rule) -> Operation:
    """Return the description that a route was registered with."""
    handler: Any = app.view_functions[rule.endpoint]
    operation: Operation = handler.operation
    return operation


def operation_id(rule: Rule, operation: Operation) -> str:
    """Return the name of an operation, from which generators make the name of a method."""
    return operation.operation_id or rule.endpoint.rpartition(".")[2]


def _name(schema: Any) -> str:
    return type(schema).__name__.removesuffix("Schema")


def _spec(**options: Any) -> tuple[APISpec, Any]:
    """Return an empty document, and the converter from marshmallow schemas to JSON Schema."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec("kazoo_ips", envelope.VERSION, "3.1.0", plugins=[plugin], **options)
    converter: Any = plugin.converter

    def convert_own_fields(self: Any, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
        if isinstance(field, fields.Constant):
            # With a default, or without a type, openapi-generator's Java does not compile.
            ret.pop("default", None)
            return {"type": _JSON_TYPES[type(field.constant)], "const": field.constant}
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
        for name, schema in openapi_errors.schemas():
            self._add(name, schema)
        self._add("EventKind", webhook_schemas.EVENT_KIND)
        for rule, operation in self._operations.values():
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            description = self._operation(rule, operation)
            self._spec.path(path=path, operations={operation.method.lower(): description})
        document: dict[str, Any] = self._spec.to_dict()
        return document

    @cached_property
    def _operations(self) -> dict[str, tuple[Rule, Operation]]:
        described = [(rule, operation_of(self._app, rule)) for rule in rules_of(self._app)]
        return {operation_id(*each): each for each in described}

    def _operation(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        summary, _, more = operation.summary.partition("\n")
        description: dict[str, Any] = {
            "tags": [rule.endpoint.partition(".")[0]],
            "operationId": operation_id(rule, operation),
            "summary": summary.strip().removesuffix("."),
            "description": f"For {operation.who.value}. {' '.join(more.split())}".strip(),
            "parameters": [*self._parameters(rule, operation)],
            "responses": {**self._success(rule, operation), **self._failures(rule, operation)},
        }
        if operation.who is Who.ANYONE:
            description["security"] = []
        if operation.body:
            description["requestBody"] = self._body(operation)
        return description

    def _parameters(self, rule: Rule, operation: Operation) -> Iterator[dict[str, Any]]:
        for name in sorted(rule.arguments):
            given = operation.examples
            example = {"example": given[name]} if name in given else {}
            yield {"name": name, "in": "path", "required": True, **_PARAMETERS[name], **example}
        for query in operation.parameters:
            yield from self._marshmallow.schema2parameters(query, location="query")
        headers = {"X-Request-ID": "An id for the request, to find it in logs"}
        if operation.method == "GET":
            headers["If-None-Match"] = "The `ETag` of an earlier reply: 304 if nothing has changed"
        if operation.if_match:
            headers["If-Match"] = "The `ETag` of the address: 412 if the address has changed"
        if operation.is_write:
            headers["Idempotency-Key"] = (
                "Requests with the same key are executed once, and get the same reply for a day"
            )
        for name, text in headers.items():
            schema = openapi_envelope.PRINTABLE if name == "Idempotency-Key" else _TEXT
            yield {"name": name, "in": "header", "description": text, "schema": schema}

    @cached_property
    def _dry_run_parameter(self) -> dict[str, Any]:
        parameters: list[dict[str, Any]] = self._marshmallow.schema2parameters(
            schemas.DryRunSchema, location="query"
        )
        return parameters[0]

    def _body(self, operation: Operation) -> dict[str, Any]:
        name = operation.body_name or _joined(operation.body)
        properties = {"data": self._data(tuple(each() for each in operation.body), name)}
        if operation.dry_run:
            properties["dry_run"] = self._dry_run_parameter["schema"]
        samples = [{"data": self._sample(each)} for each in operation.body]
        schema = {
            "type": "object",
            "required": ["data"],
            "properties": properties,
            "examples": samples,
        }
        ref = self._add(f"{name}Request", schema)
        return {
            "required": not operation.optional_body,
            "content": {JSON: {"schema": ref}},
        }

    def _sample(self, schema: type[Schema]) -> dict[str, Any]:
        """Return an example of request data, of the fields that have an example."""
        described = self._marshmallow.schema2jsonschema(schema)["properties"]
        return {k: v["examples"][0] for k, v in described.items() if "examples" in v}

    def _data(self, shape: Shape, name: str = "") -> dict[str, Any]:
        """Return a reference to the schema of data, which is added if it is new.

        :param name: the name of one of several schemas; empty for their joined names
        """
        converter = self._marshmallow
        if isinstance(shape, tuple):
            refs = [self._data(each) for each in shape]
            if len(refs) == 1:
                return refs[0]
            return self._add(name or _shape_name(shape), {"oneOf": refs})
        if isinstance(shape, Schema):
            found: dict[str, Any] = converter.resolve_nested_schema(shape)
        else:
            found = converter.field2property(shape)
            found.pop("title", None)  # it is the schema's name
            if found.get("type") == "object":
                # openapi-generator warns of the equivalent `{}`.
                return self._add(_shape_name(shape), found | _ANY_OBJECT)
        return found

    def _add(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        if name not in self._spec.components.schemas:
            self._spec.components.schema(name, schema)
        return {"$ref": f"#/components/schemas/{name}"}

    def _success(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        status, headers = str(operation.status), _headers("X-Request-ID")
        if operation.replies is None:
            schema = _TEXT
            if operation.media == JSON:
                schema = self._add("OpenAPIDescription", _ANY_OBJECT)
            content: dict[str, Any] = {
                media: {"schema": schema if media.startswith(("text/", JSON)) else {}}
                for media in operation.media_types or [operation.media]
            }
            unchanged = {"description": "Nothing has changed", "headers": headers}
            success = {"description": "Success", "headers": headers, "content": content}
            return {status: success, "304": unchanged}
        content = self._content(operation, operation.replies)
        limited = operation.who is not Who.ANYONE
        tags = _headers("ETag", *(_LIMITS if limited else ()), required=False)
        replayed = _headers("Idempotency-Replayed", required=False) if operation.is_write else {}
        success = {
            "description": "Success",
            "headers": {**headers, **tags, **replayed},
            "content": content,
        }
        responses = {status: success}
        if operation.dry_run and operation.status != 200:
            responses["200"] = {**success, "description": "Success of a dry run"}
        if operation.method == "GET":
            responses["304"] = {
                "description": "Nothing has changed",
                "headers": {**headers, **tags},
            }
        links = openapi_links.links(operation_id(rule, operation), self._operations)
        if links:
            success["links"] = links
        return responses

    def _content(self, operation: Operation, shape: Shape) -> dict[str, Any]:
        """Return the media types of a successful reply."""
        content = {JSON: {"schema": self._reply(operation, shape)}}
        if operation.csv:
            content[CSV] = {"schema": {**_TEXT, "description": "A header line, then the lines"}}
        if operation.page:
            content[HTML] = {"schema": {**_TEXT, "description": "A page with the same links"}}
        return content | {media: {"schema": {}} for media in operation.more_media}

    def _reply(self, operation: Operation, shape: Shape) -> dict[str, Any]:
        """Return a reference to the schema of a reply in the envelope."""
        if isinstance(shape, tuple) and any(_is_list(each) for each in shape):
            # openapi-generator warns of an array that is one of several schemas of `data`.
            replies = [self._reply(operation, each) for each in shape]
            return self._add(f"{_shape_name(shape)}Reply", {"oneOf": replies})
        paged = bool(operation.query and issubclass(operation.query, queries.PagedSchema))
        schema = openapi_envelope.success(
            self._data(shape), paged=paged, more=operation.more_members
        )
        name = _shape_name(shape)
        is_list = schema["properties"]["data"].get("type") == "array"
        if operation.more_members:  # the same list without them is another schema
            name += "Part"
        return self._add(name if is_list else f"{name}Reply", schema)

    def _failures(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        by_status: dict[int, list[str]] = {}
        for kind in _possible(rule, operation):
            status, _ = openapi_errors.token_of(kind)
            names = by_status.setdefault(status, [])
            if openapi_errors.name_of(kind) not in names:
                names.append(openapi_errors.name_of(kind))
        return {str(each): self._response(each, by_status[each]) for each in sorted(by_status)}

    def _response(self, status: int, names: list[str]) -> str:
        """Return the name of the response for a status, which several errors can have."""
        name = openapi_errors.union_name(names)
        if name not in self._spec.components.responses:
            ref = self._add(name, openapi_errors.union(names))
            more = [*HEADERS.get(status, {}), *(["Allow"] if status == 405 else [])]
            limits = _headers(*_LIMITS, required=False) if status == 429 else {}
            response = {
                "description": ", or ".join(each.removeprefix("Error") for each in names),
                "headers": {**_headers("X-Request-ID", *more), **limits},
                "content": {JSON: {"schema": ref}},
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
    if operation.who in _OF_ACCOUNTS:
        yield errors.TokenRestricted
    if operation.who in _OF_ACCOUNTS or rule.arguments - {"account_id"}:
        yield errors.BadIdentifier
    if operation.is_write:
        yield from (errors.IdempotencyMismatch, errors.InProgress, errors.TooManyKeys)
    if operation.if_match:
        yield errors.PreconditionFailed
    yield from operation.raises


def _is_list(shape: Shape) -> bool:
    return isinstance(shape, Schema) and bool(shape.many)


def _headers(*names: str, required: bool = True) -> dict[str, Any]:
    return {name: {"schema": _TEXT, "required": required} for name in names}


def _joined(schemas_: Iterable[type[Schema]]) -> str:
    return "Or".join(each.__name__.removesuffix("Schema") for each in schemas_)


def _shape_name(shape: Shape) -> str:
    """Return the name of a schema of data. A list of `IPListItem` is an `IPList`."""
    if isinstance(shape, tuple):
        return _joined(map(type, shape))
    if isinstance(shape, Schema):
        return _name(shape).removesuffix("Item") if shape.many else _name(shape)
    return str(shape.metadata["title"])
