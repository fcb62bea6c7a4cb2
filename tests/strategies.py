"""Strategies for property tests: addresses in every spelling, and texts that are not addresses.

The addresses come from the whole address space, because the order and the spelling of all of them
matter. Tests that send requests to the service use the documentation ranges only.
"""

import ipaddress
import os

import hypothesis
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

FACTOR = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 1


def runs(examples: int, **more: object) -> hypothesis.settings:
    """Return Hypothesis settings for a slow test: this number of examples, more if thorough."""
    return hypothesis.settings(
        max_examples=examples * FACTOR,
        deadline=None,
        print_blob=True,
        derandomize=FACTOR == 1,
        suppress_health_check=list(hypothesis.HealthCheck),
        **more,  # type: ignore[arg-type]
    )


def ipv4() -> SearchStrategy[str]:
    """IPv4 addresses, which have one spelling each."""
    return st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))


def ipv6_numbers() -> SearchStrategy[int]:
    """IPv6 addresses as numbers, many with runs of zeros and some that carry an IPv4 address."""
    group = st.one_of(st.just(0), st.just(0), st.integers(0, 0xFFFF), st.sampled_from([1, 0xFFFF]))
    groups = st.lists(group, min_size=8, max_size=8)
    mapped = st.integers(0, 2**32 - 1).map(lambda number: 0xFFFF << 32 | number)
    joined = groups.map(lambda parts: sum(g << 16 * (7 - i) for i, g in enumerate(parts)))
    return st.one_of(joined, joined, joined, st.integers(0, 2**128 - 1), mapped)


@st.composite
def ipv6_spelling(draw: DrawFn, number: int) -> str:
    """One of the many ways in which RFC 4291 lets an IPv6 address be written."""
    groups = [number >> 16 * (7 - i) & 0xFFFF for i in range(8)]
    words = [f"{group:0{draw(st.integers(1, 4))}x}" for group in groups]
    if draw(st.booleans()):
        words[6:] = [str(ipaddress.IPv4Address(number & 0xFFFFFFFF))]
    zeros = [i for i, word in enumerate(words) if "." not in word and int(word, 16) == 0]
    text = ":".join(words)
    if zeros and draw(st.booleans()):
        first = last = draw(st.sampled_from(zeros))
        while last + 1 in zeros and draw(st.booleans()):
            last += 1
        text = ":".join(words[:first]) + "::" + ":".join(words[last + 1 :])
    return draw(st.sampled_from([text, text.upper(), text.swapcase()]))


def ipv6() -> SearchStrategy[str]:
    """IPv6 addresses in every spelling."""
    return ipv6_numbers().flatmap(ipv6_spelling)


def addresses() -> SearchStrategy[str]:
    """Addresses in every spelling."""
    return st.one_of(ipv4(), ipv6())


def near_addresses() -> SearchStrategy[str]:
    """Texts that look like addresses. Few of them are addresses."""
    return st.one_of(
        st.text("0123456789abcdefABCDEF:.", max_size=45),
        st.text("0123:.", max_size=12),
        st.lists(st.integers(0, 999), min_size=3, max_size=5).map(
            lambda octets: ".".join(map(str, octets))
        ),
        st.tuples(addresses(), st.sampled_from(BROKEN)).map(lambda pair: pair[1](pair[0])),
    )


BROKEN = [
    lambda address: f" {address}",
    lambda address: f"{address} ",
    lambda address: f"{address}\n",
    lambda address: f"{address}/32",
    lambda address: f"{address}%eth0",
    lambda address: f"[{address}]",
    lambda address: f"0{address}" if "." in address and ":" not in address else f"0000{address}",
    lambda address: f"{address}:",
    lambda address: f"{address}.",
    lambda address: f":{address}",
    lambda address: f"{address}:0",
    lambda address: address.replace(address[-1], "\u0663"),  # a digit, in Arabic
    lambda address: address.replace("::", ":::"),
    lambda address: address[:-1],
]
"""Small changes of a text. After some of them, an address is still an address."""

UNUSABLE = {
    "0.0.0.0": "an unspecified address",
    "0.1.2.3": "an unspecified address",
    "127.0.0.1": "a loopback address",
    "169.254.0.1": "a link-local address",
    "224.0.0.1": "a multicast address",
    "239.255.255.255": "a multicast address",
    "240.0.0.1": "a reserved address",
    "255.255.255.255": "the broadcast address",
    "::": "an unspecified address",
    "0:0:0:0:0:0:0:0": "an unspecified address",
    "::1": "a loopback address",
    "::192.0.2.1": "an IPv4-compatible address",
    "0:0:0:0:0:0:c000:201": "an IPv4-compatible address",
    "fe80::1": "a link-local address",
    "FEBF::1": "a link-local address",
    "ff02::1": "a multicast address",
    "FF0E::101": "a multicast address",
    "::ffff:127.0.0.1": "a loopback address",
    "::FFFF:E000:1": "a multicast address",
}
"""Addresses that no proxy can have, each with its kind."""
