"""The alarms and the dashboard as files: they agree with the table and with the metrics."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.model import DedicatedIP
from kazoo_ips.observability.metrics import Metrics
from tests.conftest import Member
from tests.openapi_check import CheckedApp
from tests.watch.exposition import Samples, samples

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus-rules.yml"
UNIT_TESTS = ROOT / "tests" / "watch" / "alarms.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())

[GROUP] = yaml.safe_load(RULES.read_text())["groups"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in GROUP["rules"]},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
}
"""Every expression, by the name of its alarm or panel."""

OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
"""The metrics that Prometheus creates itself, with their labels."""


def table() -> Iterator[list[str]]:
    """Return the cells of the table of alarms, without Markdown."""
    text = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alarms\n")[2]
    for line in text.partition("\n## ")[0].splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        if cells and "---" not in line and cells[0].strip() != "alarm":
            yield [plain(cell) for cell in cells]


def plain(cell: str) -> str:
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell)
    if "`kazoo_ips_" not in text and "`up{" not in text:
        text = re.sub(r"\*([^*]+)\*", r"\1", text)
    return text.replace("`", "").replace("\\|", "|").strip()


def alert(name: str) -> str:
    """Return the name of an alarm in the rules, as KazooIPsNoFollower for `no follower`."""
    return "KazooIPs" + "".join(word[0].upper() + word[1:] for word in name.split())


def test_the_rules_are_the_table() -> None:
    wanted = [
        {
            "alert": alert(name),
            "expr": expression,
            **({"for": lasting.replace(" ", "")} if lasting != "0" else {}),
            "annotations": {"summary": meaning, "description": action},
        }
        for name, expression, meaning, action, lasting in table()
    ]
    rules = [{k: v for k, v in rule.items() if k != "labels"} for rule in GROUP["rules"]]
    assert rules == wanted
    assert len(wanted) > 15


def test_the_docs_name_the_critical_alarms() -> None:
    text = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    found = re.search(r"The label `severity` is `critical` for (.*?), and `warning`", text)
    assert found
    named = {alert(name) for name in re.findall(r"\*([^*]+)\*", found[1])}
    assert named == {r["alert"] for r in GROUP["rules"] if r["labels"] == {"severity": "critical"}}
    assert {r["labels"]["severity"] for r in GROUP["rules"]} == {"critical", "warning"}


def test_every_alarm_is_tested_where_it_fires_and_where_it_does_not() -> None:
    cases = [
        c for t in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for c in t["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in GROUP["rules"]}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("LEFT OUT: promtool is not installed (Debian: prometheus)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(GROUP['rules'])} rules found" in done.stdout


@pytest.mark.slow
def test_promtool_s_unit_tests_of_the_alarms_pass() -> None:
    done = promtool("test", "rules", UNIT_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_wrong_alarm_fails_the_unit_tests(tmp_path: Path) -> None:
    """This shows that the unit tests can fail."""
    wrong = RULES.read_text().replace(") < 5", ") < 4")
    assert wrong != RULES.read_text()
    (tmp_path / "rules.yml").write_text(wrong)
    alarm, cases = "KazooIPsPoolExhausted", yaml.safe_load(UNIT_TESTS.read_text())
    own = [each for each in cases["tests"] if alarm in str(each["alert_rule_test"])]
    cases |= {"rule_files": ["rules.yml"], "tests": own}
    (tmp_path / "alarms.yml").write_text(yaml.safe_dump(cases))
    done = promtool("test", "rules", tmp_path / "alarms.yml")
    assert (done.returncode, alarm in done.stdout + done.stderr) == (1, True)


@pytest.fixture
def scraped(proxied_settings: Settings, add: Callable[..., DedicatedIP], alice: Member) -> Samples:
    """The samples of `/metrics` after a request, with consumers of each kind."""
    receivers = {"amqp_url": "amqp://127.0.0.1:1", "crossbar_url": "http://127.0.0.1:1"}
    app = composition.create_app(replace(proxied_settings, **receivers))
    services = app.extensions["kazoo_ips"]
    assert len(services.consumers()) == 2
    services.status.beat()
    services.status.record_doctor(0, [], "the tests")
    watched = CheckedApp(app)
    add("192.0.2.1")
    watched.get(f"/v2/accounts/{alice.id}/ips/192.0.2.1", headers=alice.headers)
    return samples(watched.get("/metrics").text)


def test_every_metric_and_label_of_rules_and_dashboard_exists(scraped: Samples) -> None:
    known = {name: set[str]() for name, _ in scraped} | OF_PROMETHEUS
    for name, labels in scraped:
        known[name] |= {"job", "instance", *dict(labels)}
    for where, expression in EXPRESSIONS.items():
        unquoted = re.sub('"[^"]*"', "", expression)
        names = set(re.findall(r"\b(?:kazoo_ips_\w+|up|ALERTS)\b", unquoted))
        assert names, where
        assert names <= set(known), where
        for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)(?:=~|!=|=)\"", selector)) <= known[name], where
        for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
            labels = set(re.split(r",\s*", grouping))
            assert labels <= set().union(*(known[name] for name in names)), where


def test_the_counter_of_writes_without_a_quorum_begins_with_zero() -> None:
    """Otherwise `increase()` would not count the first such write."""

    class NoPool:
        def counts(self) -> None:
            return None

        def low_zones(self) -> None:
            return None

        def instances(self) -> None:
            return None

    scraped = samples(Metrics().text(NoPool()).decode())
    counts = {
        dict(labels)["kind"]: count
        for (name, labels), count in scraped.items()
        if name == "kazoo_ips_couchdb_requests_total"
    }
    assert counts == {"write": 0, "bulk_write": 0, "delete": 0}


def test_promtool_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{n}", "expr": e.replace("$__rate_interval", "5m").replace("$job", "j")}
        for n, e in enumerate(t["expr"] for panel in PANELS for t in panel["targets"])
    ]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]})
    )
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_s_own_classes_read_the_dashboard_and_lose_nothing() -> None:
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert list(lost(DASHBOARD, read, "")) == []


def lost(given: Any, read: Any, path: str) -> Iterator[str]:
    """Return the difference between two values."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in read:
                yield f"{path}/{key}"
            else:
                yield from lost(value, read[key], f"{path}/{key}")
    elif isinstance(given, list):
        if len(given) != len(read):
            yield path
        for n, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from lost(one, other, f"{path}/{n}")
    elif given != read:
        yield f"{path}: {given!r} is {read!r}"


def test_the_dashboard_needs_no_changes() -> None:
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
        "datasource",
        "prometheus",
    )
    assert "__inputs" not in DASHBOARD
    assert DASHBOARD.get("id") is None
    own = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["job"]["datasource"] == own
    for panel in PANELS:
        assert panel["datasource"] == own
        assert all(target["datasource"] == own for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == {"datasource", "job", "__rate_interval"}


def test_no_panel_covers_another() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] <= 24 - at["w"]
        for x in range(at["x"], at["x"] + at["w"]):
            cells.update((x, y) for y in range(at["y"], at["y"] + at["h"]))
    assert set(cells.values()) == {1}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_has_a_row_for_each_subject_and_names_alarms_that_exist() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Now", "Traffic", "Latency", "Errors", "Pool", "Background work", "CouchDB"]
    names = {name for name, *_ in table()}
    for panel in PANELS:
        found = re.search(r"Alarms?: (.*)$", panel["description"], re.IGNORECASE)
        for name in found[1].split(", ") if found else ():
            assert name in names or name in ("below 5", "above 0.5 s"), panel["title"]
