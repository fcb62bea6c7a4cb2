"""The links of the OpenAPI description: from a reply to the operations that can follow it.

A route declares the operations. This module finds the values of their parameters in the request
and in the reply.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema
from werkzeug.routing import Rule

from kazoo_ips.api.route_descriptions import Operation, Shape

_NOT_OF_A_PAGE = {"start_key", "quantity", "paginate"}
_MEMBERS = {"address": "ip"}
"""Path parameters whose values a reply has under another name."""


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
    if followed.body:  # the addresses of the reply are those of the next request
        link["requestBody"] = "$response.body"
    return link


def _place(shape: Shape | None, parameter: str) -> str:
    """Return the place of a path parameter's value in the data of a reply."""
    member = _MEMBERS.get(parameter, parameter)
    if isinstance(shape, tuple):
        return _place(shape[0], parameter)
    if not isinstance(shape, Schema):
        return "0"
    if shape.many:
        return f"0/{member}"
    return member if member in shape.fields else f"{member}s/0"
