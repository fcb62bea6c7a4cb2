"""The plot of a zone's use as an image: PNG, SVG or PDF, by matplotlib."""

from datetime import date as Date
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from kazoo_ips.cli.plot_text import forecast_text, known_statuses
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.services.history.times import date

COLOURS = {
    "assigned": "#3b6fb6", "reserved": "#8e6bb0", "aging": "#c9a227", "available": "#4f9d69",
    "disabled": "#8a8a8a",
}  # fmt: skip
_OTHER = "#b5651d"
_AHEAD = 60
"""Maximum number of days of the forecast that are drawn."""


def write_plot(series: UsageSeries, path: Path) -> None:
    """Write the plot to a file, in the format that its suffix names.

    :raises ValueError: matplotlib does not know the format
    :raises OSError: the file cannot be written
    """
    # Without the time and random ids, the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "kazoo_ips", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10, 6), layout="constrained")
        figure.suptitle(f"Use of {series.zone}")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_statuses(above, series)
        _draw_changes(below, series)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=120, metadata=metadata)


def _draw_statuses(axes: Axes, series: UsageSeries) -> None:
    days = [_day(day) for day in series.days]
    names = known_statuses(series)
    # With a single day there would be no area.
    xs = days if len(days) > 1 else [days[0] - 1, *days]
    stacked = [[*series.counts[name]] * (2 if len(days) == 1 else 1) for name in names]
    if names:
        axes.stackplot(
            xs, *stacked, labels=names, colors=[COLOURS.get(n, _OTHER) for n in names], alpha=0.8
        )
    _draw_forecast(axes, series)
    axes.set_ylabel("addresses")
    axes.set_ylim(bottom=0)
    axes.set_title(forecast_text(series), fontsize="small", loc="left")
    axes.legend(loc="upper left", fontsize="small")
    axes.grid(axis="y", alpha=0.3)


def _draw_forecast(axes: Axes, series: UsageSeries) -> None:
    forecast, today = series.forecast, series.days[-1]
    left = series.counts.get("available", [0])[-1]
    if forecast is None or forecast.rate <= 0:
        return
    end = min(forecast.day, today + _AHEAD)
    at_end = max(left - forecast.rate * (end - today), 0)
    axes.plot(
        [_day(today), _day(end)], [left, at_end], "--", color="black",
        label="available, forecast",
    )  # fmt: skip
    latest = forecast.latest if forecast.latest is not None else today + _AHEAD
    if forecast.earliest < today + _AHEAD:
        axes.axvspan(
            _day(forecast.earliest), _day(min(latest, today + _AHEAD)), color="black", alpha=0.08,
            label="runs out, 80 %",
        )  # fmt: skip


def _draw_changes(axes: Axes, series: UsageSeries) -> None:
    days = [_day(day) for day in series.days]
    axes.bar(days, series.assigned, color=COLOURS["assigned"], label="assigned")
    axes.bar(days, [-n for n in series.released], color=COLOURS["available"], label="released")
    axes.set_ylabel("a day")
    axes.xaxis_date()
    axes.axhline(0, color="black", linewidth=0.5)
    axes.legend(loc="upper left", fontsize="small")
    axes.grid(axis="y", alpha=0.3)


def _day(day: int) -> float:
    """Return a day as matplotlib counts them."""
    return float(date2num(Date.fromisoformat(date(day))))  # type: ignore[no-untyped-call]
