"""Events as JSON resources and as CloudEvents 1.0 (`services/history/json_objects.py`)."""

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from marshmallow import fields

from kazoo_ips.api import envelope, examples
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.model.history import HistoryEvent, HistoryEventKind, Source
from kazoo_ips.services.history import json_objects
from kazoo_ips.services.history.times import iso_8601

CLOUDEVENTS = "application/cloudevents-batch+json"
EVENT_STREAM = "text/event-stream"
"""Media types of the feed besides JSON."""

_TYPE_PREFIX = "kazoo_ips."
_SOURCE = "/v2/ips"


def member(description: str, example: object = None, **more: Any) -> dict[str, Any]:
    """Return the arguments of the field of a member that every resource of its type has."""
    return {**optional(description, example, **more), "required": True}


def optional(description: str, example: object = None, **more: Any) -> dict[str, Any]:
    """Return the arguments of the field of a member that can be missing.

    It is missing if it is not known, or if the caller may not see it.
    """
    metadata: dict[str, Any] = {"description": description, **more}
    if example is not None:
        metadata["examples"] = [example]
    return {"metadata": metadata}


AT = 63_963_000_000
"""The time of examples, in Gregorian seconds."""


def iso_time() -> dict[str, Any]:
    """Return the arguments of a field that shows the time of the preceding field in ISO 8601."""
    return optional("The same time in ISO 8601", iso_8601(AT), format="date-time")


class AddressStateSchema(ReplySchema):
    """The state of an address before or after an event."""

    status = fields.String(**member("Status of the address", "assigned"))
    account_id = fields.String(**optional("Account that has the address", examples.ACCOUNT_ID))
    zone = fields.String(**member("Zone of the address", examples.ZONE))
    host = fields.String(**member("Host of the address", examples.HOST))


class AuthorSchema(ReplySchema):
    """Who has made a change."""

    account_id = fields.String(**optional("Account of the caller's token", examples.ACCOUNT_ID))
    user_id = fields.String(**optional("User of the caller's token"))
    command = fields.String(**optional("Name of the command, or of the background work"))
    system_user = fields.String(
        **optional("User of the operating system who ran the command", "root")
    )


class EventListItemSchema(ReplySchema):
    """One event, in the history and in the feed."""

    id = fields.String(**member("Id of the event, which never changes; unique for one address"))
    ip = fields.String(
        **optional(
            "IP address, in its canonical form; missing in an event of a zone",
            examples.ASSIGNED[0],
        )
    )
    event = fields.String(**member("What happened", examples=[str(k) for k in HistoryEventKind]))
    at = fields.Integer(**member("Time of the event, in Gregorian seconds", AT))
    at_iso_8601 = fields.String(**iso_time())
    account_id = fields.String(
        **optional("Account that got the address, or had it before", examples.ACCOUNT_ID)
    )
    before = fields.Nested(
        AddressStateSchema,
        **optional("State before the event; missing if there was none, or if it is not shown"),
    )
    after = fields.Nested(
        AddressStateSchema,
        **optional("State after the event; missing if there is none, or if it is not shown"),
    )
    by = fields.Nested(AuthorSchema, **member("The author; empty if unknown or not shown"))
    request_id = fields.String(**optional("Request that made the change"))
    source = fields.String(
        **member("How the service knows of the event", examples=[str(each) for each in Source])
    )
    certain = fields.Boolean(**member("Whether time and states are known, and not inferred"))
    revision = fields.String(**optional("Revision of the address after the change"))
    reason = fields.String(**optional("Reason that the author has given"))
    retracts = fields.String(
        **optional("In the feed, in an event `retracted`: the id of the event that it retracts")
    )
    zone = fields.String(**optional("The zone; only in an event of a zone"))
    available = fields.Integer(
        **optional("Available addresses of the zone; only in an event of a zone")
    )
    total = fields.Integer(**optional("All addresses of the zone; only in an event of a zone"))
    low_percent = fields.Float(
        **optional("Percentage at which the zone is low; only in an event of a zone")
    )


EVENTS = EventListItemSchema(many=True)


def dump_cloud_event(event: HistoryEvent) -> dict[str, Any]:
    """Return an event in the JSON format of CloudEvents 1.0.

    `source` and `id` together identify it: the id of an event is unique for its address.
    """
    data = json_objects.of_event(event)
    level = event.level
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"{_SOURCE}/zones/{quote(level.zone, safe='')}"
        if level
        else f"{_SOURCE}/{event.address}",
        "type": _TYPE_PREFIX + (event.event if level else f"ip.{event.event}"),
        "subject": level.zone if level else event.address,
        **({"time": data["at_iso_8601"]} if "at_iso_8601" in data else {}),
        "datacontenttype": "application/json",
        "data": data,
    }


@lru_cache(maxsize=5000)
def encoded(event: HistoryEvent) -> bytes:
    """Return an event as bytes of JSON. All readers of the feed share them."""
    return envelope.dump(json_objects.of_event(event))
