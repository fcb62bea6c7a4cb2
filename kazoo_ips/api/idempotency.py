"""The Idempotency-Key header: a write that is sent several times is executed once.

Every later request with the same key gets the reply of the first request.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, g, request

from kazoo_ips.api import envelope, errors
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import Attempt, Caller
from kazoo_ips.observability import request_context
from kazoo_ips.services.idempotency import IdempotencyService

_KEY = re.compile(r"[\x21-\x7e]{1,128}")


def once(
    service: IdempotencyService, caller: Caller, key: str, handle: Callable[[], Response]
) -> Response:
    """Call the handler of a write, or return the stored reply of the request's key.

    :param caller: the owner of the key; the same key of another caller is another key
    :param key: the value of the header
    :param handle: the handler
    :raises ValidationFailed: the key is malformed
    :raises IdempotencyMismatch: the key was used with another request
    :raises InProgress: the first request with this key has not ended
    """
    if not _KEY.fullmatch(key):
        envelope.fail(
            "Idempotency-Key", "wrong_format", "Field is not in the correct format", value=key
        )
    record = service.begin(caller.account.id, caller.user_id, key, _fingerprint(), g.request_id)
    if record.reply is not None:
        request_context.note("replayed")
        return _replay(record.reply)
    _set_attempt(record.request_id, record.current)
    try:
        response = handle()
    except KazooIPsError as error:
        response = errors.reply(error)
    except Exception:
        service.abandon(record)
        raise
    if response.status_code >= 500:
        service.abandon(record)
        return response
    own = _storable(response)
    final = service.finish(record, own)
    return response if final is own else _replay(final)


def _set_attempt(request_id: str, attempt: Attempt) -> None:
    """Set the attempt, and the request id of the first attempt, which may be this one."""
    g.attempt, g.request_id = attempt, request_id
    request_context.rename(request_id)
    if attempt.number > 1:
        request_context.note("resumed")


def _fingerprint() -> str:
    """Return a digest of the request without its token, which may change between attempts."""
    members = {k: v for k, v in g.envelope.members.items() if k != "auth_token"}
    query = sorted((k, v) for k, v in request.args.items(multi=True) if k != "auth_token")
    content = [request.method, request.path, query, members]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _storable(response: Response) -> Mapping[str, Any]:
    """Return the reply in the form to be stored: without the token, which is a secret."""
    body = {k: v for k, v in json.loads(response.get_data()).items() if k != "auth_token"}
    return {"status": response.status_code, "body": body, "etag": response.get_etag()[0]}


def _replay(reply: Mapping[str, Any]) -> Response:
    response = envelope.replay(reply["body"], reply["status"])
    if reply["etag"]:
        response.set_etag(reply["etag"])
    response.headers["Idempotency-Replayed"] = "true"
    return response
