"""Replies of the API: the envelope, and the errors that they stand for."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kazoo_ips import errors
from kazoo_ips.errors import RemoteFailure

_CONFLICTS = {
    kind.reason: kind
    for kind in (
        errors.IPsExist,
        errors.IPAssigned,
        errors.IPReserved,
        errors.IPStatusUnknown,
        errors.Conflict,
    )
}
"""The errors by the reasons that a 409 `datastore_conflict` gives for addresses."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with its envelope.

    :param status: the HTTP status
    :param body: the envelope
    :param retry_after: seconds after which the client may try again; 0 if the reply does not say
    :param stream: the body of a reply that is a stream, which has no envelope
    """

    url: str
    status: int
    body: Mapping[str, Any] = field(repr=False)
    retry_after: float = 0.0
    stream: Iterable[bytes] = field(default=(), repr=False)

    @property
    def data(self) -> Any:
        """`data` of the envelope."""
        return self.body.get("data")

    @property
    def message(self) -> str:
        """The message of an error; empty in a successful reply."""
        return str(self.body.get("message", ""))

    @property
    def next_start_key(self) -> str | None:
        """Where the next page of a list begins; None after the last."""
        return self.body.get("next_start_key")

    def raise_for_error(self) -> None:
        """Raise the error of a reply that is not successful.

        :raises KazooIPsError: the error that the service raised, as far as the reply describes it
        :raises RemoteFailure: the reply is any other error
        """
        if self.status < 400:
            return
        make = _ERRORS.get(self.message)
        if make:
            raise make(self, self.data if isinstance(self.data, dict) else {})
        raise RemoteFailure(f"{self.url} failed: {self.status} {self.message}{self._request()}")

    def _request(self) -> str:
        request_id = self.body.get("request_id")
        return f"; request id {request_id}" if request_id else ""


def read(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Return a reply that has the envelope of this API.

    :param url: the URL of the service
    :raises RemoteFailure: another program has answered, or a proxy in front of the service
    """
    try:
        envelope = json.loads(body)
    except ValueError:
        envelope = None
    if isinstance(envelope, dict) and envelope.get("status") in ("success", "error"):
        wait = headers.get("Retry-After", "")
        return Reply(url, status, envelope, float(wait) if wait.isdecimal() else 0.0)
    if status in (502, 503, 504):  # a proxy in front of the service
        return Reply(url, status, {"message": "the proxy in front of the service cannot reach it"})
    if 300 <= status < 400:
        target = headers.get("Location", "another URL")
        raise RemoteFailure(f"{url} redirects to {target}; use the URL of the service itself")
    raise RemoteFailure(f"{url} is not kazoo_ips: it answers {status} without an envelope")


Make = Callable[[Reply, Mapping[str, Any]], errors.KazooIPsError]


def _conflict(_reply: Reply, data: Mapping[str, Any]) -> errors.Conflict:
    addresses = data.get("ips")
    if not isinstance(addresses, dict) or not addresses:
        return errors.Conflict()
    kind = _CONFLICTS.get(str(next(iter(addresses.values()))), errors.Conflict)
    return kind(*addresses)


def _limited(reply: Reply, _data: Mapping[str, Any]) -> errors.KazooIPsError:
    seconds = round(reply.retry_after) or 1
    return RemoteFailure(f"{reply.url} refuses more requests; try again in {seconds} s")


def _forbidden(reply: Reply, data: Mapping[str, Any]) -> errors.KazooIPsError:
    return errors.TokenRestricted() if "cause" in data else errors.Forbidden()


def _limit_reached(_reply: Reply, data: Mapping[str, Any]) -> errors.KazooIPsError:
    limit, used = int(data.get("limit", 0)), int(data.get("used", 0))
    if data.get("message") == "too many reservations":
        return errors.ReservationLimitReached(limit, used)
    if "which" not in data:
        return errors.WebhookLimitReached(limit, used)
    return errors.LimitReached(
        str(data["which"]),
        limit,
        used,
        int(data.get("requested", 0)),
        account_id=str(data.get("account_id", "")),
        zone=data.get("zone"),
    )


def _unknown_route(reply: Reply, _data: Mapping[str, Any]) -> errors.KazooIPsError:
    text = f"{reply.url} has no such route: it is another release, or the URL is wrong"
    return RemoteFailure(text)


_ERRORS: dict[str, Make] = {
    "validation error": lambda _, data: errors.ValidationFailed(data),
    "invalid_credentials": lambda *_: errors.InvalidCredentials(),
    "forbidden": _forbidden,
    "bad_identifier": lambda _, data: errors.BadIdentifier(str(data.get("cause", ""))),
    "datastore_conflict": _conflict,
    "insufficient_ips": lambda _, data: errors.InsufficientIPs(
        int(data.get("requested", 0)), int(data.get("available", 0))
    ),
    "limit_reached": _limit_reached,
    "job_exists": lambda _, data: errors.JobExists(str(data.get("id", ""))),
    "reservation_expired": lambda *_: errors.ReservationExpired(""),
    "precondition_failed": lambda *_: errors.PreconditionFailed(),
    "too_many_requests": _limited,
    "not_found": _unknown_route,
    "invalid_method": _unknown_route,
}
"""The error of each message. Other messages are failures of the service."""
