"""The client's address behind proxies."""

from ipaddress import ip_network

import pytest

from kazoo_ips.api.client_address import find
from kazoo_ips.config import BadSetting, Settings

TRUSTED = [ip_network(each) for each in ("127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:1::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),  # not a trusted proxy: its header is ignored
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("127.0.0.1", "203.0.113.7, 198.51.100.9", "198.51.100.9"),  # the first is forged
        ("127.0.0.1", "203.0.113.7,198.51.100.9,10.1.2.3", "198.51.100.9"),  # two trusted proxies
        ("127.0.0.1", "10.0.0.7,10.1.2.3", "10.0.0.7"),  # a client in the trusted network
        ("127.0.0.1", "198.51.100.9, unknown", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.9, ", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.9:4711", "198.51.100.9"),
        ("::1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("2001:db8:1::5", "2001:db8::9", "2001:db8::9"),
        ("::ffff:127.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("::ffff:192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("", "198.51.100.9", "198.51.100.9"),  # a local socket
        ("", "", ""),
        ("127.0.0.1", ",".join(["10.0.0.1"] * 5000), "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_trusted_proxy(
    peer: str, forwarded: str, client: str
) -> None:
    assert find(peer, forwarded, TRUSTED) == client


@pytest.mark.parametrize("bad", ["localhost", "10.0.0.1/8", "*", "127.0.0.1; ::1"])
def test_an_invalid_trusted_proxy_stops_the_start(bad: str) -> None:
    with pytest.raises(BadSetting, match="KAZOO_IPS_TRUSTED_PROXIES"):
        Settings.load({"KAZOO_IPS_TRUSTED_PROXIES": bad})
