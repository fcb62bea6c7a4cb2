"""The links of the OpenAPI description: from a reply to the operations that can follow it.

A route declares the operations. This module finds the values of their parameters in the request
and in the reply.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from werkzeug.routing import Rule

from kazoo_ips.api.route_descriptions import Operation, Shape

_NOT_OF_A_PAGE = {"start_key", "quantity", "paginate"}
_MEMBERS = {"address": "ip", "account_id": "id", "job_id": "id", "reservation_id": "id"}
"""Path parameters whose values a reply can have under another name."""


def links(source: str, operations: Mapping[str, tuple[Rule, Operation]]) -> dict[str, Any]:
    """Return the links of a successful reply, by name.

    :param source: the id of the operation that has the reply
    :param operations: all operations, by id
    """
    rule, operation = operations[source]
    found = {name: _link(name, *operations[name], rule, operation) for name in operation.links}
    query = operation.query().fields.keys() if operation.query else set()
    if "start_key" in query:
        found["next_page"] = {
            "operationId": source,
            "description": "The next page, if the reply has `next_start_key`",
            "parameters": {
                **{name: f"$request.path.{name}" for name in sorted(rule.arguments)},
                **{name: f"$request.query.{name}" for name in sorted(query - _NOT_OF_A_PAGE)},
                "start_key": "$response.body#/next_start_key",
            },
        }
    return found


def _link(
    name: str, target: Rule, followed: Operation, rule: Rule, operation: Operation
) -> dict[str, Any]:
    link: dict[str, Any] = {"operationId": name, "parameters": {}}
    for parameter in sorted(target.arguments):
        place = f"$response.body#/data/{_place(operation.replies, parameter)}"
        in_path = parameter in rule.arguments
        link["parameters"][parameter] = f"$request.path.{parameter}" if in_path else place
    if any("ips" in schema().fields for schema in followed.body):
        # The addresses of the reply are those of the next request.
        link["requestBody"] = "$response.body"
    return link


def _place(shape: Shape | None, parameter: str) -> str:
    """Return the place of a path parameter's value in the data of a reply."""
    if isinstance(shape, tuple):
        return _place(shape[0], parameter)
    if not isinstance(shape, Schema):
        return "0"
    own = parameter in shape.fields
    member = parameter if own else _MEMBERS.get(parameter, parameter)
    if shape.many:
        return f"0/{member}"
    if member in shape.fields:
        return member
    for name, field in shape.fields.items():
        if isinstance(field, fields.List) and isinstance(field.inner, fields.Nested):
            return f"{name}/0/{_place(field.inner.schema, parameter)}"
    return f"{member}s/0"
