"""The signed HTTP request that sends an event to a receiver."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from standardwebhooks import Webhook as Signer

from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.webhooks import Webhook
from kazoo_ips.outbound.http_sender import HTTPRequest

_FORM = "application/x-www-form-urlencoded"
_USER_AGENT = "kazoo_ips"

_SAFE_ID = re.compile(r"[0-9A-Za-z.:_-]{1,200}")


def request(
    webhook: Webhook, event_id: str, content: Mapping[str, Any], now: float, user_agent: str = ""
) -> HTTPRequest:
    """Return the signed request of one attempt, with the headers of Standard Webhooks.

    What is signed is the body; with the method `get`, which has none, the whole query.

    :param event_id: the same in every attempt
    :param content: the JSON object of the event
    :param now: Unix seconds
    """
    text = {**content, **webhook.custom_data}
    uri, body, kind = webhook.uri, json.dumps(text, separators=(",", ":")), "application/json"
    if webhook.http_verb == "get" or webhook.format == "form-data":
        body, kind = urlencode(_flat("", text)), _FORM
    headers = {"User-Agent": user_agent or _USER_AGENT}
    if webhook.http_verb == "get":
        uri = f"{uri}{'&' if '?' in uri else '?'}{body}"
        signed, sent = urlsplit(uri).query, None
    else:
        headers["Content-Type"] = kind
        signed, sent = body, body.encode()
    headers |= signature(webhook, message_id(event_id), signed, now)
    return HTTPRequest(webhook.http_verb.upper(), uri, headers, sent)


def message_id(event_id: str) -> str:
    """Return the `webhook-id` of an event, which is the same in every attempt.

    It is the id of the event without full stops, because they separate the parts of what is
    signed. An id with characters that a header cannot have becomes its SHA-256.

    >>> message_id("192.0.2.1-3-0a1b2c3d")
    '192_0_2_1-3-0a1b2c3d'
    """
    if _SAFE_ID.fullmatch(event_id):
        return event_id.replace(".", "_")
    return hashlib.sha256(event_id.encode()).hexdigest()


def signature(webhook: Webhook, identifier: str, text: str, now: float) -> dict[str, str]:
    """Return the headers that sign a text: one signature for each secret that is valid now.

    :param identifier: the `webhook-id`
    :param now: Unix seconds
    """
    at = datetime.fromtimestamp(int(now), UTC)
    secrets = webhook.signing_secrets(int(now) + GREGORIAN_EPOCH)
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(Signer(s).sign(identifier, at, text) for s in secrets),
    }


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the members as fields of a form, nested ones as `before[zone]`, as Kazoo does.

    Members without a value are left out.
    """
    if isinstance(value, Mapping):
        pairs = ((f"{name}[{key}]" if name else str(key), inner) for key, inner in value.items())
        return [field for pair in pairs for field in _flat(*pair)]
    if value is None:
        return []
    return [(name, str(value).lower() if isinstance(value, bool) else str(value))]
