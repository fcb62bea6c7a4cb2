"""The command `plot`: the use of a zone over time, as an image or in the terminal."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kazoo_ips.cli import plot_text
from kazoo_ips.cli.console import backend, fail, reported, say
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.services.history.times import date
from kazoo_ips.services.pool.usage import DAYS, MAX_DAYS

_MISSING = "plots need the extra kazoo_ips[plot]: pip install 'kazoo_ips[plot]'"


@click.command()
@click.argument("zone")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path),
    help="Write an image: use.png, use.svg or use.pdf.",
)  # fmt: skip
@click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=DAYS, show_default=True,
    help="The number of days, until today.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for each day.")
def plot(zone: str, output: Path | None, days: int, as_json: bool) -> None:
    """Plot the use of a zone: addresses by status, assignments and releases, the forecast."""
    if as_json and output:
        raise click.UsageError("either --json or --output")
    with reported("unable to plot"):
        series = backend().usage.series(zone, days)
    if not series.counts:
        fail(f"unable to plot: no address has ever been in the zone {zone}")
    if as_json:
        say(*map(json.dumps, _days(series)))
        return
    try:
        if output is None:
            say(*plot_text.draw(series, shutil.get_terminal_size((80, 24)).columns))
            return
        from kazoo_ips.cli.plot_files import write_plot  # noqa: PLC0415 - may be missing
    except ImportError:
        fail(_MISSING)
    try:
        write_plot(series, output)
    except (OSError, ValueError) as error:
        fail(f"unable to write {output}: {error}")
    say(f"wrote {output}")


def _days(series: UsageSeries) -> Iterator[dict[str, Any]]:
    """Yield the use of a zone on each day as JSON."""
    for index, day in enumerate(series.days):
        yield {
            "date": date(day),
            "counts": {status: counts[index] for status, counts in series.counts.items()},
            "assigned": series.assigned[index],
            "released": series.released[index],
        }
