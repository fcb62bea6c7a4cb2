"""The addresses to which a request may be sent whose URI a customer has chosen (against SSRF)."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

_REFUSED = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23", "2001:db8::/32", "3fff::/20",
    )
)  # fmt: skip
"""The networks of IANA's special-purpose registries that do not lead to a public host. Of IPv6
everything outside of `_PUBLIC_IPV6` is refused as well, for example loopback, link-local,
unique local and multicast addresses. 2001::/23 contains Teredo."""
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")
_MAPPED = IPv6Network("::ffff:0:0/96")


class Destinations:
    """Decides which addresses a request may be sent to.

    :param networks: networks that are permitted although they are not public
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    @classmethod
    def parse(cls, text: str) -> "Destinations":
        """Return the rule for a list of networks in CIDR notation.

        :param text: networks, separated by blanks or commas
        :raises ValueError: one of them is not a network
        """
        return cls(ip_network(word) for word in text.replace(",", " ").split())

    def permit(self, text: str) -> bool:
        """Return whether a request may be sent to an address.

        The IPv4 address in an IPv4-mapped, NAT64 or 6to4 address must be permitted itself.

        :param text: an IPv4 or IPv6 address; with a zone id it is never permitted
        """
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.scope_id:
            return False
        inner = _inner(address)
        if inner is not None:
            return self.permit(str(inner))
        return any(address in network for network in self._networks) or _is_public(address)


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, or None."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if address in _SIX_TO_FOUR:
        return IPv4Address((number >> 80) & 0xFFFFFFFF)
    if address in _NAT64 or address in _MAPPED:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    return not any(address in network for network in _REFUSED)
