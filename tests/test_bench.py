"""The arithmetic of `make bench`. No test depends on a measured time."""

import os
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from bench import call_path, report, soak
from bench.context import Options
from bench.measure import Spread, limit
from bench.row import Goal
from kazoo_ips import app as composition
from kazoo_ips.config import Settings

PAGE = (Path(__file__).parents[1] / "docs" / "code.md").read_text()


@pytest.fixture(scope="module")
def entered(settings: Settings) -> dict[str, list[str]]:
    """The files that each counted request enters, in their order."""
    if "COUCHDB_URL" in os.environ:
        pytest.skip("a login and a cluster need more files")
    # In databases of its own, because the first account of a database is the operator.
    own = replace(settings, prefix=f"test-{uuid4().hex[:8]}-")
    databases = composition.databases(own)
    databases.create()
    try:
        counted = call_path.paths(own)
    finally:
        databases.delete()
    return {
        name: list(dict.fromkeys(file for file, _, _ in path.calls))
        for name, path in counted.items()
    }


def test_the_documented_path_of_a_request_is_the_one_that_it_takes(
    entered: dict[str, list[str]],
) -> None:
    steps = PAGE.partition("<!-- The path of a list. -->")[2].partition("\nThen ")[0]
    documented = re.findall(r"^[0-9]+\. \[`(.*?)`\]", steps, re.MULTILINE)
    assert documented == entered["GET assigned"]


def test_the_documented_files_of_a_write_are_those_that_it_enters(
    entered: dict[str, list[str]],
) -> None:
    table = PAGE.partition("<!-- The files of a write. -->")[2].partition("\n`python")[0]
    rows = re.findall(r"^\| `(.*?)` \| (?:(POST|DELETE): )?", table, re.MULTILINE)
    for method, name in (("POST", "POST allocate"), ("DELETE", "DELETE of two")):
        documented = {file for file, only in rows if only in {"", method}}
        assert documented == set(entered[name]) - set(entered["GET assigned"])


def test_the_documented_numbers_of_files_are_those_that_requests_enter(
    entered: dict[str, list[str]],
) -> None:
    table = PAGE.partition("<!-- The counts. -->")[2].partition("\n\n## ")[0]
    documented = re.findall(r"^\| `.*? \| ([0-9]+) \|", table, re.MULTILINE)
    assert [int(number) for number in documented] == [len(files) for files in entered.values()]


def test_the_limit_adds_the_costs_of_one_request() -> None:
    # 1 ms for the bare route, 2 ms and 5 ms for two CouchDB requests.
    assert limit(1000, [500, 200]) == pytest.approx(125)


@pytest.mark.parametrize(
    ("environ", "engine", "scale"),
    [
        ({"COUCHDB_URL": "http://couch"}, "couchdb", "http://couch"),
        ({"COUCHDB_URL": "http://embedded"}, "embedded", ""),
        ({}, "embedded", ""),
        ({"SCALE_URL": "http://couch"}, "embedded", "http://couch"),
    ],
)
def test_kazoos_figures_are_scaled_by_reads_of_a_couchdb_only(
    environ: dict[str, str], engine: str, scale: str
) -> None:
    assert Options.load(environ, engine).scale_url == scale


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0, 4)


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal(at_least=0.8), 0.8, True),
        (Goal(at_least=0.8), 0.79, False),
        (Goal(at_most=4), 5, False),
        (Goal(at_least=1, at_most=1), 1.5, False),
    ],
)
def test_a_goal_says_whether_it_is_reached(goal: Goal, value: float, reached: bool) -> None:
    assert goal.holds(value) is reached


def test_a_window_has_latencies_and_the_requests_that_failed_once_and_twice() -> None:
    window = soak.Window(
        [n / 1000 for n in range(100, 0, -1)], Counter({0: 2, 503: 1}), Counter({503: 1})
    )
    line = window.to_json()
    assert [line[name] for name in ("requests", "p50_ms", "p95_ms", "p99_ms", "max_ms")] == [
        100, 51, 96, 100, 100,
    ]  # fmt: skip
    assert (line["first_attempts_failed"], line["failed"]) == (3, 1)


@pytest.mark.slow
def test_the_load_on_a_cluster_restarts_the_nodes_in_turn_and_sends_failed_requests_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "_SIZE", 1100)
    called = tmp_path / "called"
    control = tmp_path / "control"
    control.write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    control.chmod(0o700)
    unreachable = "http://127.0.0.1:9"
    options = soak.Options([settings.couchdb_url] * 2, str(control), 4, 2, 0, 4, 20)
    with ExitStack() as stack:
        run = soak.Run(options, stack)
        run.urls[1] = unreachable
        windows = list(run.run())
    assert called.read_text().split("\n")[:-1] == ["kill 1", "start 1", "kill 2", "start 2"]
    # Each of the four clients may send one more in the last moment.
    assert 80 <= sum(len(window.seconds) for window in windows) <= 84
    assert sum(window.first[0] for window in windows) > 20
    assert not any(window.failed for window in windows)


def test_rows_that_are_measured_again_are_dated() -> None:
    versions = dict.fromkeys(
        ("commit", "database", "python", "flask", "gunicorn", "wrk", "cores", "cpu"), "1"
    )

    def run(date: str, **values: int) -> dict[str, object]:
        rows = [
            {"name": name, "what": name, "against": "", "goal": "", "reached": None,
             "value": None, "note": str(value), "raw": {}}
            for name, value in values.items()
        ]  # fmt: skip
        options = {"sizes": [1000]}
        return {"date": date, "versions": versions, "options": options, "rows": rows}

    results = report.with_rows(run("2026-01-01", a=1, b=2, c=3), run("2026-02-02", b=4), ["b"])
    lines = list(report.published({"embedded": results}))
    assert lines[2:5] == ["| a |  |  | 1 |", "| b |  |  | 4 |", "| c |  |  | 3 |"]
    assert lines[-1] == "Measured later: `b`, 2026-02-02, commit 1, on 1."


def test_the_published_table_has_a_column_for_each_database() -> None:
    def run(median: float) -> dict[str, object]:
        value = {"median": median, "low": 0.7, "high": 0.9, "count": 3}
        row = {"what": "A", "against": "B", "goal": "≥ 0.8", "reached": median >= 0.8}
        versions = dict.fromkeys(
            ("commit", "database", "python", "flask", "gunicorn", "wrk", "cores", "cpu"), "1"
        )
        rows = [{**row, "value": value, "note": ""}]
        return {"date": "2026-01-01", "versions": versions, "rows": rows}

    lines = list(report.published({"Apache CouchDB": run(0.85), "embedded": run(0.75)}))
    assert lines[0] == "| what | against | goal | Apache CouchDB | embedded |"
    assert lines[2] == (
        "| A | B | ≥ 0.8 | **0.85** (0.70 to 0.90) | **0.75** (0.70 to 0.90), missed |"
    )
