"""The Idempotency-Key of a write: the same request again gives the same reply again."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, g, request

from kazoo_ips.api import envelope, errors
from kazoo_ips.api.request_state import caller, services
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import Attempt
from kazoo_ips.observability import request_context

_KEY = re.compile(r"[\x21-\x7e]{1,128}")


def once(handle: Callable[[], Response]) -> Response:
    """The reply to a write, which is done once for each key.

    :raises ValidationFailed: the key is not one
    :raises IdempotencyMismatch: the key came with another request
    :raises InProgress: the request with this key is still under way
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return handle()
    if not _KEY.fullmatch(key):
        envelope.fail(
            "Idempotency-Key", "wrong_format", "Field is not in the correct format", value=key
        )
    who = f"{caller().account.id}/{caller().user_id or ''}"
    record = services().idempotency.begin(who, key, _fingerprint(), g.request_id)
    if record.reply is not None:
        request_context.note("replayed")
        return _repeat(record.reply)
    _go_by(record.request_id, record.current)
    try:
        response = handle()
    except KazooIPsError as error:
        response = errors.reply(error)
    except Exception:
        services().idempotency.abandon(record)
        raise
    if response.status_code >= 500:
        services().idempotency.abandon(record)
        return response
    own = _kept(response)
    final = services().idempotency.finish(record, own)
    return response if final is own else _repeat(final)


def _go_by(request_id: str, attempt: Attempt) -> None:
    """Work under the name of the first attempt, which may be this one."""
    g.attempt, g.request_id = attempt, request_id
    request_context.rename(request_id)
    if attempt.number > 1:
        request_context.note("resumed")


def _fingerprint() -> str:
    """Of all that the request asks for; the token it comes with may change."""
    members = {k: v for k, v in g.envelope.members.items() if k != "auth_token"}
    query = sorted((k, v) for k, v in request.args.items(multi=True) if k != "auth_token")
    asked = [request.method, request.path, query, members]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _kept(response: Response) -> Mapping[str, Any]:
    """A reply without the token, which is nobody's to keep."""
    body = {k: v for k, v in json.loads(response.get_data()).items() if k != "auth_token"}
    return {"status": response.status_code, "body": body, "etag": response.get_etag()[0]}


def _repeat(reply: Mapping[str, Any]) -> Response:
    response = envelope.repeat(reply["body"], reply["status"])
    if reply["etag"]:
        response.set_etag(reply["etag"])
    response.headers["Idempotency-Replayed"] = "true"
    return response
