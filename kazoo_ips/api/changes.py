"""The feed of events, for the operator and for an account: at once, as long poll or as stream."""

import functools
from collections.abc import Callable
from typing import Any

from flask import Response, g, request

from kazoo_ips.api import envelope, queries
from kazoo_ips.api.event_resources import (
    CLOUDEVENTS,
    EVENT_STREAM,
    EVENTS,
    dump_cloud_event,
)
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, permission, services
from kazoo_ips.api.subscriptions import (
    FOREVER,
    EventStream,
    LongPoll,
    Subscription,
    in_parts,
)
from kazoo_ips.errors import NotReady, SinceGone
from kazoo_ips.model.history import FeedPage
from kazoo_ips.services.history import json_objects

routes = Routes("changes", __name__, url_prefix="/v2")

PAGE = 100
"""Events of a reply, unless the request names another number."""
_TIMEOUT = 30
"""Seconds that a long poll waits, unless the request names another number."""
_FEED: dict[str, Any] = {
    "replies": EVENTS,
    "query": queries.ChangesSchema,
    "more_media": (CLOUDEVENTS, EVENT_STREAM),
    "more_members": {
        "since": {"type": "string", "description": "The position after the last event"},
        "more": {"type": "boolean", "description": "Whether more events may follow at once"},
    },
    "raises": (SinceGone, NotReady),
}


@routes.on("GET", "/ips/changes", who=Who.OPERATOR, operation_id="read_pool_changes", **_FEED)
def read() -> Response:
    """The events of all addresses, in order, since a position.

    Each event is delivered at least once, always with the same id. `since` of a reply is the
    position for the next request.
    """
    return _reply(None)


@routes.on(
    "GET",
    "/accounts/<account_id>/ips/changes",
    who=Who.ACCOUNT,
    operation_id="read_changes",
    **_FEED,
)
def read_own(account_id: str) -> Response:
    """The events of addresses that the account had before the event, or has after it.

    The reply leaves out what belongs to another account. It leaves out the author and the request
    too, unless the account itself is the author.
    """
    return _reply(account_id)


def _reply(account_id: str | None) -> Response:
    feed = "eventsource" if g.media == EVENT_STREAM else g.query.get("feed", "normal")
    limit = g.query.get("limit", PAGE)
    since = g.query.get("since", "0")
    if feed == "eventsource":
        since = request.headers.get("Last-Event-ID") or since
    if feed == "eventsource" and request.method != "HEAD":
        # A stream that has begun cannot report an invalid or deleted position by a status.
        page = services().changes.read(since, 1)
        start = page.since if since == "now" else since
        seconds = g.query.get("timeout", FOREVER)
        return _wait(EventStream(start, account_id, permission(), seconds), EVENT_STREAM)
    page = services().changes.read(since, limit, account_id)
    timeout = g.query.get("timeout", _TIMEOUT)
    if feed == "normal" or request.method == "HEAD":
        return _page(page)
    if page.entries or page.more:
        return _page(page)
    poll = LongPoll(page.since, account_id, permission(), timeout, limit, _body())
    return _wait(poll, CLOUDEVENTS if g.media == CLOUDEVENTS else "application/json")


def _page(page: FeedPage) -> Response:
    if g.media == CLOUDEVENTS:
        response = Response(_cloud_events(page), content_type=CLOUDEVENTS)
    else:
        data = [json_objects.of_event(entry.event) for entry in page.entries]
        response = envelope.success(data, since=page.since, more=page.more)
    response.headers["Link"] = f'<{request.path}?since={page.since}>; rel="next"'
    return response


def _cloud_events(page: FeedPage) -> bytes:
    return envelope.dump([dump_cloud_event(entry.event) for entry in page.entries])


def _body() -> Callable[[FeedPage], bytes]:
    """Return a function that makes the body of a reply after the end of this request."""
    if g.media == CLOUDEVENTS:
        return _cloud_events
    common = functools.partial(envelope.common, g.request_id, g.get("auth_token"))
    clock = g.clock

    def body(page: FeedPage) -> bytes:
        data = envelope.dump([json_objects.of_event(entry.event) for entry in page.entries])
        members = {
            "status": "success", "revision": envelope.digest(data), "since": page.since,
            "more": page.more, **common(clock()),
        }  # fmt: skip
        return b'{"data":%b,%b' % (data, envelope.dump(members)[1:])

    return body


def _wait(subscription: Subscription, content_type: str) -> Response:
    """Return the reply to a client that waits for events.

    The worker keeps the connection open after this reply, which has no body. On a server that
    cannot do so, the reply has the body, in parts.

    :raises NotReady: too many clients wait
    """
    headers = {"Content-Type": content_type, "X-Accel-Buffering": "no"}
    sock = request.environ.get("gunicorn.socket")
    if sock is None:
        return Response(in_parts(subscription, services().changes, PAGE), headers=headers)
    if not hasattr(sock, "keep_open") or not sock.keep_open(subscription):
        raise NotReady(["too many clients wait for events"])
    g.is_kept_open = True
    return Response(iter(()), headers=headers)
