"""The rows as a Markdown table, as a file with raw figures, and as parts of the documentation."""

import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench import BenchError, wrk
from bench.context import Options
from bench.measure import Spread
from bench.row import Row
from bench.servers import ROOT

RESULTS = ROOT / "bench" / "results"
_START, _END = "<!-- make bench PUBLISH=1 -->", "<!-- end -->"
COLUMNS = {
    "couchdb": "Apache CouchDB",
    "couchdb-sbwt-none": "the same, `+sbwt none`",
    "embedded": "embedded",
}
"""The columns of the table of all ratios, by the names of the files in `results`."""
_PACKAGES = (
    "flask",
    "werkzeug",
    "gunicorn",
    "couchdb",
    "httptools",
    "msgspec",
    "pyjwt",
    "marshmallow",
)


def line(row: Row) -> str:
    """Return a row of the printed table."""
    reached = {True: "reached", False: "**not reached**", None: ""}[row.reached]
    cells = [row.what, row.against, str(row.goal), _shown(row.value), reached, row.note]
    return f"| {' | '.join(cells)} |"


def heading() -> str:
    """Return the header of the printed table."""
    cells = ["what", "against", "goal", "median (least to greatest)", "", ""]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def to_json(
    rows: Sequence[Row], options: Options, engine: tuple[str, str], seconds: float
) -> dict[str, Any]:
    """Return all results, with the versions and options."""
    return {
        "versions": versions(engine),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "options": {
            "sizes": options.sizes,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": options.connections,
        },
        "whole_run_seconds": round(seconds),
        "rows": [row.to_json() for row in rows],
    }


def versions(engine: tuple[str, str]) -> dict[str, Any]:
    """Return the versions of all software that the figures depend on."""
    return {
        "kazoo_ips": version("kazoo_ips"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "database": f"{COLUMNS[engine[0]]} {engine[1]}",
        "wrk": wrk.version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
    }


def save(results: Mapping[str, Any], name: str) -> Path:
    """Write the raw figures; return the path of the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """Return the raw figures that `save` has written.

    :raises BenchError: there are none
    """
    try:
        content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError as error:
        raise BenchError(f"PUBLISH: first a whole run, without ROWS: {name}") from error
    return content


def with_rows(
    results: Mapping[str, Any], again: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Return earlier results in which some rows are replaced by those of another run.

    :param results: results of a whole run, as `to_json` has them
    :param again: results with the rows of these names
    :raises BenchError: a row could not be measured, or with pools of other sizes
    """
    if any(row["raw"].get("failed") for row in again["rows"]):
        raise BenchError("PUBLISH: a row was not measured, so none is replaced")
    if [*again["options"]["sizes"]] != [*results["options"]["sizes"]]:
        raise BenchError(f"PUBLISH: SIZES has to be {results['options']['sizes']}")
    run = {"date": again["date"], **{key: again["versions"][key] for key in ("commit", "cpu")}}
    rows: dict[str, list[Any]] = {
        name: [] for name in [*(row["name"] for row in results["rows"]), *names]
    }
    for row in results["rows"]:
        rows[row["name"]] += [row] if row["name"] not in names else []
    for row in again["rows"]:
        rows[row["name"]].append({**row, "run": run})
    return {**results, "rows": [row for each in rows.values() for row in each]}


def publish() -> None:
    """Update the table of all ratios and docs/performance.md from the raw figures."""
    files = {title: RESULTS / f"{name}.json" for name, title in COLUMNS.items()}
    runs = {title: json.loads(f.read_text()) for title, f in files.items() if f.exists()}
    _replace(RESULTS / "README.md", published(runs))
    _replace(ROOT / "docs" / "performance.md", routes(runs[COLUMNS["couchdb-sbwt-none"]]))


def _replace(page: Path, lines: Iterable[str]) -> None:
    before, rest = page.read_text().split(_START)
    after = rest.split(_END, 1)[1]
    page.write_text(before + "\n".join([_START, *lines, _END]) + after)


_ROUTES = {
    "`GET …/ips/{ip}`: one address": ("kazoo", "ips/{ip}"),
    "`GET …/ips/assigned`: 100 addresses": ("kazoo", "ips/assigned"),
    "`GET …/ips`: a page of 50 addresses": ("kazoo", "ips"),
    "`GET …/ips/zones`": ("kazoo", "ips/zones"),
    "`POST …/ips/{ip}`: assign": ("assign", "service"),
    "`DELETE …/ips/{ip}`: release": ("release", "service"),
}
"""The main routes: the row and the part of it that has their figures."""


def routes(run: Mapping[str, Any]) -> Iterable[str]:
    """The table of the main routes: requests/s, and the p99 of the time for a reply.

    :param run: results as `to_json` has them
    """
    counts = (1, 8, 32)
    yield f"| | {' | '.join('1 client' if n == 1 else f'{n} clients' for n in counts)} |"
    yield f"|{'---|' * (1 + len(counts))}"
    for title, (name, part) in _ROUTES.items():
        # One client who writes is measured in a row of its own.
        parts = {(name, part), ("sequential", name)}
        loads = [
            load
            for row in run["rows"]
            for row_part, measured in row["raw"].items()
            if (row["name"], row_part) in parts
            for load in measured
        ]
        cells = (_rate([load for load in loads if load["connections"] == n]) for n in counts)
        yield f"| {title} | {' | '.join(cells)} |"


def _rate(loads: Sequence[Mapping[str, Any]]) -> str:
    if not loads:
        return "-"
    rate, p99 = (median(load[name] for load in loads) for name in ("rate", "p99_ms"))
    return f"{rate:,.0f}/s, {p99:.0f} ms"


def published(runs: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Yield the lines of the table of all ratios: a line for each row, a column for each database.


    :param runs: the results that `to_json` returns, by the title of their column
    """
    yield f"| what | against | goal | {' | '.join(runs)} |"
    yield f"|{'---|' * (3 + len(runs))}"
    by_key = [{(row["what"], row["against"]): row for row in run["rows"]} for run in runs.values()]
    for key in dict.fromkeys(key for rows in by_key for key in rows):
        found = [rows.get(key) for rows in by_key]
        goal = max(
            (row.get("run", run)["date"], row["goal"])
            for row, run in zip(found, runs.values(), strict=True)
            if row
        )[1]
        yield f"| {key[0]} | {key[1]} | {goal} | {' | '.join(map(_cell, found))} |"
    yield ""
    for name, run in runs.items():
        parts = run["versions"]
        yield (
            f"{name}: {run['date']}, commit {parts['commit']}, {parts['database']}, Python "
            f"{parts['python']}, Flask {parts['flask']}, gunicorn {parts['gunicorn']}, "
            f"{parts['wrk']}, {parts['cores']} cores of {parts['cpu']}."
        )
        later: dict[tuple[str, ...], list[str]] = {}
        for row in run["rows"]:
            if "run" in row:
                names = later.setdefault(tuple(row["run"].values()), [])
                names += [row["name"]] if row["name"] not in names else []
        for (date, commit, cpu), names in later.items():
            rows = ", ".join(f"`{each}`" for each in names)
            yield f"Measured later: {rows}, {date}, commit {commit}, on {cpu}."


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row.get("raw", {}).get("failed"):
        return "not measured"
    if row["value"] is None:
        return str(row["note"])
    text = _shown(Spread(**row["value"]))
    return f"{text}, missed" if row["reached"] is False else text


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    low, high = _number(spread.low), _number(spread.high)
    around = f" ({low} to {high})" if low != high else ""
    return f"**{_number(spread.median)}**{around}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "-uno", "kazoo_ips", "couch_views")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (each.split(":", 1)[1].strip() for each in lines if each.startswith("model name"))
    return next(names, platform.machine())
