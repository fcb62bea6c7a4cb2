"""The plot of a zone's use in a terminal, in characters, by plotille."""

from collections.abc import Iterator, Sequence
from datetime import date as Date

from kazoo_ips.model import Status
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.services.history.times import date

_MARKERS = {"available": "f", "assigned": "u", "aging": "a", "reserved": "r", "disabled": "d"}
_LEAST_WIDTH, _HEIGHT = 20, 14
_MARGIN = 24
"""Characters that the axis and its numbers take."""


def draw(series: UsageSeries, width: int) -> Iterator[str]:
    """Yield the lines of the plot.

    :param width: the width of the terminal in characters
    :raises ImportError: the extra `kazoo_ips[plot]` is not installed
    """
    names = known_statuses(series)
    yield f"Use of {series.zone}, from {date(series.first)} to {date(series.days[-1])}"
    yield forecast_text(series)
    yield ""
    yield from _figure(series, {name: series.counts[name] for name in names}, width, _HEIGHT)
    yield ""
    changes = {"assigned": series.assigned, "released": series.released}
    yield "Assignments and releases a day"
    yield from _figure(series, changes, width, _HEIGHT // 2)


def _figure(
    series: UsageSeries, lines: dict[str, Sequence[int]], width: int, height: int
) -> Iterator[str]:
    import plotille  # noqa: PLC0415 - the extra may be missing

    figure = plotille.Figure()
    figure.width, figure.height = max(width - _MARGIN, _LEAST_WIDTH), height
    figure.set_y_limits(min_=0, max_=max((max(each) for each in lines.values()), default=1) or 1)
    figure.set_x_limits(min_=series.first, max_=max(series.days[-1], series.first + 1))
    figure.x_label, figure.y_label = "day", "IPs"
    figure.register_label_formatter(float, _label)
    figure.register_label_formatter(int, _label)
    for name, values in lines.items():
        figure.plot(list(series.days), list(values), label=name, marker=_marker(name))
    yield from figure.show(legend=True).splitlines()


def _label(value: float, chars: int, delta: float, left: bool = False) -> str:
    """Return a number, or a day as month and day, in `chars` characters."""
    text = f"{Date.fromisoformat(date(int(value))):%m-%d}" if value > 100_000 else f"{value:.0f}"
    return text.ljust(chars) if left else text.rjust(chars)


def _marker(name: str) -> str:
    return _MARKERS.get(name, name[:1])


def known_statuses(series: UsageSeries) -> list[str]:
    """Return the statuses of a series: those that this release knows first, in their order."""
    known = [str(status) for status in Status if status in series.counts]
    return known + sorted(series.counts.keys() - set(known))


def forecast_text(series: UsageSeries) -> str:
    """Return a sentence about when the zone runs out."""
    forecast = series.forecast
    if forecast is None:
        return "no forecast: its available addresses do not get fewer, or its history is too short"
    latest = "never" if forecast.latest is None else date(forecast.latest)
    return (
        f"runs out on {date(forecast.day)} (80 %: {date(forecast.earliest)} to {latest}), "
        f"{forecast.rate:.2f} addresses a day"
    )
