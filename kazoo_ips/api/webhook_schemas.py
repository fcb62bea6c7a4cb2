"""Webhooks as JSON: what clients send, and what they get."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from dataclasses import fields as fields_of
from typing import Any

from marshmallow import fields

from kazoo_ips.api import examples, schemas
from kazoo_ips.api.fields import Field, Flag, Name, Text, Time, broken
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.schemas import RequestSchema
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model.history import HistoryEventKind
from kazoo_ips.model.webhooks import (
    MAX_CUSTOM_DATA,
    MAX_CUSTOM_TEXT,
    MAX_URI,
    DeliveryAttempt,
    Webhook,
    hooks,
    uri_problem,
)
from kazoo_ips.services.webhooks.management import WebhookStatus

_MAX_LIST = 100
_MAX_NAME = 128
_KINDS = tuple(kind.value for kind in HistoryEventKind)
EVENT_KIND = {"type": "string", "enum": [*_KINDS]}
"""The schema of the kind of an event. It has a name in the description: without one, the Java that
openapi-generator generates for a list of different kinds does not compile."""


class _URI(Text):
    """The destination of a webhook."""

    def __init__(self, **more: Any) -> None:
        super().__init__(most=MAX_URI, **more)

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {**super().json_schema(), "format": "uri"}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        uri = super()._deserialize(value, *args, **kwargs)
        problem = uri_problem(uri)
        if problem:
            text = "Field is not in the correct format"
            raise broken("wrong_format", text, cause=f"the uri {problem}", value=value)
        return uri


class _Retries(Field):
    """A number from 0 to 4, as in Kazoo's schema."""

    type_name = "integer"

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": "integer", "minimum": 0, "maximum": 4}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong_type(value)
        if value < 0:
            raise broken("minimum", "Value must be at least 0", target=0, value=value)
        if value > 4:
            raise broken("maximum", "Value must be at most 4", target=4, value=value)
        return value


class _Texts(Field):
    """A list of different texts.

    :param one_of: the texts that are allowed; empty for all
    :param named: the name of the schema of one text in the description; empty for none
    """

    type_name = "array"

    def __init__(self, one_of: tuple[str, ...] = (), named: str = "", **more: Any) -> None:
        super().__init__(**more)
        self._item = Text(most=255, one_of=one_of)
        self._named = named

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        reference = {"$ref": f"#/components/schemas/{self._named}"}
        items = reference if self._named else self._item.json_schema()
        return {"type": "array", "items": items, "maxItems": _MAX_LIST, "uniqueItems": True}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.wrong_type(value)
        if len(value) > _MAX_LIST:
            text = f"The list must have at most {_MAX_LIST} items"
            raise broken("maxItems", text, target=_MAX_LIST, value=len(value))
        loaded = [str(self._item.deserialize(item)) for item in value]
        for index, item in enumerate(loaded):
            if item in loaded[:index]:
                raise broken("uniqueItems", "List of items is not unique", value=item)
        return tuple(loaded)


class _CustomData(Field):
    """An object whose values are texts."""

    type_name = "object"

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        text = {"type": "string", "maxLength": MAX_CUSTOM_TEXT}
        return {"type": "object", "additionalProperties": text, "maxProperties": MAX_CUSTOM_DATA}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise self.wrong_type(value)
        if len(value) > MAX_CUSTOM_DATA:
            text = f"The object must have at most {MAX_CUSTOM_DATA} members"
            raise broken("maxProperties", text, target=MAX_CUSTOM_DATA, value=len(value))
        member = Text(least=0, most=MAX_CUSTOM_TEXT)
        return {
            str(member.deserialize(name)): str(member.deserialize(text))
            for name, text in value.items()
        }


class WebhookContentSchema(RequestSchema):
    """`data` of a request that creates or replaces a webhook (Kazoo's schema `webhooks`)."""

    name = Name(
        most=_MAX_NAME,
        required=True,
        metadata={"description": "Name of the webhook, for people", "examples": ["Firewall"]},
    )
    uri = _URI(
        required=True,
        metadata={
            "description": "Where the events are sent: http or https, without user and password",
            "examples": ["https://receiver.example/ips"],
        },
    )
    hook = Text(
        one_of=hooks(),
        required=True,
        metadata={"description": "Which events are sent", "examples": ["all"]},
    )
    http_verb = Text(
        one_of=("get", "post", "put"),
        metadata={"description": "The HTTP method; `post` by default"},
    )
    format = Text(
        one_of=("form-data", "json"),
        metadata={"description": "The form of the body; `json` by default"},
    )
    retries = _Retries(
        metadata={
            "description": "As in Kazoo, without effect: the service retries until a success"
        }
    )
    enabled = Flag(metadata={"description": "Whether events are sent; true by default"})
    include_subaccounts = Flag(
        metadata={"description": "Whether events of the accounts below it are sent too"}
    )
    custom_data = _CustomData(
        metadata={"description": "Members that are added to the event, or replace its members"}
    )
    zones = _Texts(metadata={"description": "Only events of addresses in these zones"})
    events = _Texts(
        one_of=_KINDS,
        named="EventKind",
        metadata={"description": "With the hook `all`: only these kinds of events"},
    )


class PatchWebhookSchema(WebhookContentSchema):
    """`data` of a request that changes some members of a webhook."""

    name = Name(most=_MAX_NAME, metadata={"description": "Name of the webhook, for people"})
    uri = _URI(metadata={"description": "Where the events are sent"})
    hook = Text(one_of=hooks(), metadata={"description": "Which events are sent"})
    enabled = Flag(
        metadata={"description": "Whether events are sent", "examples": [True]},
    )


class ReEnableSchema(RequestSchema):
    """`data` of a request for all webhooks."""

    re_enable = Flag(
        data_key="re-enable",
        required=True,
        metadata={
            "description": "true: enable the webhooks that the service has disabled",
            "examples": [True],
        },
    )


class _BodyTime(Time):
    """A time in a body, where Gregorian seconds may be a number."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self.wrong_type(value)
        return super()._deserialize(str(value), *args, **kwargs)


class ReplaySchema(RequestSchema):
    """`data` of a replay."""

    since = _BodyTime(
        required=True,
        metadata={
            "description": "Events at this time or later are delivered: Gregorian seconds or ISO "
            "8601",
            "examples": ["2026-11-01T00:00:00Z"],
        },
    )


class WebhookDeliverySchema(ReplySchema):
    """The state of the delivery of a webhook."""

    state = fields.String(required=True, metadata={"description": "`ok`, `failing` or `disabled`"})
    failures = fields.Integer(
        required=True, metadata={"description": "Failed attempts since the last success"}
    )
    last_success = fields.Integer(metadata={"description": "Time, in Gregorian seconds"})
    last_error = fields.String(metadata={"description": "Why the last attempt has failed"})
    next_attempt = fields.Integer(
        metadata={"description": "Time of the next attempt after a failure, in Gregorian seconds"}
    )
    waiting_since = fields.Integer(
        metadata={"description": "Time of the event whose delivery has failed, and is tried again"}
    )


class WebhookSchema(ReplySchema):
    """A webhook."""

    id = fields.String(
        required=True, metadata={"description": "Id", "examples": [examples.WEBHOOK_ID]}
    )
    name = fields.String(required=True)
    uri = fields.String(required=True)
    hook = fields.String(required=True)
    http_verb = fields.String(required=True)
    format = fields.String(required=True)
    retries = fields.Integer(required=True)
    enabled = fields.Boolean(required=True)
    include_subaccounts = fields.Boolean(required=True)
    custom_data = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    zones = fields.List(fields.String(), required=True)
    events = fields.List(fields.String(), required=True)
    disable_reason = fields.String(metadata={"description": "Why the service has disabled it"})
    created = fields.Integer(required=True, metadata={"description": "In Gregorian seconds"})
    modified = fields.Integer(required=True, metadata={"description": "In Gregorian seconds"})
    delivery = fields.Nested(WebhookDeliverySchema, required=True)


class WebhookListItemSchema(WebhookSchema):
    """One webhook of a list."""


class WebhookWithSecretSchema(WebhookSchema):
    """A webhook with its secret, which is shown only once."""

    secret = fields.String(
        required=True, metadata={"description": "Verifies the signatures: `whsec_` and base64"}
    )


class WebhookAttemptSchema(ReplySchema):
    """An attempt to deliver an event (Kazoo's schema `webhook_attempts`)."""

    hook_id = fields.String(required=True, metadata={"description": "Id of the webhook"})
    event_id = fields.String(required=True, metadata={"description": "Id of the event"})
    timestamp = fields.Integer(required=True, metadata={"description": "In Gregorian seconds"})
    result = fields.String(required=True, metadata={"description": "`success` or `failure`"})
    response_code = fields.Integer(metadata={"description": "Status of the response"})
    response_body = fields.String(metadata={"description": "Beginning of the body, if it failed"})
    reason = fields.String(metadata={"description": "Why it failed"})
    client_error = fields.String(metadata={"description": "Error without a response"})
    milliseconds = fields.Integer(required=True, metadata={"description": "How long it took"})


class WebhookAttemptListItemSchema(WebhookAttemptSchema):
    """One attempt of a list."""


_WEBHOOK, _PATCH = WebhookContentSchema(), PatchWebhookSchema()
_RE_ENABLE, _REPLAY = ReEnableSchema(), ReplaySchema()
_CHOSEN = tuple(WebhookContentSchema().fields)
_IGNORED = {*WebhookWithSecretSchema().fields, "include_internal_legs", "_read_only"} - {*_CHOSEN}
"""Members that clients may send back, and a member of Kazoo's schema that concerns calls."""
_SHOWN = tuple(set(WebhookSchema().fields) - {"delivery"})


def load(data: Mapping[str, Any], other_members: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of a `Webhook` that a request sets.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule, and every member that is unknown
    """
    known = {k: v for k, v in data.items() if k not in _IGNORED}
    return schemas.load_strictly(_WEBHOOK, known, other_members)


def replaced(webhook: Webhook, content: Mapping[str, Any]) -> Webhook:
    """Return a webhook with new content. What the content leaves out has its default."""
    defaults = {f.name: f.default for f in fields_of(Webhook) if f.name in _CHOSEN}
    return replace(webhook, **{**defaults, "custom_data": {}, **content})


def patched(webhook: Webhook, data: Mapping[str, Any], other_members: Iterable[str]) -> Webhook:
    """Return a webhook with some members changed (merge patch). A null sets the default.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule, and every member that is unknown
    """
    custom = data.get("custom_data")
    given = {k: v for k, v in data.items() if k not in _IGNORED and v is not None}
    if isinstance(custom, dict):
        given["custom_data"] = {k: v for k, v in custom.items() if v is not None}
    schemas.load_strictly(_PATCH, given, other_members)
    merged = {**{name: _plain(getattr(webhook, name)) for name in _CHOSEN}, **data}
    if isinstance(custom, dict):
        both = {**webhook.custom_data, **custom}
        merged["custom_data"] = {k: v for k, v in both.items() if v is not None}
    return replaced(webhook, load({k: v for k, v in merged.items() if v is not None}))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_re_enable(data: Mapping[str, Any], other_members: Iterable[str]) -> None:
    """Check a request that enables webhooks.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: `re-enable` is missing or not true
    """
    if not schemas.load_strictly(_RE_ENABLE, data, other_members)["re_enable"]:
        text = "Value not found in enumerated list"
        rule = {"message": text, "target": [True], "value": False}
        raise ValidationFailed({"re-enable": {"enum": rule}})


def load_since(data: Mapping[str, Any], other_members: Iterable[str] = ()) -> int:
    """Return the time since which events are delivered again, in Gregorian seconds.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: the time is missing or invalid
    """
    return int(schemas.load_strictly(_REPLAY, data, other_members)["since"])


def dump(status: WebhookStatus) -> dict[str, Any]:
    """Return a webhook as JSON."""
    webhook = status.webhook
    shown = {name: _plain(getattr(webhook, name)) for name in _SHOWN}
    return {**_present(shown), "delivery": _delivery(status)}


def dump_with_secret(webhook: Webhook) -> dict[str, Any]:
    """Return a webhook that was just created or has a new secret, with that secret."""
    return {**dump(WebhookStatus(webhook, None)), "secret": str(webhook.secrets[0].value)}


def _delivery(status: WebhookStatus) -> dict[str, Any]:
    progress = status.progress
    state = "disabled" if not status.webhook.enabled else "ok"
    if progress is None:
        return {"state": state, "failures": 0}
    failing = progress.failures > 0
    last = progress.attempts[0] if progress.attempts else None
    return _present(
        {
            "state": "failing" if failing and state == "ok" else state,
            "failures": progress.failures,
            "last_success": progress.last_success,
            "last_error": last.reason if last else None,
            "next_attempt": progress.next_attempt if failing else None,
            "waiting_since": progress.waiting_since,
        }
    )


def dump_attempt(webhook_id: str, attempt: DeliveryAttempt) -> dict[str, Any]:
    """Return an attempt as JSON."""
    return {"hook_id": webhook_id, **_present(asdict(attempt))}


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None}
