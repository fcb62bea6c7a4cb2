"""Design documents in the database: installed once, replaced without a gap, and only our own.

Tests that need a certain order of requests hold a request just before it is sent.
"""

import ast
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, ListIPs, Outcome
from kazoo_ips.model.timelines import ListEvents

ROOT = Path(__file__).parents[2]
VIEWS = {
    f"{path.parts[-4]}/{path.parts[-2]}" for path in ROOT.glob("couch_views/*/views/*/map.js")
}
KAZOO_VIEWS = {"maintenance/listing_by_type", "users/creds_by_md5", "users/creds_by_sha"}
"""Views of Kazoo's own design documents in the accounts' databases, which the service reads."""
KAZOO_DESIGN_DOC = {
    "_id": "_design/dedicated_ips",
    "language": "javascript",
    "kazoo": {"view_map": [{"database": "dedicated_ips"}]},
    "views": {
        "zone_listing": {
            "map": "function(doc) { if (doc.pvt_type != 'dedicated_ip' || doc.pvt_deleted) return;"
            " emit(doc.pvt_zone, null); }",
            "reduce": "function(key, value) { return true; }",
        }
    },
}
OLD = "(function (doc) { if (doc.pvt_zone) emit(['old', doc.pvt_zone, doc._id], []); });"

Trace = Callable[[str, str], None]
Connect = Callable[..., Database]


@pytest.fixture
def own_couch(settings: Settings) -> Settings:
    """Settings with databases of this test's own, below the run's prefix."""
    return replace(settings, prefix=f"{settings.prefix}{uuid4().hex[:8]}-")


@pytest.fixture
def connect(own_couch: Settings) -> Iterator[Connect]:
    """A function that connects to an empty database of this test's own."""

    def to(trace: Trace | None = None) -> Database:
        return composition.connect(own_couch.as_administrator(), trace).database("dedicated_ips")

    to().create()
    yield to
    to().delete()


@pytest.mark.parametrize(
    ("greeting", "has_it"),
    [
        ({"couchdb": "Welcome", "version": "3.4.0"}, True),
        ({"couchdb": "Welcome", "version": "3.10.1-dirty"}, True),
        ({"couchdb": "Welcome", "version": "4.0"}, True),
        ({"couchdb": "Welcome", "version": "3.3.3"}, False),
        ({"couchdb": "Welcome"}, False),
        ({"express-pouchdb": "Welcome!", "version": "4.2.0"}, False),
    ],
)
def test_which_server_has_quickjs(greeting: dict[str, str], has_it: bool) -> None:
    assert design_docs.has_quickjs(greeting) is has_it


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("name", ["append_only", "guard", "ips", "history", "account_tree"])
def test_functions_run_in_quickjs_where_the_server_has_it(
    connect: Connect, name: str, is_new: bool
) -> None:
    database = connect()
    has_it = design_docs.has_quickjs(database.greeting())
    if not is_new:  # an earlier release has written it
        database.put(design_docs.load(name))
        assert design_docs.is_current(database, name)
    assert design_docs.deploy(database, name) is (is_new or has_it)
    written = database.get(f"_design/{name}")["language"]
    assert written == ("javascript_quickjs" if has_it else "javascript")
    assert design_docs.is_current(database, name)
    assert not design_docs.deploy(database, name)


def fill(database: Database, count: int = 20) -> None:
    documents = [
        {
            "_id": f"192.0.2.{n}",
            "pvt_type": "dedicated_ip",
            "pvt_status": "available",
            "pvt_zone": "us-east",
            "pvt_host": "proxy1.example.com",
        }
        for n in range(count)
    ]
    database.put_all(documents)


def put_old(database: Database) -> None:
    """Write the design document of an older release, and return it."""
    wanted = design_docs.load("ips")
    old = {**wanted["views"], "by_zone": {"map": OLD, "reduce": "_count"}}
    database.put({**wanted, "views": old})
    database.rows("ips/by_zone", limit=1, reduce=False)


# The views, and the repositories that read them


def views_named_in_repositories() -> set[str]:
    """Every string in the repositories that names a view, with its design document or without."""
    texts = {
        node.value
        for path in (ROOT / "kazoo_ips" / "repositories").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {text for text in texts if re.fullmatch(r"([a-z_]+/)[a-z_]+|by_[a-z_]+", text)}


def test_every_view_is_used_by_a_repository() -> None:
    named = views_named_in_repositories()
    assert {view for view in VIEWS if not {view, view.split("/")[1]} & named} == set()


def test_no_repository_names_a_view_that_does_not_exist() -> None:
    known = VIEWS | {view.split("/")[1] for view in VIEWS} | KAZOO_VIEWS
    assert views_named_in_repositories() - known == set()


def test_every_list_reads_only_views_of_the_tree(
    settings: Settings, operator: Any, alice: Any, add: Callable[..., Any]
) -> None:
    add()
    read: set[str] = set()

    def note(method: str, url: str) -> None:
        found = re.search(r"/_design/([^/]+)/_view/([^/?]+)", url)
        if found:
            read.add("/".join(found.groups()))

    services = composition.build(settings, trace=note)
    services.lists.zones()
    services.lists.hosts()
    list(services.lists.summary())
    services.lists.available(ListIPs())
    services.lists.available(ListIPs(host="proxy1.example.com"))
    services.lists.assigned(ListIPs())
    services.lists.assigned(ListIPs(), alice.id)
    services.lists.pool(ListIPs(modified_from=1))
    services.lists.pool(ListIPs(label="a:1"))
    services.accounts.list()
    services.usage.series("us-east")
    services.accounts.below(alice.id, None, 1)
    services.bulk_additions.respelled()
    services.history.events(ListEvents())
    services.history.events(ListEvents(account_id=alice.id))
    services.history.of_address(ListEvents(address="192.0.2.1"))
    with pytest.raises(InsufficientIPs):
        services.allocation.allocate(AllocateIPs(alice.id, 2), "request")
    distinct = AllocateIPs(alice.id, 2, "us-east", distinct_hosts=True)
    with pytest.raises(InsufficientIPs):
        services.allocation.allocate(distinct, "request")
    # The service reads this view only if there are events.
    assert read | {"history/by_retraction"} == VIEWS


# Installing


def test_the_deployed_design_document_equals_the_files(connect: Connect) -> None:
    database = connect()
    assert design_docs.deploy(database, "ips")
    assert design_docs.is_current(database, "ips")
    views = database.get("_design/ips")["views"]
    assert {f"ips/{name}" for name in views} == {v for v in VIEWS if v.startswith("ips/")}


def test_a_second_deployment_writes_nothing(own_couch: Settings, connect: Connect) -> None:
    design_docs.deploy(connect(), "ips")
    before = connect().info()["update_seq"]
    sent: list[str] = []
    assert not design_docs.deploy(connect(lambda method, url: sent.append(method)), "ips")
    assert sent == ["GET", "GET"]  # the server's welcome message, and the document
    assert connect().info()["update_seq"] == before


def test_creating_the_databases_again_changes_nothing(settings: Settings) -> None:
    assert composition.databases(settings).create() == []


def test_a_changed_design_document_is_indexed_before_it_is_replaced(
    connect: Connect,
) -> None:
    fill(connect())
    put_old(connect())
    sent: list[tuple[str, str]] = []
    assert design_docs.deploy(connect(lambda m, url: sent.append((m, url))), "ips")

    def at(method: str, path: str) -> int:
        return next(
            i
            for i, (m, url) in enumerate(sent)
            if m == method and url.split("?")[0].endswith(path)
        )

    build = next(i for i, (_, url) in enumerate(sent) if "/_design/ips-new/_view/" in url)
    assert at("PUT", "/_design/ips-new") < build < at("PUT", "/_design/ips")
    assert build < at("DELETE", "/_design/ips-new")
    assert connect().find("_design/ips-new") is None
    assert design_docs.is_current(connect(), "ips")


def test_readers_do_not_wait_while_a_design_document_is_deployed(connect: Connect) -> None:
    fill(connect())
    put_old(connect())
    done = Event()

    def read() -> set[tuple[str, int]]:
        seen = set()
        while True:
            last = done.is_set()
            rows = connect().rows("ips/by_zone", reduce=False)
            seen.add((rows[0].key[0], len(rows)))
            if last:
                return seen

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            design_docs.deploy(connect(), "ips")
        finally:
            done.set()
        seen = {answer for reader in readers for answer in reader.result()}
    assert seen <= {("old", 20), ("available", 20)}
    assert ("available", 20) in seen


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(False, id="new"),
        pytest.param(True, id="changed"),
    ],
)
def test_two_concurrent_deployments_succeed(changed: bool, connect: Connect) -> None:
    fill(connect())
    if changed:
        put_old(connect())
    start = Barrier(2)

    def deploy() -> bool:
        start.wait(10)
        return design_docs.deploy(connect(), "ips")

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(deploy) for _ in range(2)]
        assert any([future.result() for future in futures])
    assert design_docs.is_current(connect(), "ips")
    assert connect().find("_design/ips-new") is None


def test_a_deployment_succeeds_if_another_one_finishes_meanwhile(connect: Connect) -> None:
    fill(connect())
    put_old(connect())
    held: list[str] = []

    def let_the_other_finish(method: str, url: str) -> None:
        if "/_design/ips-new/_view/" in url and not held:
            held.append(url)
            assert design_docs.deploy(connect(), "ips")

    design_docs.deploy(connect(let_the_other_finish), "ips")
    assert held
    assert design_docs.is_current(connect(), "ips")
    assert connect().find("_design/ips-new") is None


def test_the_rest_of_an_interrupted_deployment_is_removed(connect: Connect) -> None:
    put_old(connect())
    connect().put({"_id": "_design/ips-new", "views": {"by_zone": {"map": OLD}}})
    assert design_docs.deploy(connect(), "ips")
    assert design_docs.is_current(connect(), "ips")
    assert connect().find("_design/ips-new") is None


def test_kazoos_design_document_is_never_changed(own_couch: Settings) -> None:
    databases = composition.databases(own_couch)
    databases.create()
    pool = composition.connect(own_couch.as_administrator()).database("dedicated_ips")
    try:
        assert pool.put(KAZOO_DESIGN_DOC).outcome is Outcome.DONE
        before = pool.get("_design/dedicated_ips")
        fill(pool, 2)
        ours = pool.get("_design/ips")
        pool.put({**ours, "views": {"by_zone": {"map": OLD}}})
        assert databases.create() == ["dedicated_ips/_design/ips"]
        assert pool.get("_design/dedicated_ips") == before
        rows = pool.rows("dedicated_ips/zone_listing", group=True)
        assert [(row.key, row.value) for row in rows] == [("us-east", True)]
    finally:
        databases.delete()
