"""Which address a request comes from: the connection's, or what trusted proxies say of theirs.

`X-Forwarded-For` grows to the right: each proxy adds the address that it was connected from, so
only what a trusted one added counts, and what is left of it may be anybody's invention.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flask import Flask, current_app, request

_WITH_PORT = re.compile(r"\[(.*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
_HOPS = 20
"""Proxies in a row that are followed."""

Networks = Sequence[IPv4Network | IPv6Network]


def init_app(app: Flask, trusted: str) -> None:
    """Have the application trust proxies.

    :param trusted: their addresses and networks, with spaces or commas between them
    """
    networks = [ip_network(word) for word in trusted.replace(",", " ").split()]
    app.extensions["trusted_proxies"] = networks


def client_address() -> str:
    """The address that the request at hand comes from; empty for a local socket's."""
    asked = request.environ
    peer, forwarded = asked.get("REMOTE_ADDR", ""), asked.get("HTTP_X_FORWARDED_FOR", "")
    if not forwarded and ":" not in peer:  # as it is, and nearly always
        return str(peer)
    return find(peer, forwarded, current_app.extensions["trusted_proxies"])


def find(peer: str, forwarded: str, trusted: Networks) -> str:
    """The rightmost address that is not a trusted proxy's.

    :param peer: what the connection comes from; empty for a local socket, which is trusted
    :param forwarded: X-Forwarded-For
    """
    hop = _parse(peer)
    for text in reversed(forwarded.rsplit(",", _HOPS)):
        if hop is not None and not any(hop in network for network in trusted):
            break
        before = _parse(text.strip())
        if before is None:
            break
        hop = before
    return str(hop or "")


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
