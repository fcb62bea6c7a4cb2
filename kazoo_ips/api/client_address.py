"""The client's address: that of the connection, or one that a trusted proxy has reported.

Each proxy appends the address of its own client to `X-Forwarded-For`. So an entry is reliable only
if a trusted proxy has added it. Clients can forge the entries to the left of it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flask import Flask, Request, current_app

_WITH_PORT = re.compile(r"\[(.*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
_HOPS = 20
"""The maximum number of entries of X-Forwarded-For that are read."""

Networks = Sequence[IPv4Network | IPv6Network]


def init_app(app: Flask, trusted: str) -> None:
    """Set the proxies that the application trusts.

    :param trusted: their addresses and networks, separated by spaces or commas
    :raises ValueError: an entry is neither an address nor a network
    """
    networks = [ip_network(word) for word in trusted.replace(",", " ").split()]
    app.extensions["trusted_proxies"] = networks

    @lru_cache(maxsize=1024)
    def is_trusted(client: str) -> bool:
        hop = _parse(client)
        return hop is not None and any(hop in network for network in networks)

    app.extensions["is_trusted_proxy"] = is_trusted


def client_address(incoming: Request) -> str:
    """Return the client's address of a request; empty for a Unix socket."""
    environ = incoming.environ
    peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", "")
    if not forwarded and ":" not in peer:  # the common case needs no parsing
        return str(peer)
    return find(peer, forwarded, current_app.extensions["trusted_proxies"])


def external_client(incoming: Request) -> str:
    """Return the client's address; empty if it is the address of a trusted proxy.

    An empty result means that a program of the operator sent the request, or that the client is
    unknown.
    """
    client = client_address(incoming)
    return "" if current_app.extensions["is_trusted_proxy"](client) else client


def find(peer: str, forwarded: str, trusted: Networks) -> str:
    """Return the rightmost address that is not a trusted proxy's.

    :param peer: the address of the connection; empty for a Unix socket, which is trusted
    :param forwarded: the value of X-Forwarded-For
    """
    hop = _parse(peer)
    for text in reversed(forwarded.rsplit(",", _HOPS)):
        if hop is not None and not any(hop in network for network in trusted):
            break
        previous = _parse(text.strip())
        if previous is None:
            break
        hop = previous
    return str(hop or "")


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
