"""Addresses: every spelling has one canonical form, and all other texts are refused."""

import doctest
import ipaddress
import re
import socket
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kazoo_ips.model import addresses
from kazoo_ips.model.addresses import (
    MAX_BLOCK,
    canonical,
    likely_spellings,
    parse_block,
    sort_key,
    unusable,
)
from tests import strategies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        # RFC 5952, sections 1, 2 and 4.
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:0db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8::1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8::0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:0db8::1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:0:1::1", "2001:db8::1:0:0:1"),
        ("2001:db8:0000:0:1::1", "2001:db8::1:0:0:1"),
        ("2001:DB8:0:0:1::1", "2001:db8::1:0:0:1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:0001", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd::1", "2001:db8:aaaa:bbbb:cccc:dddd:0:1"),
        ("2001:db8:0:0:0::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
        ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:AaAa", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa"),
        # RFC 5952, section 5.
        ("2001:db8::192.0.2.1", "2001:db8::c000:201"),
        # RFC 4291, section 2.5.5.2: the same address as IPv4.
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("0000:0000:0000:0000:0000:ffff:c000:0201", "192.0.2.1"),
        ("::ffff:0:192.0.2.1", "::ffff:0:c000:201"),
        ("::", "::"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
    ],
)
def test_an_address_has_the_spelling_that_rfc_5952_recommends(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", ":", "1", "192.0.2", "192.0.2.1.1", "192.0.2.256", "192.0.2.-1", "192.0.2.",
        "192.0.2.01", "00.0.0.0", "192.0.2.0x1", "0300.0.2.1", "3221225985", "192.0.2.1e0",
        " 192.0.2.1", "192.0.2.1 ", "192.0.2.1\n", "192.0.2. 1", "\t::1", "::1\x00",
        "192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32", "fe80::1%eth0", "fe80::1%", "%",
        "[2001:db8::1]", "[192.0.2.1]", "192.0.2.1:5060", "[2001:db8::1]:5060", "2001:db8::1.",
        "192.0.2.\u0661", "\u0661\u0669\u0662.0.2.1", "2001:db8::\u0661", "2001:db8::\uff11",
        "192\u30020.2.1",
        ":::", "1::2::3", "12345::", "00001::", "2001:db8:0:0:0:0:0", "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::8", "::192.0.2.01", "::192.0.2", "192.0.2.1::", "g::",
        "2001:db8::-1", "+1::", "proxy1.example.com", "localhost",
    ],
)  # fmt: skip
def test_an_invalid_address_has_no_canonical_form(text: str) -> None:
    assert canonical(text) is None


@pytest.mark.parametrize("value", [None, True, 0, 3221225985, 1.5, b"192.0.2.1", ["::1"], {}])
def test_a_value_that_is_no_text_has_no_canonical_form(value: object) -> None:
    assert canonical(value) is None


@given(strategies.ipv6_numbers(), st.data())
def test_any_spelling_of_an_address_has_the_same_canonical_form(
    number: int, data: st.DataObject
) -> None:
    spellings = data.draw(
        st.lists(strategies.ipv6_spelling(number), min_size=2, max_size=5), label="spellings"
    )
    assert len({canonical(spelling) for spelling in spellings}) == 1


@given(strategies.addresses())
def test_the_canonical_form_is_its_own(spelling: str) -> None:
    once = canonical(spelling)
    assert once is not None
    assert canonical(once) == once


@given(strategies.ipv6_numbers())
def test_the_canonical_form_is_what_the_c_library_prints(number: int) -> None:
    # The C library prints the last part in the form of IPv4, as in RFC 2373.
    assume(number >> 32 not in {0, 0xFFFF})
    packed = number.to_bytes(16, "big")
    written = canonical(str(ipaddress.IPv6Address(number)))
    assert written == socket.inet_ntop(socket.AF_INET6, packed)


@given(strategies.addresses())
def test_the_canonical_form_is_the_same_address(spelling: str) -> None:
    address = ipaddress.ip_address(spelling)
    mapped = address.ipv4_mapped if address.version == 6 else None
    assert ipaddress.ip_address(canonical(spelling) or "") == (mapped or address)


@given(st.integers(0, 2**32 - 1), st.data())
def test_any_spelling_of_an_ipv4_mapped_address_is_the_ipv4_address(
    number: int, data: st.DataObject
) -> None:
    spelling = data.draw(strategies.ipv6_spelling(0xFFFF << 32 | number), label="spelling")
    assert canonical(spelling) == str(ipaddress.IPv4Address(number))


@given(strategies.addresses())
def test_a_likely_spelling_is_another_spelling_of_the_address(spelling: str) -> None:
    address = canonical(spelling) or ""
    likely = likely_spellings(address)
    assert {canonical(each) for each in likely} == {address}
    assert address not in likely


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    form = canonical(text)
    assert form is None or canonical(form) == form


@given(strategies.near_addresses())
def test_an_address_that_the_c_library_refuses_is_refused(text: str) -> None:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text)
        known = True
    except (OSError, ValueError):
        known = False
    assert (canonical(text) is not None) == known


@pytest.mark.parametrize(
    "damage",
    [
        lambda address: f" {address}",
        lambda address: f"{address} ",
        lambda address: f"{address}\n",
        lambda address: f"{address}/128",
        lambda address: f"{address}%eth0",
        lambda address: f"[{address}]",
        lambda address: f"{address}.",
    ],
)
@given(address=strategies.addresses())
def test_a_damaged_address_is_refused(damage: Callable[[str], str], address: str) -> None:
    assert canonical(damage(address)) is None


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4), st.integers(0, 3))
def test_a_leading_zero_is_refused(octets: list[int], place: int) -> None:
    words = [str(octet) for octet in octets]
    words[place] = f"0{words[place]}"
    assert canonical(".".join(words)) is None


@given(st.lists(strategies.addresses(), max_size=30))
def test_the_sort_key_orders_by_number_with_ipv4_first(spellings: list[str]) -> None:
    canonicals = [canonical(each) or "" for each in spellings]

    def number(address: str) -> tuple[int, int]:
        parsed = ipaddress.ip_address(address)
        return parsed.version, int(parsed)

    assert sorted(canonicals, key=sort_key) == sorted(canonicals, key=number)


@given(strategies.addresses(), strategies.addresses())
def test_two_addresses_have_one_sort_key_only_if_they_are_the_same(a: str, b: str) -> None:
    first, second = canonical(a) or "", canonical(b) or ""
    assert (sort_key(first) == sort_key(second)) == (first == second)


def test_the_sort_key_is_not_the_order_of_the_text() -> None:
    in_order = ["192.0.2.2", "192.0.2.10", "192.0.10.1", "2001:db8::2", "2001:db8::10"]
    assert sorted(in_order) != in_order
    assert sorted(sorted(in_order), key=sort_key) == in_order


def test_the_examples_in_the_docstring_hold() -> None:
    assert doctest.testmod(addresses).failed == 0


# Blocks and ranges


@pytest.mark.parametrize(
    ("text", "first", "last", "count"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7", 1),
        ("192.0.2.7/32", "192.0.2.7", "192.0.2.7", 1),
        ("192.0.2.0/28", "192.0.2.0", "192.0.2.15", 16),
        ("10.1.0.0/16", "10.1.0.0", "10.1.255.255", MAX_BLOCK),
        ("192.0.2.254-192.0.3.1", "192.0.2.254", "192.0.3.1", 4),
        ("192.0.2.1 - 192.0.2.1", "192.0.2.1", "192.0.2.1", 1),
        ("2001:DB8::/127", "2001:db8::", "2001:db8::1", 2),
        ("2001:db8::/112", "2001:db8::", "2001:db8::ffff", MAX_BLOCK),
        ("2001:db8::fffe-2001:db8:0::1:0", "2001:db8::fffe", "2001:db8::1:0", 3),
        ("::ffff:192.0.2.0/127", "192.0.2.0", "192.0.2.1", 2),
        ("::ffff:c000:0/112", "192.0.0.0", "192.0.255.255", MAX_BLOCK),
        ("::ffff:192.0.2.8-192.0.2.9", "192.0.2.8", "192.0.2.9", 2),
    ],
)
def test_a_block_is_all_its_addresses(text: str, first: str, last: str, count: int) -> None:
    block = parse_block(text)
    spelled = [address for _, address in block]
    assert (spelled[0], spelled[-1]) == (first, last)
    assert len(block) == len(set(spelled)) == count
    assert all(canonical(address) == address for address in spelled)
    keys = [sort_key(address) for address in spelled]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not an address"),
        ("192.0.2.01", "'192.0.2.01' is not an address"),
        ("fe80::1%eth0", "'fe80::1%eth0' is not an address"),
        ("192.0.2.1/28", "192.0.2.1 is inside the block, which is 192.0.2.0/28"),
        ("192.0.2.0/33", "/33 is not a prefix length of IPv4"),
        ("192.0.2.0/", "/ is not a prefix length of IPv4"),
        ("192.0.2.0/\u0662\u0668", "/\u0662\u0668 is not a prefix length of IPv4"),
        ("192.0.2.0/255.255.255.0", "/255.255.255.0 is not a prefix length of IPv4"),
        ("2001:db8::/129", "/129 is not a prefix length of IPv6"),
        ("::ffff:192.0.2.0/24", "/24 is not a prefix length of IPv4"),
        ("::ffff:192.0.2.0/129", "/129 is not a prefix length of IPv4"),
        ("::/95", "more than 65536 addresses"),
        ("10.0.0.0/15", "more than 65536 addresses"),
        ("2001:db8::/64", "more than 65536 addresses"),
        ("::/0", "more than 65536 addresses"),
        ("192.0.2.9-192.0.2.1", "the range ends before it starts"),
        ("192.0.2.1-2001:db8::1", "a range cannot mix IPv4 and IPv6"),
        ("192.0.2.1-9", "'9' is not an address"),
    ],
)
def test_an_invalid_block_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        parse_block(text)


# Addresses that no proxy can have


@pytest.mark.parametrize(("text", "what"), strategies.UNUSABLE.items())
def test_an_unusable_address_is_reported_with_its_kind(text: str, what: str) -> None:
    assert unusable(text) == f"it is {what}"
    assert parse_block(text).unusable == f"it is {what}"


@pytest.mark.parametrize(
    "text",
    [
        "1.0.0.0", "10.0.0.1", "100.64.0.1", "126.255.255.255", "128.0.0.0", "169.253.255.255",
        "169.255.0.0", "172.16.0.1", "192.0.2.1", "192.168.0.1", "223.255.255.255", "::1:0:0",
        "2001:db8::1", "fd00::1", "fec0::1", "feff::1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1",
        "fe00::1", "nonsense", "",
    ],
)  # fmt: skip
def test_any_other_address_is_usable(text: str) -> None:
    assert unusable(text) is None


@given(st.integers(0, 2**32 - 1))
def test_a_usable_ipv4_address_is_in_no_unusable_network(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    cannot = (
        number >> 24 == 0, address.is_loopback, address.is_link_local, address.is_multicast,
        address.is_reserved,
    )  # fmt: skip
    assert (unusable(str(address)) is not None) == any(cannot)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("126.255.255.254-127.0.0.1", "a loopback address"),
        ("223.255.255.0-224.0.1.0", "a multicast address"),
        ("169.254.0.0/16", "a link-local address"),
        ("255.255.255.254/31", "the broadcast address"),
        ("::/112", "an unspecified address"),
        ("ff02::/112", "a multicast address"),
        ("::ffff:127.0.0.0/120", "a loopback address"),
    ],
)
def test_a_block_with_an_unusable_address_is_reported(text: str, what: str) -> None:
    assert parse_block(text).unusable == f"it contains {what}"
