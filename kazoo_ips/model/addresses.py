"""What an address is: strict to read, one spelling to keep, one order to sort by.

Knows nothing of the pool. IPv4 as four decimal octets without leading zeros; IPv6 as RFC 4291
writes it, kept as RFC 5952 recommends. An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is the IPv4
address. No spaces or zone ids, and prefix lengths only where several addresses may be meant: see
`parse_block`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network

_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}")

MAX_BLOCK = 65_536
"""Addresses in one block or range: an IPv4 /16, an IPv6 /112."""


def canonical(text: object) -> str | None:
    """The one spelling of an address, or None when `text` is not an address.

    >>> canonical("2001:DB8:0::1")
    '2001:db8::1'
    >>> canonical("::FFFF:c000:201")
    '192.0.2.1'
    >>> canonical("192.0.2.01") is None
    True
    """
    if not isinstance(text, str):
        return None
    if _IPV4.fullmatch(text):  # nearly always; it has one spelling, and this is ten times as fast
        return text
    address = _read(text)
    return None if address is None else address.compressed


def _read(text: str) -> IPv4Address | IPv6Address | None:
    if "%" in text:
        return None
    try:
        if ":" not in text:
            return IPv4Address(text)
        address = IPv6Address(text)
    except AddressValueError:
        return None
    return address.ipv4_mapped or address


def likely_spellings(address: str) -> tuple[str, ...]:
    """The spellings, other than the canonical one, in which an address is most likely written.

    An address has hundreds of spellings. These few are cheap to look for among document ids.

    :param address: a canonical address

    >>> likely_spellings("192.0.2.1")
    ('::ffff:192.0.2.1', '::FFFF:192.0.2.1', '::ffff:c000:201')
    """
    if ":" not in address:
        number = int(IPv4Address(address))
        mapped = f"::ffff:{address}", f"::FFFF:{address}"
        return (*mapped, f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}")
    exploded = IPv6Address(address).exploded
    spellings = dict.fromkeys([address.upper(), exploded, exploded.upper()])
    return tuple(spelling for spelling in spellings if spelling != address)


def sort_key(address: str) -> str:
    """The key by which the views order addresses: numeric, IPv4 before IPv6.

    `couch_views/ips` computes the same in JavaScript; a test holds the two together.

    :param address: a canonical address
    :returns: `4` and 8, or `6` and 32, lower-case hex digits
    """
    if ":" in address:
        return f"6{int(IPv6Address(address)):032x}"
    return f"4{int(IPv4Address(address)):08x}"


_UNUSABLE = [
    (ip_network("0.0.0.0/8"), "an unspecified address"),
    (ip_network("127.0.0.0/8"), "a loopback address"),
    (ip_network("169.254.0.0/16"), "a link-local address"),
    (ip_network("224.0.0.0/4"), "a multicast address"),
    (ip_network("255.255.255.255/32"), "the broadcast address"),
    (ip_network("240.0.0.0/4"), "a reserved address"),
    (ip_network("::/128"), "an unspecified address"),
    (ip_network("::1/128"), "a loopback address"),
    (ip_network("::/96"), "an IPv4-compatible address"),
    (ip_network("fe80::/10"), "a link-local address"),
    (ip_network("ff00::/8"), "a multicast address"),
]
"""What is never the address of a single host beyond its own link (RFC 6890, RFC 4291 §2.5.5.1)."""
_UNUSABLE_RANGES = {
    version: [
        (int(network.network_address), int(network.broadcast_address), what)
        for network, what in _UNUSABLE
        if network.version == version
    ]
    for version in (4, 6)
}


def unusable(address: str) -> str | None:
    """Say why no proxy can have an address, or return None if one can. Private ones can be had.

    :param address: in any spelling; what is not an address is not judged

    >>> unusable("::ffff:127.0.0.1")
    'it is a loopback address'
    """
    known = _read(address)
    return _unusable(known.version, int(known), int(known)) if known else None


def _unusable(version: int, first: int, last: int) -> str | None:
    for start, end, what in _UNUSABLE_RANGES[version]:
        if first <= end and start <= last:
            return f"it is {what}" if first == last else f"it contains {what}"
    return None


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses that follow one another: one, a CIDR block's or a range's.

    :param version: 4 or 6
    :param first: the first one as a number
    :param last: the last one as a number
    """

    version: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def unusable(self) -> str | None:
        """Why no proxy can have these addresses, or one of them; None if all can be had."""
        return _unusable(self.version, self.first, self.last)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Each address as a number and in its canonical spelling."""
        kind = IPv4Address if self.version == 4 else IPv6Address
        for number in range(self.first, self.last + 1):
            yield number, kind(number).compressed


def parse_block(text: str) -> Block:
    """The addresses that a text names: `192.0.2.1`, `192.0.2.0/28` or `192.0.2.1-192.0.2.9`.

    A CIDR block is all its addresses, the first and the last too: each address of the pool stands
    for itself, and what a subnet keeps for its network and broadcast is no matter to a pool of
    routed addresses (MetalLB and Cilium hold it the same way). A range leaves out what it wants.

    :raises ValueError: it names none, or more than `MAX_BLOCK`; the text says what is wrong

    >>> len(parse_block("192.0.2.0/28"))
    16
    """
    if "/" in text:
        block = _cidr(*text.split("/", 1))
    elif "-" in text:
        block = _range(*text.split("-", 1))
    else:
        only = _read_or_fail(text)
        return Block(only.version, int(only), int(only))
    if block.last - block.first >= MAX_BLOCK:  # len() takes no number as large as IPv6 has them
        raise ValueError(f"more than {MAX_BLOCK} addresses")
    return block


def _cidr(text: str, length: str) -> Block:
    base = _read_or_fail(text)
    # Of an IPv4-mapped address, 96 bits say that it is one.
    spare = 96 if base.version == 4 and ":" in text else 0
    bits = int(length[:4]) - spare if length.isascii() and length.isdigit() else -1
    if not 0 <= bits <= base.max_prefixlen:
        raise ValueError(f"/{length} is not a prefix length of IPv{base.version}")
    network = ip_network((base, bits), strict=False)
    if network.network_address != base:
        raise ValueError(f"{text} is inside the block, which is {network}")
    return Block(base.version, int(base), int(network.broadcast_address))


def _range(start: str, end: str) -> Block:
    first, last = _read_or_fail(start.strip()), _read_or_fail(end.strip())
    if first.version != last.version:
        raise ValueError("from IPv4 to IPv6 is no range")
    if int(first) > int(last):
        raise ValueError("the range ends before it starts")
    return Block(first.version, int(first), int(last))


def _read_or_fail(text: str) -> IPv4Address | IPv6Address:
    address = _read(text)
    if address is None:
        raise ValueError(f"{text!r} is not an address")
    return address
