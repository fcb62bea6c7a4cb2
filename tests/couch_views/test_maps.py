"""Each map function in Node: its form, and the rows that it emits."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips.couch import design_docs
from kazoo_ips.model import addresses
from kazoo_ips.model.history import NOBODY, Author, HistoryEvent, Source, State
from kazoo_ips.repositories.history_documents import from_view, to_document
from tests import strategies

TREE = Path(__file__).parents[2] / "couch_views"
MAPS = sorted(TREE.glob("*/views/*/map.js"))
POOL_MAPS = sorted(TREE.glob("ips/views/*/map.js"))
INCLUDED = sorted(TREE.glob("lib/*.js"))
"""Code that maps include by a line `// !code lib/….js`."""
REDUCES = sorted(TREE.glob("*/views/*/reduce*"))
ES6 = re.compile(
    r"=>|`|\.\.\.[\w$[({]|\?\.|\?\?|\*\*|\b(let|const|class|async|await|yield|import|export)\b"
    r"|\bfor\s*\([^;)]*\bof\b"
)

RunMap = Callable[[Path, list[dict[str, Any]]], list[list[tuple[Any, Any]]]]


def name(path: Path) -> str:
    """`design document/view` of a file in the tree."""
    return f"{path.parts[-4]}/{path.parts[-2]}"


def view(path: str) -> Path:
    """The map of `design document/view`."""
    design, view_name = path.split("/")
    return TREE / design / "views" / view_name / "map.js"


def document(**changes: Any) -> dict[str, Any]:
    """Return a dedicated IP's document with other fields; None removes a field."""
    fields = {
        "_id": "192.0.2.1",
        "_rev": "1-a",
        "pvt_vsn": "1",
        "pvt_type": "dedicated_ip",
        "pvt_status": "available",
        "pvt_zone": "us-east",
        "pvt_host": "proxy1.example.com",
        "pvt_created": 1,
        "pvt_modified": 1,
        **changes,
    }
    return {k: v for k, v in fields.items() if v is not None}


AVAILABLE = document()
ASSIGNED = document(pvt_status="assigned", pvt_assigned_to="alice")
KEY = "4c0000201"


# Form.


@pytest.mark.parametrize("path", MAPS, ids=name)
def test_a_map_starts_with_a_comment_that_says_key_and_value(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.fullmatch(r"// \S.*: \[.+\] -> .+", first)


@pytest.mark.parametrize("path", MAPS, ids=name)
def test_a_map_is_one_parenthesised_function_expression(path: Path) -> None:
    code = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE).strip()
    assert code.startswith("(function (doc) {")
    assert code.endswith("});")


@pytest.mark.parametrize("path", [*MAPS, *INCLUDED], ids=str)
def test_a_map_is_ecmascript_5(path: Path) -> None:
    assert not ES6.search(re.sub(r"//.*$", "", path.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(
    "line", ["var f = (x) => x;", "let x;", "`x`", "f(...x);", "a?.b;", "for (var x of y) {}"]
)
def test_newer_syntax_than_ecmascript_5_is_noticed(line: str) -> None:
    assert ES6.search(line)


@pytest.mark.parametrize("path", REDUCES, ids=name)
def test_a_reduce_is_one_of_couchdb_itself(path: Path) -> None:
    assert path.name == "reduce"
    assert path.read_text().strip() in ("_count", "_sum", "_stats")


def test_couch_views_has_no_other_files() -> None:
    files = {path for path in TREE.rglob("*") if path.is_file()}
    validations = {TREE / name / "validate_doc_update.js" for name in ("append_only", "guard")}
    assert files == {*MAPS, *REDUCES, *TREE.glob("*/language"), *validations, *INCLUDED}


@pytest.mark.parametrize("path", INCLUDED, ids=lambda path: path.name)
def test_included_code_is_in_a_map_function_unchanged(path: Path) -> None:
    line = f"// !code {path.relative_to(TREE).as_posix()}\n"
    users = [each for each in MAPS if line in each.read_text()]
    assert users
    for each in users:
        source = design_docs.load(each.parts[-4])["views"][each.parts[-2]]["map"]
        assert path.read_text() in source
        assert "!code" not in source


@pytest.mark.parametrize("path", MAPS, ids=name)
def test_a_map_runs_on_any_document(path: Path, run_map: RunMap) -> None:
    odd: list[dict[str, Any]] = [
        {"_id": "x"},
        {"_id": "x", "pvt_type": None},
        {"_id": "_design/x", "views": {}},
        {"_id": "192.0.2.1", "pvt_type": "dedicated_ip"},
        {"_id": "x", "pvt_type": "account"},
    ]
    run_map(path, odd)


# The pool's maps.


@pytest.mark.parametrize("path", POOL_MAPS, ids=name)
@pytest.mark.parametrize(
    "other",
    [
        document(pvt_type="account", _id="192.0.2.1"),
        document(pvt_type=None),
        document(pvt_deleted=True),
        document(pvt_deleted=True, pvt_status="assigned", pvt_assigned_to="alice"),
        document(_id="not-an-address"),
    ],
)
def test_other_documents_have_no_row(path: Path, other: dict[str, Any], run_map: RunMap) -> None:
    assert run_map(path, [other]) == [[]]


def test_by_zone_has_every_address_by_status_zone_and_number(run_map: RunMap) -> None:
    assert run_map(view("ips/by_zone"), [AVAILABLE, ASSIGNED]) == [
        [(["available", "us-east", KEY], ["proxy1.example.com"])],
        [(["assigned", "us-east", KEY], ["proxy1.example.com", "alice"])],
    ]


def test_by_host_has_every_address_by_host_status_zone_and_number(run_map: RunMap) -> None:
    assert run_map(view("ips/by_host"), [AVAILABLE, ASSIGNED]) == [
        [(["proxy1.example.com", "available", "us-east", KEY], None)],
        [(["proxy1.example.com", "assigned", "us-east", KEY], "alice")],
    ]


def test_available_by_host_has_the_hosts_of_a_zone_in_the_order_of_a_number(
    run_map: RunMap,
) -> None:
    hosts = [f"proxy{n:04}.example.com" for n in range(2000)]
    made = [document(pvt_host=host) for host in hosts]
    rows = run_map(view("ips/available_by_host"), [ASSIGNED, *made])
    assert rows[0] == []
    numbers = []
    for [(key, value)], host in zip(rows[1:], hosts, strict=True):
        assert (key[0], key[2:], value) == ("us-east", [host, KEY], None)
        numbers.append(key[1])
    # A random number finds each host about equally often: hosts with similar names have distant
    # keys.
    assert all(0 <= number < 65_536 for number in numbers)
    tenths = Counter(number * 10 // 65_536 for number in numbers)
    assert all(140 <= tenths[n] <= 260 for n in range(10))
    assert len(set(numbers)) > 1800


def test_by_expiry_has_what_rests_and_what_is_reserved_by_the_end_of_it(run_map: RunMap) -> None:
    place = ["us-east", "proxy1.example.com"]
    resting = document(pvt_status="aging", pvt_available_at=70, pvt_reserved_until=9)
    reserved = document(pvt_status="reserved", pvt_available_at=9, pvt_reserved_until=80)
    broken = document(pvt_status="aging", pvt_available_at="soon")
    assert run_map(view("ips/by_expiry"), [AVAILABLE, ASSIGNED, resting, reserved, broken]) == [
        [],
        [],
        *(
            [
                ([status, "all", at], place),
                ([status, "zone", "us-east", at], place),
                ([status, "host", "proxy1.example.com", at], place),
            ]
            for status, at in (("aging", 70), ("reserved", 80), ("aging", 0))
        ),
    ]


def test_by_assignee_has_only_assigned_addresses(run_map: RunMap) -> None:
    stray = document(pvt_assigned_to="alice")
    unowned = document(pvt_status="assigned")
    assert run_map(view("ips/by_assignee"), [AVAILABLE, stray, unowned, ASSIGNED]) == [
        [],
        [],
        [],
        [(["alice", "us-east", KEY], "proxy1.example.com")],
    ]


def test_by_address_or_time_has_every_address_by_both(run_map: RunMap) -> None:
    place = ["us-east", "proxy1.example.com"]
    odd = document(pvt_modified="yesterday")
    assert run_map(view("ips/by_address_or_time"), [AVAILABLE, ASSIGNED, odd]) == [
        [
            (["address", KEY], ["available", *place, None, 1]),
            (["modified", 1], ["available", *place, None, 1]),
        ],
        [
            (["address", KEY], ["assigned", *place, "alice", 1]),
            (["modified", 1], ["assigned", *place, "alice", 1]),
        ],
        [
            (["address", KEY], ["available", *place, None, 0]),
            (["modified", 0], ["available", *place, None, 0]),
        ],
    ]


def test_by_label_has_a_row_for_each_label(run_map: RunMap) -> None:
    labels = {"carrier": "a:b", "odd": 7, "team": "voice"}
    odd = [document(labels=labels) for labels in ([], "x", 7, None, {})]
    made = [document(labels=labels), {**ASSIGNED, "labels": {"a": "1"}}, *odd]
    place = "proxy1.example.com"
    assert run_map(view("ips/by_label"), made) == [
        [
            (["carrier:a:b", "us-east", KEY], ["available", place, None]),
            (["team:voice", "us-east", KEY], ["available", place, None]),
        ],
        [(["a:1", "us-east", KEY], ["assigned", place, "alice"])],
        *([[]] * 5),
    ]


@pytest.mark.parametrize("path", POOL_MAPS, ids=name)
def test_an_available_address_has_no_owner_even_if_one_is_left_over(
    path: Path, run_map: RunMap
) -> None:
    assert "alice" not in str(run_map(path, [document(pvt_assigned_to="alice")]))


@pytest.mark.parametrize("field", ["pvt_zone", "pvt_host"])
def test_an_address_without_zone_or_host_is_still_in_the_pool(field: str, run_map: RunMap) -> None:
    for path in ("ips/by_zone", "ips/by_host"):
        assert len(run_map(view(path), [document(**{field: None})])[0]) == 1


@pytest.mark.parametrize("path", MAPS, ids=name)
def test_the_sort_key_is_the_same_function_everywhere(path: Path) -> None:
    text = path.read_text()
    assert "function sortKey" not in text
    assert ("sortKey(" in text) == ("// !code lib/sort_key.js\n" in text)


def sort_keys(run_map: RunMap, ids: list[str]) -> list[str | None]:
    """The sort key that the view computes for each id; None if it emits no row."""
    rows = run_map(view("ips/by_zone"), [document(_id=each) for each in ids])
    return [emitted[0][0][-1] if emitted else None for emitted in rows]


@given(st.lists(strategies.addresses(), min_size=1, max_size=40))
def test_the_sort_key_is_the_same_for_any_spelling(run_map: RunMap, spellings: list[str]) -> None:
    expected = [addresses.sort_key(addresses.canonical(each) or "") for each in spellings]
    assert sort_keys(run_map, spellings) == expected


@given(st.lists(strategies.near_addresses(), min_size=1, max_size=60))
def test_an_id_has_a_sort_key_exactly_if_it_is_an_address(run_map: RunMap, ids: list[str]) -> None:
    canonical = [addresses.canonical(each) for each in ids]
    assert sort_keys(run_map, ids) == [each and addresses.sort_key(each) for each in canonical]


@pytest.mark.parametrize(
    "junk",
    [
        "", ":", ":::", "1", "1:2", "dead:beef", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::8", "1::2::3", "12345::", "::256.0.0.1", "::1.2.3", "1.2.3.4::",
        "::01.2.3.4",
        "192.0.2", "192.0.2.256", "192.0.2.01", "192.0.2.1.", "192.0.2.1/32", "fe80::1%eth0",
        "[::1]", " ::1", "::1 ", "192.0.2.1\n", "::1\n", "proxy1.example.com", "1.2.3.4:5060",
    ],
)  # fmt: skip
def test_an_id_that_is_no_address_has_no_row(junk: str, run_map: RunMap) -> None:
    for path in POOL_MAPS:
        owned = document(_id=junk, pvt_status="assigned", pvt_assigned_to="alice")
        assert run_map(path, [document(_id=junk), owned]) == [[], []]


# The logins' map.


def test_by_login_finds_an_account_by_name_realm_and_api_key(run_map: RunMap) -> None:
    account = {
        "_id": "a",
        "pvt_type": "account",
        "name": "Acme, Inc. 1",
        "realm": "Acme.Example.com",
        "pvt_api_key": "Key",
    }
    assert run_map(view("logins/by_login"), [account]) == [
        [
            (["name", "acmeinc1"], None),
            (["realm", "acme.example.com"], None),
            (["api_key", "Key"], None),
        ]
    ]


@pytest.mark.parametrize(
    "other", [{"pvt_type": "user"}, {"pvt_type": "account", "pvt_deleted": True}, {}]
)
def test_by_login_has_no_row_for_other_documents(other: dict[str, Any], run_map: RunMap) -> None:
    assert run_map(view("logins/by_login"), [{"_id": "a", "name": "a", **other}]) == [[]]


# The map of the account tree.


def test_by_ancestor_has_an_account_below_each_of_its_ancestors(run_map: RunMap) -> None:
    account = {"_id": "c", "pvt_type": "account", "name": "Child", "pvt_tree": ["a", "b"]}
    assert run_map(view("account_tree/by_ancestor"), [account]) == [
        [(["a", "c"], "Child"), (["b", "c"], "Child")]
    ]


@pytest.mark.parametrize(
    "other",
    [{"pvt_type": "user"}, {"pvt_deleted": True}, {"pvt_tree": "a"}, {"pvt_tree": []}],
)
def test_by_ancestor_has_no_row_for_other_documents(
    other: dict[str, Any], run_map: RunMap
) -> None:
    account = {"_id": "c", "pvt_type": "account", "pvt_tree": ["a"], **other}
    assert run_map(view("account_tree/by_ancestor"), [account]) == [[]]


# The maps of the history.

STATES = [
    {"status": "available", "account_id": None, "zone": "us-east", "host": "proxy1"},
    {"status": "assigned", "account_id": "alice", "zone": "us-west", "host": "proxy1"},
]


def event(**changes: Any) -> dict[str, Any]:
    """Return the document of an event with other fields."""
    fields = {
        "_id": f"{KEY}-1", "_rev": "1-a", "id": "1", "ip": "192.0.2.1", "event": "assigned",
        "at": 63_963_000_000, "account_id": "alice", "before": STATES[0], "after": STATES[1],
        "by": {}, "request_id": None, "source": "service", "certain": True, "revision": "12-b",
    }  # fmt: skip
    return {**fields, **changes}


EVENT_KEY = [63_963_000_000, 12, f"{KEY}-1"]


DAY = 63_963_000_000 // 86_400


def test_by_day_has_the_change_of_each_zone_and_status(run_map: RunMap) -> None:
    same = {**STATES[0], "host": "proxy2"}
    assert run_map(
        view("history/by_day"),
        [
            event(),
            event(event="created", before=None, after=STATES[0]),
            event(event="deleted", before=STATES[1], after=None),
            event(event="changed", before=STATES[0], after=same),
            event(event="unknown", before=None, after=None),
        ],
    ) == [
        [
            (["status", "us-east", DAY, "available"], -1),
            (["status", "us-west", DAY, "assigned"], 1),
            (["event", "us-west", DAY, "assigned"], 1),
        ],
        [
            (["status", "us-east", DAY, "available"], 1),
            (["event", "us-east", DAY, "created"], 1),
        ],
        [
            (["status", "us-west", DAY, "assigned"], -1),
            (["event", "us-west", DAY, "deleted"], 1),
        ],
        [(["event", "us-east", DAY, "changed"], 1)],
        [],
    ]


def test_by_address_has_every_event_by_address_and_time(run_map: RunMap) -> None:
    made = event()
    unknown = event(revision=None, before=None, after=None, account_id=None)
    rows = run_map(view("history/by_address"), [made, unknown])
    assert [[key for key, _ in emitted] for emitted in rows] == [
        [[KEY, *EVENT_KEY]],
        [[KEY, EVENT_KEY[0], 0, EVENT_KEY[2]]],
    ]


@pytest.mark.parametrize("name_", ["by_address", "by_account"])
def test_the_value_of_an_event_has_all_that_its_document_has(name_: str, run_map: RunMap) -> None:
    full = HistoryEvent(
        "1", "192.0.2.1", "assigned", EVENT_KEY[0], "alice", State(**STATES[0]),
        State(**STATES[1]), Author("alice", "user", "command", "root"), "request", Source.KAZOO,
        False, "12-b", reason="reason",
    )  # fmt: skip
    # Only an event of a zone has a level, and it has no address.
    assert [n for n, value in asdict(full).items() if value is None] == ["retracts", "level"]
    bare = HistoryEvent(
        "1", "192.0.2.1", "unknown", EVENT_KEY[0], "alice", None, None, NOBODY, None
    )
    for each in (full, bare):
        [[(_, value)]] = run_map(view(f"history/{name_}"), [to_document(each)])
        assert from_view(value) == each


def test_by_account_has_an_event_for_the_account_before_and_after(run_map: RunMap) -> None:
    moved = event(before={**STATES[1], "account_id": "bob"})
    unowned = event(account_id=None, after=STATES[0])
    rows = run_map(view("history/by_account"), [event(), moved, unowned])
    keys = [[key for key, _ in emitted] for emitted in rows]
    assert keys == [[["alice", *EVENT_KEY]], [["alice", *EVENT_KEY], ["bob", *EVENT_KEY]], []]


def test_by_zone_has_an_event_for_all_zones_and_for_those_before_and_after(
    run_map: RunMap,
) -> None:
    rows = run_map(view("history/by_zone"), [event(), event(before=None, after=STATES[1])])
    keys = [[key for key, _ in emitted] for emitted in rows]
    assert keys == [
        [[None, *EVENT_KEY], ["us-east", *EVENT_KEY], ["us-west", *EVENT_KEY]],
        [[None, *EVENT_KEY], ["us-west", *EVENT_KEY]],
    ]


def test_an_event_that_takes_another_back_is_in_one_view(run_map: RunMap) -> None:
    retraction = event(event="retracted", retracts="0")
    for name_ in ("by_address", "by_account", "by_zone", "by_day"):
        assert run_map(view(f"history/{name_}"), [retraction]) == [[]]
    assert run_map(view("history/by_retraction"), [event(), retraction]) == [
        [],
        [([EVENT_KEY[0], EVENT_KEY[2]], ["192.0.2.1", "0"])],
    ]
