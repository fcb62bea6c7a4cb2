"""Rate limits of requests: what a request costs, and the headers that report the limits.

The headers are `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Request, Response

from kazoo_ips.api.envelope import Envelope
from kazoo_ips.api.route_descriptions import CSV, Operation
from kazoo_ips.errors import TooManyRequests
from kazoo_ips.processes.token_buckets import Balance

WHOLE_LIST = 100
"""Tokens for a list of any length, and for a release of all addresses. A list of 10,000 addresses
takes as long as about 70 reads of one address. A list of 100,000 takes as long as 700 reads."""
_LISTED = 100
"""Number of listed addresses that cost one token."""
_ROUNDING = 0.001
"""Tokens by which a balance may be too small, because times are rounded."""
_CHANGED = 10
"""Number of written addresses that cost one token. A write of 1,000 addresses takes as long as 160
reads of one address."""


def cost(incoming: Request, given: Envelope, operation: Operation) -> int:
    """Return the tokens that a request costs: one, and more for many addresses.

    The request is not validated yet, so invalid values count as if they were missing.
    """
    if operation.method == "GET":
        return 1 if operation.query is None else 1 + _listed(incoming)
    data = given.members.get("data")
    if operation.optional_body and not data:
        return WHOLE_LIST
    return 1 + (_changed(data) // _CHANGED if isinstance(data, dict) else 0)


def _listed(incoming: Request) -> int:
    if not incoming.environ.get("QUERY_STRING") and CSV not in incoming.headers.get("Accept", ""):
        return 0
    size = incoming.args.get("page_size") or incoming.args.get("quantity") or ""
    if size:
        return min(int(size) // _LISTED, WHOLE_LIST) if len(size) < 9 and size.isdecimal() else 0
    csv = CSV in incoming.headers.get("Accept", "") and "start_key" not in incoming.args
    return WHOLE_LIST if csv or "paginate" in incoming.args else 0


def _changed(data: Mapping[str, Any]) -> int:
    addresses, quantity = data.get("ips"), data.get("quantity")
    if isinstance(addresses, list):
        return len(addresses)
    return quantity if isinstance(quantity, int) and 0 < quantity <= 1000 else 0


def check(balances: Sequence[Balance]) -> None:
    """Refuse a request if a bucket had too few tokens for it.

    :raises TooManyRequests: with the time until all buckets have enough
    """
    wait = max((balance.wait for balance in balances), default=0.0)
    if wait:
        raise TooManyRequests(math.ceil(wait))


def add_headers(response: Response, balances: Sequence[Balance]) -> None:
    """Add the headers that report the limits, if a bucket is less than half full.

    The parameter `t` is the number of seconds until further tokens are available.
    """
    if all(each.left >= each.bucket.size / 2 and not each.wait for each in balances):
        return
    policies, limits = [], []
    for each in balances:
        name, size = each.bucket.key.partition(" ")[0], int(each.bucket.size)
        policies.append(f'"{name}";q={size};w={int(each.bucket.seconds)}')
        limits.append(f'"{name}";r={int(each.left + _ROUNDING)};t={max(math.ceil(each.wait), 1)}')
    response.headers["RateLimit-Policy"] = ", ".join(policies)
    response.headers["RateLimit"] = ", ".join(limits)
