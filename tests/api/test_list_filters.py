"""The filters of lists: all combinations, on pages, as a stream and as CSV, and their cost."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kazoo_ips.api import queries, schemas
from kazoo_ips.api.fields import start_key
from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories import filtered_lists
from tests.api.couchdb import kazoo_document
from tests.api.own_application import OwnApplication, create_own_application
from tests.api.replies import invalid, streamed, success
from tests.openapi_check import CheckedApp

ZONES = ["us-east", "us-west", "eu-central"]
HOSTS = ["proxy1.example.com", "proxy2.example.com"]
ADDRESSES = [f"192.0.2.{n}" for n in range(1, 17)] + [f"2001:db8::{n:x}" for n in range(1, 9)]
STATUSES = ["available", "assigned", "assigned", "quarantined"]
NETWORKS = ["192.0.2.0/28", "192.0.2.7", "192.0.2.0/24", "2001:db8::/124", "::/0", "10.0.0.0/8"]
START = 63_900_000_000
"""The time of the first change, in Gregorian seconds."""


class Pool:
    """A pool in which no two addresses have the same zone, host, status, account and time."""

    def __init__(self, made: OwnApplication) -> None:
        self.made = made
        self.alice = made.services.accounts.create("Alice", "alice.example.com").id
        self.token = made.services.auth.open_session(
            made.services.accounts.fetch(self.alice)
        ).token
        self.gone = "f" * 32
        """An account that does not exist."""
        mix = Random(5)
        self.documents = [self._document(address, mix) for address in ADDRESSES]
        made.databases.put("dedicated_ips", *reversed(self.documents))

    def _document(self, address: str, mix: Random) -> dict[str, Any]:
        status = mix.choice(STATUSES)
        owner = mix.choice([self.alice, self.alice, self.gone]) if status == "assigned" else None
        fields = {"pvt_status": status, "pvt_modified": START + mix.randrange(40)}
        return kazoo_document(address, mix.choice(ZONES), mix.choice(HOSTS), owner, **fields)

    def expected(self, **filters: str) -> list[dict[str, Any]]:
        """The documents that match the filters, in the order of lists."""
        found = [doc for doc in self.documents if all(fits(doc, *f) for f in filters.items())]
        return sorted(found, key=lambda d: (d["pvt_zone"], number(d["_id"])))

    def line(self, document: dict[str, Any], *, detailed: bool) -> dict[str, str]:
        """The line of a document."""
        line = {
            "ip": document["_id"], "zone": document["pvt_zone"], "host": document["pvt_host"],
        }  # fmt: skip
        if not detailed:
            return line
        line["status"] = document["pvt_status"]
        owner = document.get("pvt_assigned_to")
        return (
            line
            | ({"assigned_to": owner} if owner else {})
            | ({"account_name": "Alice"} if owner == self.alice else {})
        )


def number(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def fits(document: dict[str, Any], name: str, value: str) -> bool:
    """Whether a document matches a filter."""
    address = ip_address(document["_id"])
    if name == "cidr":
        return address in ip_network(value)
    if name == "family":
        return address.version == int(value)
    if name == "modified_from":
        return bool(document["pvt_modified"] >= int(value))
    if name == "status" and value == "all":
        return True
    field = {"account_id": "pvt_assigned_to"}.get(name, f"pvt_{name}")
    return bool(document.get(field) == value)


@pytest.fixture(scope="module")
def filled(settings: Settings) -> Iterator[Pool]:
    """The pool, for reading only."""
    with create_own_application(settings) as made:
        yield Pool(made)


@pytest.fixture(params=["few", "walk", "short pages"])
def pool_(filled: Pool, request: Any, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """The pool, once for each way in which lists read it. Some ways are only for larger pools."""
    if request.param != "few":
        monkeypatch.setattr(filtered_lists, "_FEW", 2)
        monkeypatch.setattr(filtered_lists, "_CHUNK", 3)
    if request.param == "short pages":
        monkeypatch.setattr(filtered_lists, "_MOST_ROWS", 4)
        monkeypatch.setattr(filtered_lists, "_MOST_RANGES", 2)
    return filled


def get(pool: Pool, path: str, query: dict[str, str], **headers: str) -> Any:
    token = pool.made.token if path.startswith("/v2/ips") else pool.token
    return pool.made.api.get(path, query, headers={"X-Auth-Token": token, **headers}, status=200)


def pages(pool: Pool, path: str, query: dict[str, str]) -> list[list[dict[str, str]]]:
    """The lines of each page."""
    found, start = [], {}
    while True:
        body = get(pool, path, {**query, **start}).json
        found.append(body["data"])
        assert body["page_size"] == len(body["data"]) <= int(query.get("page_size", 50))
        if "next_start_key" not in body:
            return found
        start = {"start_key": body["next_start_key"]}


def listed(pool: Pool, query: dict[str, str], size: int) -> list[list[str]]:
    """The addresses of each page, from the service that the route calls."""
    loaded = queries.load_list(schemas.load_query([queries.PoolSchema()], query.items()))
    found, after = [], None
    while True:
        part = pool.made.services.lists.pool(replace(loaded, limit=size, after=after))
        found.append([line.address for line in part.items])
        assert len(found) < 500, "the pages do not end"
        assert len(part.items) <= size
        after = part.after
        if after is None:
            return found


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "zone": st.sampled_from([*ZONES, "nowhere"]),
        "host": st.sampled_from(HOSTS),
        "cidr": st.sampled_from(NETWORKS),
        "family": st.sampled_from(["4", "6"]),
        "modified_from": st.integers(START - 1, START + 41).map(str),
        "status": st.sampled_from(["all", "available", "assigned", "quarantined", "retired"]),
        "account_id": st.sampled_from(["alice", "gone"]),
    },
)


@given(query=FILTERS, size=st.sampled_from([1, 4, 50]))
@settings(max_examples=60, suppress_health_check=["function_scoped_fixture"])
def test_any_combination_of_filters_gives_exactly_the_lines_that_fit(
    pool_: Pool, query: dict[str, str], size: int
) -> None:
    if "account_id" in query:
        query["account_id"] = {"alice": pool_.alice, "gone": pool_.gone}[query["account_id"]]
    implied = {"status": "assigned" if "account_id" in query else "available"}
    expected = [document["_id"] for document in pool_.expected(**{**implied, **query})]
    found = listed(pool_, query, size)
    assert [address for each in found for address in each] == expected


CASES = [
    {"status": "all"},
    {"status": "assigned", "zone": "us-west"},
    {"account_id": "alice", "host": HOSTS[0]},
    {"status": "all", "host": HOSTS[1], "family": "4"},
    {"cidr": "192.0.2.0/28"},
    {"status": "all", "modified_from": str(START + 20), "cidr": "2001:db8::/124"},
]


@pytest.mark.parametrize("case", CASES, ids="&".join)
def test_a_filtered_list_is_paged_and_streamed_and_cut(pool_: Pool, case: dict[str, str]) -> None:
    query = {k: v.replace("alice", pool_.alice) for k, v in case.items()}
    implied = {"status": "assigned" if "account_id" in query else "available"}
    effective = {**implied, **query}
    detailed = effective["status"] != "available"
    fitting = pool_.expected(**effective)
    expected = [pool_.line(document, detailed=detailed) for document in fitting]
    assert expected
    found = pages(pool_, "/v2/ips", {**query, "page_size": "7"})
    assert [line for each in found for line in each] == expected
    reply = get(pool_, "/v2/ips", {**query, "paginate": "false"})
    assert streamed(reply, pool_.made.token) == expected
    reply = get(pool_, "/v2/ips", {**query, "quantity": "3"})
    assert success(reply, pool_.made.token) == expected[:3]


def test_the_other_lists_take_filters_too(pool_: Pool) -> None:
    own = f"/v2/accounts/{pool_.alice}/ips"
    for path, status, more in (
        (own, "available", {}),
        (f"{own}/assigned", "assigned", {"account_id": pool_.alice}),
        ("/v2/ips/assigned", "assigned", {}),
    ):
        for query in (
            {"family": "4"}, {"cidr": "192.0.2.0/27", "zone": "us-west"}, {"status": status},
            {"modified_from": str(START + 11), "host": HOSTS[0]},
        ):  # fmt: skip
            found = pages(pool_, path, {**query, "page_size": "5"})
            expected = pool_.expected(**{**query, "status": status, **more})
            assert [line["ip"] for each in found for line in each] == [d["_id"] for d in expected]
            assert expected


def test_pages_are_full_although_only_some_addresses_fit(filled: Pool) -> None:
    query = {"status": "all", "modified_from": str(START + 20), "page_size": "4"}
    sizes = [len(each) for each in pages(filled, "/v2/ips", query)]
    assert sizes[:-1] == [4] * (len(sizes) - 1)
    assert len(sizes) > 2


def test_csv_has_the_columns_of_the_query(filled: Pool) -> None:
    for query, columns in (
        ({"cidr": "192.0.2.0/28"}, "ip,zone,host"),
        ({"status": "all", "family": "6"}, "ip,zone,host,status,assigned_to,account_name"),
        ({"account_id": filled.gone}, "ip,zone,host,status,assigned_to,account_name"),
    ):
        text = get(filled, "/v2/ips", query, Accept="text/csv").text
        effective = {"status": "assigned" if "account_id" in query else "available", **query}
        detailed = effective["status"] != "available"
        assert text.splitlines()[0] == columns
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(io.StringIO(text))]
        expected = filled.expected(**effective)
        assert rows == [filled.line(document, detailed=detailed) for document in expected]
        assert rows


def test_crossbars_filters_mean_the_same(filled: Pool) -> None:
    for theirs, ours, value in (
        ("filter_zone", "zone", "us-west"),
        ("filter_host", "host", HOSTS[0]),
        ("filter_status", "status", "quarantined"),
        ("filter_assigned_to", "account_id", filled.alice),
    ):
        more = {} if ours == "status" else {"status": "all"}
        found = get(filled, "/v2/ips", {theirs: value, **more}).json["data"]
        assert found == get(filled, "/v2/ips", {ours: value, **more}).json["data"] != []
        assert get(filled, "/v2/ips", {theirs: value, ours: value, **more}).json["data"] == found
        both = {theirs: value, ours: "another", **more}
        assert get(filled, "/v2/ips", both).json["data"] == []
    own = f"/v2/accounts/{filled.alice}/ips"
    zone = {"filter_zone": "us-west"}
    assert {each["zone"] for each in get(filled, own, zone).json["data"]} == {"us-west"}


@pytest.mark.parametrize(
    "name", ["filter_not_zone", "filter_pvt_zone", "has_key", "key_missing", "created_from"]
)
def test_other_filters_of_crossbar_are_refused_by_name(filled: Pool, name: str) -> None:
    reply = filled.made.api.get("/v2/ips", {name: "1"}, headers=filled.made.headers, status=400)
    assert invalid(reply, filled.made.token).keys() == {name}


def test_a_time_can_be_iso_8601(filled: Pool) -> None:
    moment = datetime.fromtimestamp(START + 20 - GREGORIAN_EPOCH, UTC)
    wanted = [d["_id"] for d in filled.expected(modified_from=str(START + 20))]
    east = moment.isoformat().replace("+00:00", "")
    for text in (moment.isoformat(), east, f"{east}Z"):
        found = get(filled, "/v2/ips", {"status": "all", "modified_from": text}).json["data"]
        assert [line["ip"] for line in found] == wanted
    late = {"status": "all", "modified_from": f"{east}.5Z"}
    later = [d["_id"] for d in filled.expected(modified_from=str(START + 21))]
    assert [line["ip"] for line in get(filled, "/v2/ips", late).json["data"]] == later


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("cidr", ["", "x", "192.0.2.0/33", "192.0.2.1/24", "192.0.2.1-192.0.2.9", "::1%eth0"],
         "not_one_schema_valid"),
        ("family", ["", "5", "04", "IPv4"], "enum"),
        ("modified_from", ["", "x", "-1", "1e9", "2026-13-01", "yesterday", "2026-11-01T25:00"],
         "wrong_format"),
    ],
)  # fmt: skip
def test_a_value_that_is_invalid_is_refused(
    filled: Pool, name: str, values: list[str], rule: str
) -> None:
    for value in values:
        reply = filled.made.api.get(
            "/v2/ips", {name: value}, headers=filled.made.headers, status=400
        )
        errors = invalid(reply, filled.made.token)
        assert errors.keys() == {name}
        assert errors[name].keys() == {rule}


def test_an_account_sees_the_statuses_of_its_lists_only(filled: Pool) -> None:
    own = f"/v2/accounts/{filled.alice}/ips"
    for path, name, value in (
        (own, "status", "all"), (own, "status", "assigned"), (own, "account_id", filled.gone),
        (f"{own}/assigned", "status", "available"), (f"{own}/assigned", "account_id", "x"),
    ):  # fmt: skip
        headers = {"X-Auth-Token": filled.token}
        reply = filled.made.api.get(path, {name: value}, headers=headers, status=400)
        assert invalid(reply, filled.token).keys() == {name}


def test_a_forged_start_key_shows_nothing_that_does_not_fit(pool_: Pool) -> None:
    query = {"status": "all", "cidr": "192.0.2.0/28"}
    fitting = [d["_id"] for d in pool_.expected(**query)]
    for zone in ("", "us-west", "\uffff"):
        for key in ("", "4c0000205", "4c0000210", "g"):
            for more in ({}, {"zone": "us-west"}, {"zone": "us-west", "status": "available"}):
                forged = {"start_key": start_key((zone, key, "192.0.2.5"))}
                found = get(pool_, "/v2/ips", {**query, **more, **forged}).json["data"]
                assert {line["ip"] for line in found} <= set(fitting)


# Costs


@pytest.fixture(scope="module")
def large(settings: Settings) -> Iterator[OwnApplication]:
    """A pool of 3,000 addresses in 3 zones. Every hundredth was changed late."""
    with create_own_application(settings) as made:
        for start in range(0, 3000, 1000):
            made.databases.put(
                "dedicated_ips",
                *(
                    kazoo_document(
                        f"10.0.{n >> 8}.{n & 255}",
                        ZONES[n % 3],
                        f"proxy{n % 30}.example.com",
                        "a" * 32 if n % 2 else None,
                        pvt_modified=START + (n % 100 == 0),
                    )
                    for n in range(start, start + 1000)
                ),
            )
        made.databases("GET", "dedicated_ips", "/_design/ips/_view/by_zone?limit=1&reduce=false")
        yield made


@pytest.mark.parametrize(
    ("query", "requests", "rows"),
    [
        ({"status": "all"}, 5, 108),
        ({"status": "all", "zone": "us-west"}, 5, 108),
        ({"status": "assigned"}, 2, 52),
        ({"account_id": "a" * 32, "zone": "us-west"}, 2, 52),
        ({"host": "proxy7.example.com", "status": "all"}, 3, 52),
        ({"account_id": "a" * 32, "host": "proxy7.example.com"}, 4, 1102),
        ({"cidr": "10.0.3.0/28", "status": "all"}, 3, 17),
        ({"cidr": "10.0.0.0/8", "zone": "us-west"}, 1, 52),
        ({"family": "4"}, 3, 56),
        ({"family": "6"}, 2, 0),
        ({"modified_from": str(START + 1), "status": "all"}, 2, 31),
        ({"modified_from": str(START)}, 5, 56),
        ({"modified_from": str(START + 1), "cidr": "10.0.0.0/8", "status": "all"}, 3, 32),
    ],
    ids=lambda value: "&".join(value) if isinstance(value, dict) else "",
)
def test_a_page_costs_a_few_requests_and_rows(
    large: OwnApplication,
    monkeypatch: pytest.MonkeyPatch,
    query: dict[str, str],
    requests: int,
    rows: int,
) -> None:
    sent: list[str] = []
    read: list[int] = []
    original = Database.rows

    def counted(database: Database, view: str, **params: Any) -> Any:
        found = original(database, view, **params)
        read.append(len(found))
        return found

    app = create_app(
        replace(large.settings, identity_cache=600), trace=lambda method, url: sent.append(url)
    )
    api = CheckedApp(app)
    api.get("/v2/about", headers=large.headers, status=200)  # fills the cache of callers
    monkeypatch.setattr(Database, "rows", counted)
    start: dict[str, str] = {}
    for _ in range(2):
        sent.clear()
        read.clear()
        body = api.get("/v2/ips", {**query, **start}, headers=large.headers, status=200).json
        assert len(sent) <= requests
        assert sum(read) <= rows
        if "next_start_key" not in body:
            return
        assert len(body["data"]) == 50
        start = {"start_key": body["next_start_key"]}
