"""What all schemas of requests share, and the parameters of writes.

`load_query` reads a query, and `load_strictly` the data of a request that Crossbar does not have.
Both refuse what the route does not know. An error lists all broken rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError

from kazoo_ips.api.fields import Flag
from kazoo_ips.errors import ValidationFailed

EVERYWHERE = frozenset(
    {
        "_", "accept", "accept_charges", "auth_token", "authorization", "jsonp", "page_size",
        "paginate", "pretty_print", "start_key", "verb",
    }
)  # fmt: skip
"""Parameters that are accepted on every route, because Crossbar reads them on every route
(`cb_context.erl`, `api_util.erl`), and `_`. jQuery gives `_` a new value in each request, so that
no cache answers it."""
IN_BODIES = EVERYWHERE | {"dry_run", "ui_metadata"}
"""Members that are accepted in the bodies of all writes. Monster UI adds `ui_metadata`."""


class RequestSchema(Schema):
    """The data or the query of a request."""

    class Meta:
        """Unknown fields are ignored, as in Crossbar."""

        unknown = EXCLUDE


class ReleaseSchema(RequestSchema):
    """The query of a release of several addresses."""

    replaced = Flag(
        metadata={
            "description": "Only addresses that an evacuation has replaced, and whose "
            "replacements the account has; without addresses in the body"
        }
    )


class DeleteSchema(RequestSchema):
    """The query of a delete."""

    force = Flag(
        blank=True,
        metadata={
            "description": "Release the address first if it is assigned; delete it in any status"
        },
    )


class DryRunSchema(RequestSchema):
    """The parameter `dry_run` of a write."""

    dry_run = Flag(
        metadata={"description": "Return the reply that the write would get, and write nothing"}
    )


# Created once, because creating a schema takes longer than loading data with it.
_RELEASE, _DELETE, _DRY_RUN = ReleaseSchema(), DeleteSchema(), DryRunSchema()


def load_replaced(value: Any) -> bool:
    """Return whether to release only addresses that an evacuation has replaced.

    :param value: a JSON boolean or a word for one; None if the request has none
    :raises ValidationFailed: the value is not a boolean
    """
    return bool(load(_RELEASE, {} if value is None else {"replaced": value}).get("replaced"))


def load_force(value: Any) -> bool:
    """Return whether to release the address before it is deleted.

    :param value: a JSON boolean or a word for one; None if the request has none
    :raises ValidationFailed: the value is not a boolean
    """
    return bool(load(_DELETE, {} if value is None else {"force": value}).get("force"))


def load_dry_run(given: Iterable[Any]) -> bool:
    """Return whether any of these values of `dry_run` is true.

    :raises ValidationFailed: a value is not a boolean
    """
    return any([load(_DRY_RUN, {"dry_run": value})["dry_run"] for value in given])


def load_query(
    schemas: Sequence[Schema], query: Iterable[tuple[str, str]], *, write: bool = False
) -> dict[str, Any]:
    """Return the parameters of a query, converted by their schemas.

    :param schemas: their fields are the parameters that the route knows, besides `EVERYWHERE`
    :param query: each parameter as it was sent
    :param write: whether the route writes; then this function accepts `dry_run`, and a route that
        supports no dry run refuses it later
    :raises ValidationFailed: with every broken rule: an unknown parameter, a parameter that was
        given twice, an invalid value
    """
    known = sorted({name for schema in schemas for name in schema.fields})
    given: dict[str, str] = {}
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for name, value in query:
        if name not in known:
            if name not in EVERYWHERE and not (write and name == "dry_run"):
                text = "no such parameter; this route knows: " + (", ".join(known) or "none")
                errors[name] = {"additionalProperties": {"message": text, "target": known}}
        elif name in given:
            text = "given more than once; this route knows: " + ", ".join(known)
            errors[name] = {"uniqueItems": {"message": text, "target": known, "value": value}}
        else:
            given[name] = value
    loaded: dict[str, Any] = {}
    for schema in schemas:
        try:
            loaded |= load(schema, {k: v for k, v in given.items() if k in schema.fields})
        except ValidationFailed as failed:
            errors = {**failed.errors, **errors}
    if errors:
        raise ValidationFailed(errors)
    return loaded


def check_members(known: Sequence[str], members: Iterable[str]) -> None:
    """Refuse unknown members of the body of a request that needs no data.

    :param known: the parameters that the request may have in the body
    :param members: names of the members of `data`, and of the envelope
    :raises ValidationFailed: with every member that is unknown
    """
    errors = _unknown(known, {*members} - {*known})
    if errors:
        raise ValidationFailed(errors)


def _unknown(
    known: Sequence[str], names: Iterable[str]
) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Return an error for each member that the request does not have, or has in another place."""
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for name in sorted({*names} - IN_BODIES):
        text = "belongs in data" if name in known else "no such member"
        text = f"{text}; this request has: {', '.join(known) or 'none'}"
        errors[name] = {"additionalProperties": {"message": text, "target": known}}
    return errors


def load_strictly(
    schema: Schema, data: Mapping[str, Any], other_members: Iterable[str]
) -> dict[str, Any]:
    """Load the data of a request that Crossbar does not have.

    :param other_members: names of the members of the envelope besides `data`; unknown ones are
        errors, and so are members that belong in `data`
    :raises ValidationFailed: with every broken rule, and every member that is unknown
    """
    known = sorted(field.data_key or name for name, field in schema.fields.items())
    errors = _unknown(known, {*data} - {*known} | {*other_members})
    try:
        loaded = load(schema, data)
    except ValidationFailed as failed:
        raise ValidationFailed({**failed.errors, **errors}) from failed
    if errors:
        raise ValidationFailed(errors)
    return loaded


def load(schema: Schema, data: Mapping[str, Any]) -> dict[str, Any]:
    """Load data, without members that the schema does not have.

    :raises ValidationFailed: with every broken rule
    """
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as error:
        raise ValidationFailed(dict(_flat("", error.messages_dict))) from error
    return loaded


def _flat(path: str, messages: Mapping[Any, Any]) -> Any:
    """Yield marshmallow's nested errors with Crossbar's paths: `{"ips": {0: …}}` is `ips.0`.

    An error itself has a message.
    """
    for name, inner in messages.items():
        if not path or "message" not in inner:
            yield from _flat(f"{path}.{name}" if path else name, inner)
        else:
            yield path, messages
            return
