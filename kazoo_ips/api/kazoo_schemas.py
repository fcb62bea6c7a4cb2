"""`/v2/schemas`: the JSON schemas of request data, as Kazoo serves them (`cb_schemas.erl`).

Kazoo stores them as documents. This module generates them from the schemas that check requests.
Kazoo uses draft 4 of JSON Schema, with the schema's name as its `id`. They need no token.
"""

from flask import Response
from marshmallow import Schema, fields

from kazoo_ips.api import bodies, envelope, openapi, resources
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes
from kazoo_ips.errors import BadIdentifier

routes = Routes("kazoo_schemas", __name__, url_prefix="/v2/schemas")

_DRAFT = "http://json-schema.org/draft-04/schema#"
_SCHEMAS: dict[str, tuple[type[Schema], str]] = {
    "api_auth": (bodies.ApiAuthSchema, "Login with an API key"),
    "ip": (bodies.CreateIPSchema, "IP address assigned to the cluster"),
    "ips": (bodies.AddressesSchema, "IP addresses assigned to the account"),
    "user_auth": (bodies.UserAuthSchema, "Login with user and password"),
}


@routes.on(
    "GET",
    "",
    who=Who.ANYONE,
    replies=resources.NAMES,
    operation_id="list_schemas",
    links=("get_schema",),
)
def list_names() -> Response:
    """The names of the schemas."""
    return envelope.success(sorted(_SCHEMAS))


@routes.on(
    "GET",
    "/<name>",
    who=Who.ANYONE,
    replies=fields.Dict(metadata={"title": "JSONSchema"}),
    operation_id="get_schema",
    examples={"name": "ips"},
)
def fetch(name: str) -> Response:
    """One schema, in draft 4 of JSON Schema."""
    if name not in _SCHEMAS:
        raise BadIdentifier(name)
    schema, description = _SCHEMAS[name]
    header = {"$schema": _DRAFT, "id": name, "description": description}
    return envelope.success({**header, **openapi.json_schema(schema)})
