"""Summaries of the pool and of accounts, and the addresses of an account with those below it."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from kazoo_ips.api.fields import start_key
from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from kazoo_ips.services.pool import tree_lists
from tests.api.couchdb import kazoo_document
from tests.api.own_application import OwnApplication, create_own_application
from tests.api.replies import broken, invalid, streamed
from tests.openapi_check import CheckedApp

ZONES = ["us-east", "us-west", "eu-central"]
HOSTS = [f"proxy{n}.example.com" for n in range(9)]
NAMES = ["Alice", "Alice's child", "Alice's grandchild", "Alice's other child", "Bob"]


@dataclass
class World:
    """A pool with addresses of several accounts, in every status."""

    made: OwnApplication
    ids: dict[str, str] = field(default_factory=dict)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        accounts = self.made.services.accounts
        parents = [None, "Alice", "Alice's child", "Alice", None]
        for number, (name, parent) in enumerate(zip(NAMES, parents, strict=True)):
            above = self.ids[parent] if parent else None
            self.ids[name] = accounts.create(name, f"a{number}.example.com", above).id
        mix = Random(7)
        owners = [*self.ids.values(), "f" * 32]
        for number in range(120):
            status = mix.choice(["available", "assigned", "assigned", "quarantined"])
            owner = mix.choice(owners) if status == "assigned" else None
            self.documents.append(
                kazoo_document(
                    f"192.0.2.{number}", mix.choice(ZONES), mix.choice(HOSTS), owner,
                    pvt_status=status,
                )
            )  # fmt: skip
        self.made.databases.put("dedicated_ips", *self.documents)

    def counts(self, **wanted: str) -> dict[str, int]:
        """The number of addresses of each status whose documents have these fields."""
        return dict(
            Counter(
                d["pvt_status"]
                for d in self.documents
                if all(d.get(f"pvt_{name}") == value for name, value in wanted.items())
            )
        )

    def get(self, path: str, caller: str | None = None, **query: str) -> Any:
        """Send a request of the operator, or of an account by its name."""
        token = self.made.token
        if caller:
            account = self.made.services.accounts.fetch(self.ids[caller])
            token = self.made.services.auth.open_session(account).token
        return self.made.api.get(path, query, headers={"X-Auth-Token": token}, status="*")

    def pages(self, get: Callable[..., Any]) -> list[Any]:
        """The lines of all pages of a list."""
        lines, start = [], {}
        while True:
            reply = get(**start)
            assert reply.status_int == 200
            lines += reply.json["data"]
            if "next_start_key" not in reply.json:
                return lines
            start = {"start_key": reply.json["next_start_key"]}


@pytest.fixture(scope="module")
def world(settings: Settings) -> Iterator[World]:
    """The pool, for reading only."""
    with create_own_application(settings) as made:
        yield World(made)


def summary(counts: dict[str, int], **more: Any) -> dict[str, Any]:
    """Return the summary that is expected for these counts."""
    total = sum(counts.values())
    used = round(counts.get("assigned", 0) / total, 4)
    return {**more, "total": total, "counts": counts, "used": used}


def without_forecast(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without the members that do not follow from the counts."""
    return {k: v for k, v in line.items() if k not in ("low", "exhausts_at")}


def test_the_summary_of_the_pool_counts_every_status(world: World) -> None:
    data = world.get("/v2/ips/summary").json["data"]
    assert without_forecast(data) == summary(world.counts())
    assert data["counts"].keys() == {"available", "assigned", "quarantined"}


def test_the_statuses_have_a_line_each(world: World) -> None:
    data = world.get("/v2/ips/summary", by="status").json["data"]
    assert {line["status"]: line["total"] for line in data} == world.counts()
    assert [line["status"] for line in data] == ["available", "assigned", "quarantined"]


@pytest.mark.parametrize("size", [1, 2, 50])
def test_zones_and_hosts_have_a_line_each_on_pages(world: World, size: int) -> None:
    for by, names in (("zone", ZONES), ("host", HOSTS)):
        lines = world.pages(
            lambda by=by, **start: world.get(
                "/v2/ips/summary", by=by, page_size=str(size), **start
            )
        )
        assert [without_forecast(line) for line in lines] == [
            summary(world.counts(**{by: name}), **{by: name}) for name in sorted(names)
        ]


def test_the_hosts_of_one_zone(world: World) -> None:
    lines = world.get("/v2/ips/summary", by="host", zone="us-east").json["data"]
    expected = {host: world.counts(host=host, zone="us-east") for host in HOSTS}
    assert {line["host"]: line["counts"] for line in lines} == {
        host: counts for host, counts in expected.items() if counts
    }


def test_one_zone_by_itself_and_its_statuses(world: World) -> None:
    counts = world.counts(zone="us-west")
    data = world.get("/v2/ips/summary", zone="us-west").json["data"]
    assert without_forecast(data) == summary(counts)
    lines = world.get("/v2/ips/summary", zone="us-west", by="status").json["data"]
    assert {line["status"]: line["total"] for line in lines} == counts
    (line,) = world.get("/v2/ips/summary", zone="us-west", by="zone").json["data"]
    assert without_forecast(line) == summary(counts, zone="us-west")
    nobody = world.get("/v2/ips/summary", zone="nowhere").json["data"]
    assert (nobody["total"], nobody["used"]) == (0, 0)
    assert world.get("/v2/ips/summary", zone="nowhere", by="zone").json["data"] == []


@pytest.mark.parametrize("size", [2, 50])
def test_accounts_have_a_line_each_with_their_names(world: World, size: int) -> None:
    lines = world.pages(
        lambda **start: world.get("/v2/ips/summary", by="account", page_size=str(size), **start)
    )
    names = {account_id: name for name, account_id in world.ids.items()}
    owners = sorted({d["pvt_assigned_to"] for d in world.documents if "pvt_assigned_to" in d})
    assert lines == [
        {
            "account_id": owner,
            **({"account_name": names[owner]} if owner in names else {}),
            "total": world.counts(assigned_to=owner)["assigned"],
            "counts": world.counts(assigned_to=owner),
        }
        for owner in owners
    ]


def test_a_whole_list_is_streamed(world: World) -> None:
    reply = world.get("/v2/ips/summary", by="host", paginate="false")
    lines = streamed(reply, world.made.token)
    assert [line["host"] for line in lines] == HOSTS


def test_a_summary_as_csv_has_a_column_for_each_status(world: World) -> None:
    reply = world.made.api.get(
        "/v2/ips/summary?by=zone",
        headers={**world.made.headers, "Accept": "text/csv"},
        status=200,
    )
    lines = list(csv.DictReader(io.StringIO(reply.text)))
    assert [line["zone"] for line in lines] == sorted(ZONES)
    for line in lines:
        counts = world.counts(zone=line["zone"])
        assert {status: int(line[status]) for status in counts} == counts


def test_the_zone_of_accounts_is_refused(world: World) -> None:
    reply = world.get("/v2/ips/summary", by="account", zone="us-east")
    text = "only one of zone and by=account"
    assert invalid(reply, world.made.token) == broken("zone", "forbidden", text)


@pytest.mark.parametrize("key", ["x", start_key(("a", "b")), start_key((1,)), "WyJcdWQ4MDAiXQ=="])
def test_an_invalid_start_key_is_refused(world: World, key: str) -> None:
    reply = world.get("/v2/ips/summary", by="host", start_key=key)
    assert invalid(reply, world.made.token)["start_key"].keys() == {"wrong_format"}


# Of an account.


def below(world: World, name: str) -> list[str]:
    """The ids of an account and those below it, in the order of lists."""
    trees = {
        "Alice": ["Alice's child", "Alice's grandchild", "Alice's other child"],
        "Alice's child": ["Alice's grandchild"],
        "Bob": [],
    }
    return [world.ids[name], *sorted(world.ids[each] for each in trees[name])]


@pytest.mark.parametrize("name", ["Alice", "Alice's child", "Bob"])
@pytest.mark.parametrize("size", [1, 2, 50])
def test_an_account_sees_itself_and_the_accounts_below_it(
    world: World, name: str, size: int
) -> None:
    path = f"/v2/accounts/{world.ids[name]}/ips/summary"
    lines = world.pages(lambda **start: world.get(path, name, page_size=str(size), **start))
    assert [line["account_id"] for line in lines] == below(world, name)
    for line in lines:
        assert line["counts"] == world.counts(assigned_to=line["account_id"])
        assert world.ids[line["account_name"]] == line["account_id"]


@pytest.fixture(params=[500, 1], ids=["long pages", "an account a page"])
def tree(world: World, request: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(tree_lists, "_MOST_ACCOUNTS", request.param)
    return world


def lines_of(world: World, owners: list[str], **wanted: str) -> list[tuple[str, str]]:
    """The addresses of accounts, in the order of the list."""
    return [
        (owner, document["_id"])
        for owner in owners
        for document in sorted(
            world.documents, key=lambda d: (d["pvt_zone"], int(d["_id"].rpartition(".")[2]))
        )
        if document.get("pvt_assigned_to") == owner
        and all(document[f"pvt_{name}"] == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("filters", [{}, {"zone": "us-east"}, {"host": "proxy1.example.com"}])
def test_the_list_with_descendants_has_every_address_once(
    tree: World, size: int, filters: dict[str, str]
) -> None:
    path = f"/v2/accounts/{tree.ids['Alice']}/ips/assigned"
    query = {"descendants": "true", "page_size": str(size), **filters}
    found = tree.pages(lambda **start: tree.get(path, "Alice", **query, **start))
    expected = lines_of(tree, below(tree, "Alice"), **filters)
    assert [(line["assigned_to"], line["ip"]) for line in found] == expected
    assert {line["account_name"] for line in found} <= set(NAMES) - {"Bob"}


def test_the_list_with_descendants_is_streamed_and_limited(world: World) -> None:
    path = f"/v2/accounts/{world.ids['Alice']}/ips/assigned"
    expected = [ip for _, ip in lines_of(world, below(world, "Alice"))]
    whole = world.get(path, "Alice", descendants="true", paginate="false").json["data"]
    assert [line["ip"] for line in whole] == expected
    first = world.get(path, "Alice", descendants="true", quantity="7").json["data"]
    assert [line["ip"] for line in first] == expected[:7]


def test_without_descendants_the_list_has_the_account_only(world: World) -> None:
    path = f"/v2/accounts/{world.ids['Alice']}/ips/assigned"
    for query in ({}, {"descendants": "false"}):
        lines = world.get(path, "Alice", page_size="1000", **query).json["data"]
        expected = [ip for _, ip in lines_of(world, [world.ids["Alice"]])]
        assert [line["ip"] for line in lines] == expected
        assert all("assigned_to" not in line for line in lines)


def test_a_start_key_with_a_foreign_account_shows_nothing_of_it(world: World) -> None:
    path = f"/v2/accounts/{world.ids['Alice']}/ips/assigned"
    for stranger in (world.ids["Bob"], "f" * 32, "nonsense"):
        key = start_key(("", "", "0", stranger))
        lines = world.pages(
            lambda start_key=key: world.get(path, "Alice", descendants="true", start_key=start_key)
        )
        assert stranger not in {line["assigned_to"] for line in lines}


def test_a_start_key_with_an_account_needs_descendants(world: World) -> None:
    path = f"/v2/accounts/{world.ids['Alice']}/ips/assigned"
    reply = world.get(path, "Alice", start_key=start_key(("", "", "", world.ids["Alice"])))
    assert reply.status_int == 400
    assert reply.json["data"]["start_key"].keys() == {"wrong_format"}


# Costs


def test_the_number_of_requests_to_the_database_does_not_depend_on_the_addresses(
    world: World,
) -> None:
    sent: list[str] = []
    own = replace(world.made.settings, identity_cache=4)
    api = CheckedApp(create_app(own, trace=lambda _method, url: sent.append(url)))
    for by in ("", "?by=zone", "?by=status", "?by=host", "?by=account"):
        api.get(f"/v2/ips/summary{by}", headers=world.made.headers)
        sent.clear()
        api.get(f"/v2/ips/summary{by}", headers=world.made.headers)
        views = [url for url in sent if "/_view/by_" in url and "/history/" not in url]
        assert len(views) == 1, sent
        assert "reduce=false" not in views[0]
        assert "group_level" in views[0]
