"""Deployment to a directory: no request is lost, a broken release is refused, undeploy."""

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

from deploy import releases, sources
from deploy.host import Host
from tests.deploy import wheels
from tests.deploy.conftest import Site
from tests.deploy.load import Load
from tests.servers import Gunicorn
from tests.timing import eventually
from tests.watch.collector import Collector


def served(site: Site, operator: Any, wanted: str) -> str:
    """Return the version that replies on new connections, once the old one accepts no more."""
    headers = {**operator.headers, "Connection": "close"}
    end = time.monotonic() + 5
    while True:
        reply = urllib3.request("GET", f"{site.url}/v2/about", headers=headers)
        assert reply.status == 200, reply.data
        version: str = reply.json()["data"]["version"]
        if version == wanted or time.monotonic() > end:
            return version


def test_a_deployment_a_broken_one_and_a_rollback_under_load(
    site: Site, load: Callable[[], Load], operator: Any, wheel: Path
) -> None:
    newer = wheels.changed(wheel, "8.0.0")
    fault = {"kazoo_ips/server/worker.py": "\nraise RuntimeError\n"}
    broken = wheels.changed(wheel, "9.0.0", fault)
    number = wheel.name.split("-")[1]

    site.write_settings()
    site.run("deploy", wheel)
    assert served(site, operator, number) == number
    assert site.settings.read_text() == site.text

    before = site.snapshot()
    assert "nothing to do" in site.run("deploy", wheel)
    assert site.snapshot() == before

    with load() as clients:
        site.run("deploy", newer)
        assert served(site, operator, "8.0.0") == "8.0.0"

        output = site.run("deploy", broken, fails=True)
        assert "it does not answer" in output
        assert "8.0.0" in output.splitlines()[-1]
        assert site.serving() == "8.0.0"
        assert served(site, operator, "8.0.0") == "8.0.0"

        site.run("rollback")
        assert served(site, operator, number) == number
    assert clients.lost == {}
    assert clients.served > 100

    output = site.run("undeploy")
    assert f"kept {site.settings.parent}" in output
    assert not site.app.exists()
    assert site.settings.exists()


def test_the_first_deployment_writes_settings_that_only_the_service_reads(
    site: Site, wheel: Path
) -> None:
    unfit = wheels.changed(wheel, "7.0.0", {"kazoo_ips/app.py": "\nraise RuntimeError\n"})
    output = site.run("deploy", unfit)
    *_, first, second = output.splitlines()
    assert first.startswith("7.0.0-")
    assert first.endswith(" does not serve yet: set COUCHDB_URL, with user and password, in")
    assert second == f"{site.settings}, and run `make deploy` again"
    assert stat.S_IMODE(site.settings.stat().st_mode) == 0o640
    assert stat.S_IMODE(site.settings.parent.stat().st_mode) == 0o750
    assert site.settings.read_text() == (wheels.ROOT / "deploy/kazoo-ips.env").read_text()
    assert not (site.app / "current").exists()
    assert "see COUCHDB_URL in" in site.run("deploy", unfit, fails=True)
    assert "no release to go back to" in site.run("rollback", fails=True)


def test_what_serves_already_is_found_without_a_wheel(site: Site, wheel: Path) -> None:
    digest = sources.digest(wheels.ROOT)
    site.run("serves", digest, fails=True)
    site.write_settings()
    site.run("deploy", wheel, digest)
    before = site.snapshot()
    output = site.run("serves", digest)
    assert output == f"{(site.app / 'current').resolve().name} serves already: nothing to do\n"
    assert site.snapshot() == before
    assert site.run("serves", "0" * 64, fails=True) == ""
    with_root = {**site.environ, "KAZOO_IPS_ROOT": str(site.root)}
    command = [site.app / "bin/kazoo-ips", "summary"]
    subprocess.run(command, env=with_root, check=True, capture_output=True)
    site.write_settings("KAZOO_IPS_LOG_LEVEL=warning\n")
    assert site.run("serves", digest, fails=True) == ""


def test_settings_with_an_endpoint_for_spans_install_the_extra(site: Site, wheel: Path) -> None:
    digest, report = sources.digest(wheels.ROOT), site.root / "report"
    state = site.root / "run/kazoo-ips"

    def extras() -> list[str]:
        [installed] = json.loads(report.read_text())["install"]
        found: list[str] = installed.get("requested_extras", [])
        return found

    site.write_settings("#OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1\n")
    site.run("deploy", wheel, digest, PIP_REPORT=str(report))
    assert extras() == []
    plain = (site.app / "current").resolve().name
    with Collector() as collector:
        site.write_settings(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
        changed = site.settings.stat().st_mtime_ns
        os.kill(int((state / "pid").read_text()), signal.SIGHUP)
        assert eventually(
            lambda: json.loads((state / "serving.json").read_text())["settings"] == changed, 30
        )
        assert site.run("serves", digest, fails=True) == ""
        site.run("deploy", wheel, digest, PIP_REPORT=str(report))
        assert (site.app / "current").resolve().name == f"{plain}-otel"
        assert extras() == ["otel"]
        assert "nothing to do" in site.run("serves", digest)
        collector.spans.clear()
        urllib3.request("GET", f"{site.url}/healthz")
        assert eventually(lambda: any("/healthz" in span.name for span in collector.spans), 20)


def test_settings_name_the_extras_that_they_need(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.etc.mkdir(parents=True)
    assert host.extras() == []
    for settings, extras in (
        ("#KAZOO_IPS_AMQP_URL=amqp://127.0.0.1\nKAZOO_IPS_AMQP_URL=\n", []),
        ("COUCHDB_URL=http://x\nKAZOO_IPS_AMQP_URL=amqp://127.0.0.1\n", ["bus"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=x\nKAZOO_IPS_AMQP_URL=amqp://x\n", ["bus", "otel"]),
    ):
        host.settings.write_text(settings)
        assert host.extras() == extras
        release = Path("-".join(["0.1.0", "abc", *extras]))
        assert releases.has_extras(release, extras)
        assert not releases.has_extras(release, [*extras, "more"])


def test_the_digest_of_the_sources_changes_with_each_file(tmp_path: Path) -> None:
    for name in (*sources.FOLDERS, "kazoo_ips/__pycache__"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    for name in sources.FILES:
        (tmp_path / name).write_text("1")
    seen = {sources.digest(tmp_path)}
    changes = [*sources.FILES, *(f"{folder}/x" for folder in sources.FOLDERS)]
    for name in changes:
        (tmp_path / name).write_text("2")
        seen.add(sources.digest(tmp_path))
    assert len(seen) == len(changes) + 1
    (tmp_path / "kazoo_ips/__pycache__/x").write_text("2")
    assert sources.digest(tmp_path) in seen


def test_a_second_undeploy_has_nothing_to_remove(site: Site, wheel: Path) -> None:
    assert site.run("undeploy") == "nothing to remove\n"
    assert not site.app.exists()
    site.run("deploy", wheel)
    assert f"removed {site.app}" in site.run("undeploy", "--purge")
    assert site.run("undeploy", "--purge") == "nothing to remove\n"


def test_a_replaced_worker_loses_no_request(
    environment: dict[str, str], add: Any, alice: Any, tmp_path: Path
) -> None:
    add("192.0.2.1")
    log = tmp_path / "log"
    settings = {**environment, "KAZOO_IPS_MAX_REQUESTS": "40"}
    with (
        Gunicorn(settings, log, workers=2) as server,
        Load(server.url, alice.token, alice.id, "192.0.2.1") as clients,
    ):
        end = time.monotonic() + 60
        while log.read_text().count("Autorestarting worker") < 2 and time.monotonic() < end:
            time.sleep(0.1)
    assert log.read_text().count("Autorestarting worker") >= 2
    assert clients.lost == {}
    assert clients.served > 80
