"""Rate limits of requests: what a request costs, and the headers that report the limits.

The headers are `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Request, Response

from kazoo_ips.api.client_address import external_client
from kazoo_ips.api.queries import (
    ChangesSchema,
    ListSchema,
    PagedSchema,
    load_events,
    load_list,
)
from kazoo_ips.api.route_descriptions import CSV, Operation
from kazoo_ips.errors import TooManyRequests, ValidationFailed
from kazoo_ips.services.accounts.rate_limits import Balance, RateLimits

WHOLE_LIST = 100
"""Tokens for a list of any length, and for a release of all addresses. A list of 10,000 addresses
takes as long as about 70 reads of one address. A list of 100,000 takes as long as 700 reads."""
_LISTED = 100
"""Number of listed addresses that cost one token."""
_SEARCHED = 10
"""Tokens for a list with filters that no single range of a view has. Most of its pages read a few
hundred rows. A page of rare addresses reads 5,000: as long as 35 reads of one address."""
_ROUNDING = 0.001
"""Tokens by which a balance may be too small, because times are rounded."""
_CHANGED = 10
"""Number of written addresses that cost one token. A write of 1,000 addresses takes as long as 160
reads of one address."""


def cost(state: Any, operation: Operation) -> int:
    """Return the tokens that a request costs: one, and more for many addresses.

    An invalid query counts as if it was missing, and so do invalid values of a body.

    :param state: the state of the request: its query, its media type and its envelope
    """
    if operation.method == "GET":
        is_list = operation.query is not None and issubclass(operation.query, PagedSchema)
        if operation.query is ChangesSchema:
            return 1 + int(state.query.get("limit", 0)) // _LISTED
        return 1 + _listed(state, operation) if is_list else 1
    data = state.envelope.members.get("data")
    if operation.optional_body and not (isinstance(data, dict) and data.get("ips")):
        return WHOLE_LIST
    return 1 + (_changed(data) // _CHANGED if isinstance(data, dict) else 0)


def _listed(state: Any, operation: Operation) -> int:
    """Return the tokens for the rows that a list reads."""
    everything = state.media == CSV
    if not state.query and not everything:
        return 0
    searched = 0
    try:
        if operation.query is not None and issubclass(operation.query, ListSchema):
            query = load_list(state.query, everything=everything)
            is_quick = query.is_ordered and not state.query.get("descendants")
            limit, searched = query.limit, 0 if is_quick else _SEARCHED
        else:
            limit = load_events(state.query, everything=everything).limit
    except ValidationFailed:  # the handler raises it again
        return 0
    return WHOLE_LIST if limit is None else min(limit // _LISTED + searched, WHOLE_LIST)


def _changed(data: Mapping[str, Any]) -> int:
    addresses, quantity = data.get("ips", data.get("lines")), data.get("quantity")
    if isinstance(addresses, list):
        return len(addresses)
    return quantity if isinstance(quantity, int) and 0 < quantity <= 1000 else 0


def charge(
    limits: RateLimits, account_id: str, incoming: Request, state: Any, tokens: int
) -> None:
    """Take the tokens of a request from the buckets of its account and of its client.

    If a bucket is less than half full afterwards, the reply gets the headers that report it.

    :param state: gets the balances of the buckets, for these headers
    :raises TooManyRequests: a bucket had too few, with the time until all buckets have enough
    """
    balances = limits.take(account_id, external_client(incoming), tokens)
    if any([each.left < each.bucket.size / 2 or each.wait for each in balances]):
        state.balances = balances
    wait = max([each.wait for each in balances], default=0.0)
    if wait:
        raise TooManyRequests(math.ceil(wait))


def add_headers(response: Response, balances: Sequence[Balance]) -> None:
    """Add the headers that report the limits.

    The parameter `t` is the number of seconds until further tokens are available.
    """
    policies, limits = [], []
    for each in balances:
        name, size = each.bucket.key.partition(" ")[0], int(each.bucket.size)
        policies.append(f'"{name}";q={size};w={int(each.bucket.seconds)}')
        limits.append(f'"{name}";r={int(each.left + _ROUNDING)};t={max(math.ceil(each.wait), 1)}')
    response.headers["RateLimit-Policy"] = ", ".join(policies)
    response.headers["RateLimit"] = ", ".join(limits)
