"""Which addresses a webhook may reach."""

import pytest

from kazoo_ips.model.webhooks import uri_problem
from kazoo_ips.outbound.destinations import Destinations

PUBLIC = ["93.184.216.34", "1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "2a00:1450::1",
          "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"]  # fmt: skip
REFUSED = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1",
    "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "192.0.0.1",
    "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1",
    "203.0.113.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::1", "2001:0:5ef5:79fb::1", "2001:db8::1",
    "3fff::1", "100::1", "5f00::1", "", "localhost", "1.2.3", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address: str) -> None:
    assert Destinations().permit(address)


@pytest.mark.parametrize("address", REFUSED)
def test_any_other_address_is_not(address: str) -> None:
    assert not Destinations().permit(address)


def test_a_network_of_the_setting_is_permitted_and_no_other() -> None:
    destinations = Destinations.parse("10.1.0.0/16, fd00:1::/32 127.0.0.1")
    assert all(map(destinations.permit, ["10.1.2.3", "fd00:1::5", "127.0.0.1", "8.8.8.8"]))
    assert not any(map(destinations.permit, ["10.2.0.1", "fd00:2::1", "127.0.0.2", "::1"]))


def test_a_permitted_network_holds_for_other_forms_of_its_addresses() -> None:
    destinations = Destinations.parse("10.1.0.0/16")
    assert destinations.permit("::ffff:10.1.2.3")
    assert destinations.permit("64:ff9b::a01:203")
    assert not destinations.permit("64:ff9b::a02:203")


@pytest.mark.parametrize(
    "uri",
    ["https://example.com", "http://example.com:8080/a?b=c", "HTTPS://EXAMPLE.com/",
     "https://[2606:4700::1111]/x", "https://8.8.8.8/", "https://xn--bcher-kva.example/"],
)  # fmt: skip
def test_a_uri_of_a_web_server_is_accepted(uri: str) -> None:
    assert uri_problem(uri) is None


@pytest.mark.parametrize(
    "uri",
    ["", "example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/",
     "https://user:password@example.com/", "https://@example.com/", "https:///path",
     "https://example.com:0/", "https://example.com:70000/", "https://example.com:x/",
     "https://example.com/#part", "https://exa mple.com/", "https://example.com/\r\nHost: a",
     "https://bücher.example/", "https://example.com\\@127.0.0.1/", "https://[fe80::1%25eth0]/",
     "https://[::1", "//example.com/"],
)  # fmt: skip
def test_any_other_uri_is_refused(uri: str) -> None:
    assert uri_problem(uri)
