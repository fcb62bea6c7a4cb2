"""What an address is: strict to read, one spelling to keep, one order to sort by.

Knows nothing of the pool. IPv4 as four decimal octets without leading zeros; IPv6 as RFC 4291
writes it, kept as RFC 5952 recommends. No spaces, prefix lengths or zone ids.
"""

from ipaddress import AddressValueError, IPv4Address, IPv6Address


def canonical(text: object) -> str | None:
    """The one spelling of an address, or None when `text` is not an address.

    >>> canonical("2001:DB8:0::1")
    '2001:db8::1'
    >>> canonical("192.0.2.01") is None
    True
    """
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        if ":" not in text:
            return str(IPv4Address(text))
        address = IPv6Address(text)
    except AddressValueError:
        return None
    # RFC 5952 §5: addresses that carry an IPv4 address show it. Python does so only since 3.13.
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped else address.compressed


def sort_key(address: str) -> str:
    """The key by which the views order addresses: numeric, IPv4 before IPv6.

    `couch_views/ips` computes the same in JavaScript; a test holds the two together.

    :param address: a canonical address
    :returns: `4` and 8, or `6` and 32, lower-case hex digits
    """
    if ":" in address:
        return f"6{int(IPv6Address(address)):032x}"
    return f"4{int(IPv4Address(address)):08x}"
