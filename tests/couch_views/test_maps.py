"""Each map function in Node: its form, and the rows that it emits."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips.model import addresses
from tests import strategies

TREE = Path(__file__).parents[2] / "couch_views"
MAPS = sorted(TREE.glob("*/views/*/map.js"))
POOL_MAPS = sorted(TREE.glob("ips/views/*/map.js"))
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


@pytest.mark.parametrize("path", MAPS, ids=name)
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
    guard = TREE / "guard" / "validate_doc_update.js"
    assert files == {*MAPS, *REDUCES, *TREE.glob("*/language"), guard}


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


@pytest.mark.parametrize("path", POOL_MAPS, ids=name)
def test_an_available_address_has_no_owner_even_if_one_is_left_over(
    path: Path, run_map: RunMap
) -> None:
    assert "alice" not in str(run_map(path, [document(pvt_assigned_to="alice")]))


@pytest.mark.parametrize("field", ["pvt_zone", "pvt_host"])
def test_an_address_without_zone_or_host_is_still_in_the_pool(field: str, run_map: RunMap) -> None:
    for path in ("ips/by_zone", "ips/by_host"):
        assert len(run_map(view(path), [document(**{field: None})])[0]) == 1


def test_all_views_have_the_same_sort_key_function() -> None:
    copies = {
        match
        for path in POOL_MAPS
        for match in re.findall(r"^  // The sort key of .*?^  }\n", path.read_text(), re.M | re.S)
    }
    assert len(copies) == 1
    assert all("function sortKey(" in path.read_text() for path in POOL_MAPS)


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
