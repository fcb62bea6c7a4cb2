"""Plots of the use of a zone: drawn by the server, and by uPlot in a browser."""

from kazoo_ips.console.plots import HEIGHT, WIDTH, use_of
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.usage import DAY, Forecast, UsageSeries

TODAY = 740_316


def series(forecast: Forecast | None) -> UsageSeries:
    """Three days of a zone with ten addresses."""
    counts = {"available": [9, 8, 6], "assigned": [1, 2, 4]}
    return UsageSeries("us-east", TODAY - 2, counts, [1, 1, 2], [0, 0, 0], forecast)


def test_areas_lie_on_each_other_and_fill_the_height() -> None:
    plot = use_of(series(None))
    assert plot
    assert (plot.top, plot.now, plot.forecast) == (10, WIDTH, "")
    assert [area.status for area in plot.areas] == ["assigned", "available"]
    assert plot.areas[0].points == (
        "0.0,180.0 360.0,160.0 720.0,120.0 720.0,200.0 360.0,200.0 0.0,200.0"
    )
    assert plot.areas[1].points.split()[:3] == ["0.0,0.0", "360.0,0.0", "720.0,0.0"]
    assert plot.data["forecast"] == []
    assert plot.data["times"][-1] == TODAY * DAY - GREGORIAN_EPOCH


def test_the_forecast_ends_where_no_address_is_left() -> None:
    plot = use_of(series(Forecast(TODAY + 4, TODAY + 3, None, 1.5)))
    assert plot
    assert plot.now == WIDTH * 2 / 6
    assert plot.forecast == f"240.0,120.0 {WIDTH:.1f},0.0"
    assert plot.data["forecast"] == [4, 5.5, 7, 8.5, 10]
    assert len(plot.data["times"]) == 7
    assert HEIGHT == 200


def test_a_forecast_far_ahead_is_cut_off() -> None:
    plot = use_of(series(Forecast(TODAY + 900, TODAY + 800, None, 0.01)))
    assert plot
    assert len(plot.data["forecast"]) == 46


def test_one_day_is_no_plot() -> None:
    one = UsageSeries("z", TODAY, {"available": [1]}, [0], [0], None)
    assert use_of(one) is None
    assert use_of(UsageSeries("z", TODAY, {}, [0, 0], [0, 0], None)) is None
