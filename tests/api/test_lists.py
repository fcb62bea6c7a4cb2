"""Lists: pages, filters, order, quantity, the whole list, and CSV."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from webtest import TestApp

from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from tests.api.couchdb import account_database, kazoo_document
from tests.api.own_application import OwnApplication, create_own_application
from tests.api.replies import invalid, page, streamed, success
from tests.openapi_check import CheckedApp

EAST = [
    "192.0.2.2", "192.0.2.10", "198.51.100.1", "203.0.113.9", "203.0.113.80", "2001:db8::2",
    "2001:db8::a", "2001:db8::10", "2001:db8::1:0",
]  # fmt: skip
WEST = ["192.0.2.1", "192.0.2.100", "2001:db8::1"]
ORDER = [("us-east", address) for address in EAST] + [("us-west", address) for address in WEST]
"""The order of every list: by zone, then by address as a number, IPv4 before IPv6."""
HOSTS = {address: f"proxy{n % 3}.example.com" for n, address in enumerate([*EAST, *WEST])}
BESIDE = [("us-east", "192.0.2.5", "proxy0.example.com"), ("us-west", "192.0.2.6",
          "proxy1.example.com")]  # fmt: skip
"""Lines that only the other lists have."""


@dataclass(frozen=True)
class List:
    """One of the lists, with the lines above."""

    api: TestApp
    path: str
    token: str
    more: dict[str, str]
    settings: Settings | None = None

    def get(self, params: Any = None, *, status: int = 200, **headers: str) -> Any:
        given = {"X-Auth-Token": self.token, **headers}
        return self.api.get(self.path, params or {}, headers=given, status=status)

    def lines(self, zone: str | None = None, host: str | None = None) -> list[dict[str, str]]:
        return [
            {"ip": address, "zone": where, "host": HOSTS[address], **self.more}
            for where, address in ORDER
            if zone in (None, where) and host in (None, HOSTS[address])
        ]

    def walk(self, **params: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the lines of each page, and its envelope."""
        start_key = None
        while True:
            start = {"start_key": start_key} if start_key else {}
            reply = self.get({**params, **start})
            members = dict(start)
            if "next_start_key" in reply.json:
                members["next_start_key"] = reply.json["next_start_key"]
            yield page(reply, self.token, **members), reply.json
            start_key = reply.json.get("next_start_key")
            if start_key is None:
                return


@pytest.fixture(scope="module", params=["available", "an account's", "all accounts'"])
def listing(request: Any, settings: Settings) -> Iterator[List]:
    """Each of the three lists, for reading only."""
    kind: str = request.param
    with create_own_application(settings) as made:
        alice = made.services.accounts.create("Alice", "alice.example.com")
        token = made.services.auth.open_session(alice).token
        owner = None if kind == "available" else alice.id
        others = None if kind == "all accounts'" else made.id
        made.databases.put(
            "dedicated_ips",
            *(kazoo_document(a, zone, HOSTS[a], owner) for zone, a in reversed(ORDER)),
            *(kazoo_document(a, zone, host, others) for zone, a, host in BESIDE),
        )
        path = f"/v2/accounts/{alice.id}/ips"
        if kind == "all accounts'":
            owned = {"assigned_to": alice.id, "account_name": "Alice"}
            yield List(made.api, "/v2/ips/assigned", made.token, owned, made.settings)
        else:
            yield List(made.api, path + ("/assigned" if owner else ""), token, {}, made.settings)


AVAILABLE = pytest.mark.parametrize("listing", ["available"], indirect=True)
ASSIGNED = pytest.mark.parametrize("listing", ["an account's", "all accounts'"], indirect=True)


# Order and filters


def test_a_list_is_sorted_by_zone_then_by_address_as_a_number(listing: List) -> None:
    reply = listing.get()
    assert page(reply, listing.token) == listing.lines()


@pytest.mark.parametrize("zone", ["us-east", "us-west"])
def test_a_list_is_filtered_by_zone(listing: List, zone: str) -> None:
    wanted = listing.lines(zone)
    assert wanted
    assert page(listing.get({"zone": zone}), listing.token) == wanted


BY_HOST = pytest.mark.parametrize(
    "filters",
    [
        {"host": "proxy0.example.com"}, {"host": "proxy1.example.com"},
        {"zone": "us-east", "host": "proxy1.example.com"},
        {"zone": "us-west", "host": "proxy2.example.com"},
    ],
)  # fmt: skip


@AVAILABLE
@BY_HOST
def test_the_available_list_is_filtered_by_host_too(
    listing: List, filters: dict[str, str]
) -> None:
    wanted = listing.lines(**filters)
    assert wanted
    assert page(listing.get(filters), listing.token) == wanted


@ASSIGNED
@BY_HOST
def test_the_assigned_list_is_filtered_by_host_too(listing: List, filters: dict[str, str]) -> None:
    assert page(listing.get(filters), listing.token) == listing.lines(**filters)


@pytest.mark.parametrize(
    "zone", ["nowhere", "undefined", "US-EAST", "us-east ", "us", "us-east\uffff", "{}", "null"]
)
def test_an_unused_zone_gives_an_empty_list(listing: List, zone: str) -> None:
    assert page(listing.get({"zone": zone}), listing.token) == []


@AVAILABLE
@pytest.mark.parametrize(
    "params",
    [
        {"host": "nobody.example.com"}, {"host": "undefined"},
        {"zone": "us-east", "host": "nobody.example.com"},
        {"zone": "nowhere", "host": "proxy1.example.com"},
        {"host": "PROXY1.example.com"}, {"host": "us-east"},
    ],
)  # fmt: skip
def test_an_unused_host_gives_an_empty_list(listing: List, params: dict[str, str]) -> None:
    assert page(listing.get(params), listing.token) == []


def test_an_empty_zone_or_host_filters_nothing(listing: List) -> None:
    for params in ({"zone": ""}, {"host": ""}, {"zone": "", "host": ""}):
        reply = listing.get(params)
        assert page(reply, listing.token) == listing.lines()


# Pages


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12, 13])
@pytest.mark.parametrize("filters", [{}, {"zone": "us-east"}])
def test_walking_the_pages_gives_each_line_once_in_order(
    listing: List, filters: dict[str, str], size: int
) -> None:
    walks_through(listing, filters, size)


@AVAILABLE
@pytest.mark.parametrize("size", [1, 3, 13])
@BY_HOST
def test_walking_the_pages_of_a_host_gives_each_line_once_in_order(
    listing: List, filters: dict[str, str], size: int
) -> None:
    walks_through(listing, filters, size)


def walks_through(listing: List, filters: dict[str, str], size: int) -> None:
    wanted = listing.lines(**filters)
    pages = [found for found, _ in listing.walk(page_size=size, **filters)]
    assert [line for found in pages for line in found] == wanted
    assert [len(found) for found in pages[:-1]] == [size] * (len(pages) - 1)
    assert len(pages) == max(1, -(-len(wanted) // size))


def test_a_page_has_50_lines_by_default(api: TestApp, load: Any, alice: Any) -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 61)]
    load(*map(kazoo_document, addresses))
    path = f"/v2/accounts/{alice.id}/ips"
    own = List(api, path, alice.token, {})
    (first, envelope), (second, _) = own.walk()
    assert [line["ip"] for line in first] == addresses[:50]
    assert [line["ip"] for line in second] == addresses[50:]
    assert envelope["page_size"] == 50
    assert "start_key" not in envelope
    reply = api.get(path, {"page_size": 60}, headers=alice.headers, status=200)
    assert len(page(reply, alice.token)) == 60


def test_an_address_deleted_between_two_pages_does_not_stop_the_walk(
    api: TestApp, load: Any, databases: Any, alice: Any
) -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 10)]
    load(*map(kazoo_document, addresses))
    walking = List(api, f"/v2/accounts/{alice.id}/ips", alice.token, {}).walk(page_size=4)
    found, _ = next(walking)
    deleted = databases.get("dedicated_ips", found[-1]["ip"])
    databases.put("dedicated_ips", {**deleted, "_deleted": True})
    found += [line for rest, _ in walking for line in rest]
    assert [line["ip"] for line in found] == addresses


BAD_KEYS = ["x", "!", "bnVsbA==", "W10=", "WzEsMiwzXQ==", "e30=", "é", "a" * 10_000, "",
            base64.urlsafe_b64encode(b"[" * 5000).decode(), "WyJhIiwiYiJd",
            base64.urlsafe_b64encode(rb'["a\ud800","4","x"]').decode(),
            base64.urlsafe_b64encode(rb'["a","4","\udfff"]').decode()]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: key[:12])
def test_a_malformed_start_key_is_400(listing: List, key: str) -> None:
    reply = listing.get({"start_key": key}, status=400)
    message = "Field is not in the correct format"
    assert invalid(reply, listing.token) == {
        "start_key": {"wrong_format": {"message": message, "value": key}}
    }


def forged(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


FORGED = [
    ("", "", ""), ("us-east", "4c0000205", "192.0.2.5"), ("\uffff", "", ""), ("zz", "6", "x"),
    ("us-east", "", "192.0.2.7"), ("us-west", "4", "192.0.2.6"), ("us-east", "6", ""),
    ("{}", "{}", "{}"), ("us-west", "6" + "f" * 32, "ffff::"),
]  # fmt: skip


@pytest.mark.parametrize("parts", FORGED)
@pytest.mark.parametrize("filters", [{}, {"zone": "us-east"}])
def test_a_forged_start_key_shows_nothing_outside_the_list(
    listing: List, filters: dict[str, str], parts: Any
) -> None:
    shows_only(listing, filters, parts)


@AVAILABLE
@pytest.mark.parametrize("parts", FORGED)
@BY_HOST
def test_a_forged_start_key_shows_nothing_of_another_host(
    listing: List, filters: dict[str, str], parts: Any
) -> None:
    shows_only(listing, filters, parts)


def shows_only(listing: List, filters: dict[str, str], parts: Any) -> None:
    start_key, wanted = forged(*parts), listing.lines(**filters)
    reply = listing.get({"start_key": start_key, **filters})
    found = page(reply, listing.token, start_key=start_key)
    assert found == wanted[len(wanted) - len(found) :]


@pytest.mark.parametrize(
    ("name", "value", "rule", "message"),
    [
        ("page_size", "0", "minimum", "Value must be at least 1"),
        ("page_size", "1001", "maximum", "Value must be at most 1000"),
        ("quantity", "0", "minimum", "Value must be at least 1"),
        *(
            (name, value, "type", "Value did not match type(s): integer")
            for name in ("page_size", "quantity")
            for value in ("x", "", "1.5", "1e3", "null", "0x1", "undefined")
        ),
        *(
            ("paginate", value, "type", "Value did not match type(s): boolean")
            for value in ("x", "", "2", "null")
        ),
    ],
)
def test_a_bad_number_or_flag_is_400(
    api: TestApp, pool: Any, alice: Any, name: str, value: str, rule: str, message: str
) -> None:  # fmt: skip
    for path in ("", "/assigned"):
        url = f"/v2/accounts/{alice.id}/ips{path}"
        reply = api.get(url, {name: value}, headers=alice.headers, status=400)
        errors = invalid(reply, alice.token)
        assert errors.keys() == {name}
        assert errors[name].keys() == {rule}
        assert errors[name][rule]["message"] == message


@pytest.mark.parametrize("name", ["page_size", "quantity"])
def test_a_number_below_one_is_400(api: TestApp, pool: Any, alice: Any, name: str) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    for value in ("0", "-1", "-1000"):
        reply = api.get(path, {name: value}, headers=alice.headers, status=400)
        assert invalid(reply, alice.token).keys() == {name}


def test_every_bad_parameter_is_reported(api: TestApp, pool: Any, alice: Any) -> None:
    params = {"page_size": "x", "quantity": "y", "start_key": "z", "paginate": "w"}
    path = f"/v2/accounts/{alice.id}/ips"
    reply = api.get(path, params, headers=alice.headers, status=400)
    assert invalid(reply, alice.token).keys() == params.keys()


# A quantity, and the whole list


@pytest.mark.parametrize("quantity", [1, 2, 11, 12, 13, 1000])
def test_quantity_returns_the_first_addresses_without_pages(listing: List, quantity: int) -> None:
    reply = listing.get({"quantity": quantity})
    assert success(reply, listing.token) == listing.lines()[:quantity]
    params = {"quantity": quantity, "zone": "us-west"}
    reply = listing.get(params)
    assert success(reply, listing.token) == listing.lines(zone="us-west")[:quantity]


@pytest.mark.parametrize("word", ["false", "no", "0", "False"])
def test_paginate_false_returns_the_whole_list(listing: List, word: str) -> None:
    reply = listing.get({"paginate": word})
    assert streamed(reply, listing.token) == listing.lines()
    reply = listing.get({"paginate": word, "zone": "nowhere"})
    assert streamed(reply, listing.token) == []


def test_paginate_true_changes_nothing(listing: List) -> None:
    reply = listing.get({"paginate": "true"})
    assert page(reply, listing.token) == listing.lines()


def test_thousands_are_listed_walked_assigned_and_released(own_app: OwnApplication) -> None:
    many = [f"198.18.{n >> 8}.{n & 255}" for n in range(1101)]
    own_app.databases.put("dedicated_ips", *map(kazoo_document, reversed(many)))
    api, path, headers = own_app.api, f"/v2/accounts/{own_app.id}/ips", own_app.headers
    own = List(api, path, own_app.token, {})

    assert [line["ip"] for line in streamed(own.get({"paginate": "false"}), own.token)] == many
    rows = csv.DictReader(io.StringIO(own.get(Accept="text/csv").text))
    assert [row["ip"] for row in rows] == many
    found = streamed(own.get({"quantity": 1050}), own.token)
    assert [line["ip"] for line in found] == many[:1050]
    pages = [found for found, _ in own.walk(page_size=1000)]
    assert [line["ip"] for found in pages for line in found] == many
    assert [len(found) for found in pages] == [1000, 101]

    requested = many[999::-1]
    reply = api.post_json(path, {"data": {"ips": requested}}, headers=headers, status=200)
    assert success(reply, own_app.token) == {"ips": requested}
    copies = own_app.databases(
        "POST", account_database(own_app.id), "/_all_docs", {"keys": requested}
    )
    assert all("error" not in row for row in copies["rows"])
    api.post_json(path, {"data": {"ips": many[1000:1101]}}, headers=headers, status=200)
    reply = api.delete(path, headers=headers, status=200)
    assert success(reply, own_app.token) == {"ips": many}
    reply = api.get(f"{path}/assigned", headers=headers, status=200)
    assert page(reply, own_app.token) == []


# Tables


def table(reply: Any) -> list[list[str]]:
    assert reply.headers["Content-Type"] == "text/csv"
    assert reply.headers["X-Request-ID"]
    assert reply.body.endswith(b"\r\n")
    return list(csv.reader(io.StringIO(reply.text, newline="")))


CSV = {"Accept": "text/csv"}


def test_a_list_can_be_csv_with_a_header(listing: List) -> None:
    for params, wanted in (
        ({}, listing.lines()),
        ({"zone": "us-west"}, listing.lines(zone="us-west")),
        ({"quantity": 2}, listing.lines()[:2]),
        ({"page_size": 3}, listing.lines()[:3]),
        ({"zone": "nowhere"}, []),
    ):
        reply = listing.get(params, **CSV)
        columns = ["ip", "zone", "host", *listing.more]
        assert table(reply) == [columns, *([line[c] for c in columns] for line in wanted)]


@pytest.mark.parametrize("kind", ["zone", "host"])
def test_names_can_be_csv_with_a_header(
    api: TestApp, load: Any, operator: Any, alice: Any, kind: str
) -> None:
    load(
        kazoo_document("192.0.2.1", 'a, "b"', "Zürich"),
        kazoo_document("192.0.2.2", "us-east", "proxy1.example.com"),
    )
    wanted = {"zone": ['a, "b"', "us-east"], "host": ["Zürich", "proxy1.example.com"]}[kind]
    for path, who in ((f"/v2/accounts/{alice.id}/ips", alice), ("/v2/ips", operator)):
        reply = api.get(f"{path}/{kind}s", headers={**who.headers, **CSV}, status=200)
        assert table(reply) == [[kind], *([name] for name in sorted(wanted))]


def test_an_empty_list_as_csv_is_its_header(api: TestApp, pool: Any, alice: Any) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    for rest, header in (("", "ip,zone,host"), ("/assigned", "ip,zone,host"), ("/zones", "zone")):
        reply = api.get(path + rest, headers={**alice.headers, **CSV}, status=200)
        assert reply.body == f"{header}\r\n".encode()


def test_an_error_is_json_even_if_csv_was_requested(
    api: TestApp, pool: Any, alice: Any, bob: Any
) -> None:
    path = f"/v2/accounts/{alice.id}/ips"
    for headers, status in (({}, 401), (bob.headers, 403)):
        reply = api.get(path, headers={**headers, **CSV}, status=status)
        assert reply.json["error"] == str(status)
    reply = api.get(path, {"page_size": 0}, headers={**alice.headers, **CSV}, status=400)
    assert invalid(reply, alice.token).keys() == {"page_size"}


def test_no_list_costs_more_than_one_request_for_its_rows(listing: List) -> None:
    sent: list[str] = []
    app = create_app(
        replace(listing.settings, identity_cache=4.0), trace=lambda method, url: sent.append(url)
    )
    traced = replace(listing, api=CheckedApp(app))
    traced.get()
    for params in ({}, {"zone": "us-east"}, {"host": "proxy0.example.com"}, {"page_size": 2}):
        sent.clear()
        traced.get(params)
        assert "/_design/ips/_view/" in sent[0]
        assert len(sent) == 1  # the names of the accounts are cached for a minute


@pytest.mark.parametrize("kind", ["zone", "host"])
def test_names_are_read_again_only_after_a_write(
    settings: Settings, pool: Any, add: Any, alice: Any, kind: str
) -> None:
    sent: list[str] = []
    app = create_app(
        replace(settings, identity_cache=4.0), trace=lambda method, url: sent.append(url)
    )
    api = CheckedApp(app)
    path, view = f"/v2/accounts/{alice.id}/ips/{kind}s", f"/_design/ips/_view/by_{kind}"

    def names() -> list[str]:
        found: list[str] = api.get(path, headers=alice.headers, status=200).json["data"]
        return found

    add("192.0.2.1", **{kind: "first"})
    assert names() == ["first"]
    sent.clear()
    assert names() == ["first"]
    assert [url.rpartition("/")[2] for url in sent] == [f"{settings.prefix}dedicated_ips"]
    add("192.0.2.2", **{kind: "second"})
    sent.clear()
    assert names() == ["first", "second"]
    assert any(view in url for url in sent)
