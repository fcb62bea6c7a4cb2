"""The command `plot`: an image or characters, from a history in the database."""

import builtins
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from kazoo_ips.cli import cli, plot_text
from kazoo_ips.config import Settings
from kazoo_ips.model import CreateIP
from kazoo_ips.model.usage import Forecast, UsageSeries
from tests.api.own_application import OwnApplication, create_own_application

SERIES = UsageSeries(
    "us-east",
    740_300,
    {"available": [9, 7, 6], "assigned": [1, 3, 4], "quarantined": [0, 0, 1]},
    [1, 2, 1],
    [0, 0, 1],
    Forecast(740_310, 740_305, None, 1.5),
)


def test_the_plot_in_characters_says_when_the_zone_runs_out() -> None:
    lines = list(plot_text.draw(SERIES, 80))
    assert lines[0] == "Use of us-east, from 2026-11-15 to 2026-11-17"
    assert lines[1] == "runs out on 2026-11-25 (80 %: 2026-11-20 to never), 1.50 addresses a day"
    text = "\n".join(lines)
    for name in ("available", "assigned", "quarantined", "released", "11-15"):
        assert name in text
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "series",
    [
        SERIES,
        replace(SERIES, forecast=None),
        replace(SERIES, forecast=Forecast(740_302, 740_302, 740_302, -1.0)),
        UsageSeries("z", 740_300, {"available": [9]}, [0], [0], None),
        UsageSeries("z", 740_300, {"available": [0]}, [0], [0], None),
    ],
)
@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_plot_as_a_file(
    tmp_path: Path, series: UsageSeries, suffix: str, magic: bytes
) -> None:
    # Importing matplotlib takes a second. Only the process that runs this test imports it.
    from kazoo_ips.cli.plot_files import write_plot  # noqa: PLC0415

    path = tmp_path / f"use.{suffix}"
    write_plot(series, path)
    assert path.read_bytes().startswith(magic)
    assert list(plot_text.draw(series, 40))
    if suffix == "svg":
        text = path.read_text()
        assert series.zone in text
        write_plot(series, path)
        assert path.read_text() == text


@pytest.fixture(scope="module")
def own_app(settings: Settings) -> Iterator[OwnApplication]:
    with create_own_application(settings) as made:
        place = CreateIP("192.0.2.1", "us-east", "proxy1.example.com")
        made.services.pool.create(place, uuid4().hex)
        yield made


@pytest.fixture(scope="module")
def run(own_app: OwnApplication) -> Callable[..., Any]:
    own = own_app.settings
    environment = {
        "COUCHDB_URL": own.as_administrator().couchdb_url, "KAZOO_IPS_PREFIX": own.prefix,
    }  # fmt: skip
    return lambda *arguments: CliRunner(env=environment).invoke(cli, ["plot", *arguments])


def test_the_command_plots_in_the_terminal_or_to_a_file(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    done = run("us-east")
    assert done.exit_code == 0
    assert "available" in done.stdout
    path = tmp_path / "use.png"
    done = run("us-east", "--output", str(path), "--days", "7")
    assert done.stdout == f"wrote {path}\n"
    assert path.stat().st_size > 1000


def test_the_command_prints_each_day_as_json(run: Callable[..., Any]) -> None:
    done = run("us-east", "--json", "--days", "3")
    days = [json.loads(line) for line in done.stdout.splitlines()]
    assert days[-1].items() >= {"counts": {"available": 1}, "assigned": 0, "released": 0}.items()
    assert date.fromisoformat(days[0]["date"])
    assert run("us-east", "--json", "--output", "use.png").exit_code == 2


def test_the_api_has_the_same_days(run: Callable[..., Any], own_app: OwnApplication) -> None:
    days = [json.loads(line) for line in run("us-east", "--json").stdout.splitlines()]
    api, headers = own_app.api, own_app.headers
    path = "/v2/ips/zones/us-east/usage"
    reply = api.get(f"{path}?days=90", headers=headers).json["data"]
    assert reply == {"zone": "us-east", "days": days, "exhausts_at": None}
    assert len(api.get(f"{path}?days=1", headers=headers).json["data"]["days"]) == 1
    assert "days" in api.get(f"{path}?days=0", headers=headers, status=400).json["data"]
    assert "days" in api.get(f"{path}?days=3661", headers=headers, status=400).json["data"]
    unknown = api.get("/v2/ips/zones/nowhere/usage", headers=headers, status=404)
    assert unknown.json["data"]["cause"] == "nowhere"


def test_what_cannot_be_plotted_is_an_error(run: Callable[..., Any], tmp_path: Path) -> None:
    assert "no address has ever been in the zone nowhere" in run("nowhere").stderr
    done = run("us-east", "--output", str(tmp_path / "use.nonsense"))
    assert (done.exit_code, "unable to write" in done.stderr) == (1, True)
    done = run("us-east", "--output", str(tmp_path / "nowhere" / "use.png"))
    assert (done.exit_code, "unable to write" in done.stderr) == (1, True)


@pytest.mark.parametrize("output", [(), ("--output", "use.png")])
def test_without_the_extra_the_command_says_what_to_install(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, output: tuple[str, ...]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "plotille" or name.endswith("plot_files"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = run("us-east", *output)
    assert (done.exit_code, "kazoo_ips[plot]" in done.stderr) == (1, True)
