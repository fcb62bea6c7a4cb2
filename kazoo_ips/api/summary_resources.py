"""Summaries as JSON resources."""

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from kazoo_ips.api import examples
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.model import Status, Summary
from kazoo_ips.model.usage import Forecast
from kazoo_ips.services.history.times import date

_TOTAL: dict[str, Any] = {
    "required": True,
    "metadata": {"description": "Number of addresses", "examples": [40]},
}


class ForecastSchema(ReplySchema):
    """When a zone or the pool has no address left."""

    date = fields.String(
        required=True, metadata={"description": "The day, in UTC", "format": "date"}
    )
    between = fields.List(
        fields.String(allow_none=True, metadata={"format": "date"}),
        required=True,
        metadata={
            "description": "The day is between these two with a probability of 80 %. The second "
            "one is null if the day may never come",
            "minItems": 2,
            "maxItems": 2,
        },
    )
    rate_per_day = fields.Float(
        required=True,
        metadata={"description": "Addresses taken each day, less those given back"},
    )


class AddressCountsSchema(ReplySchema):
    """How many addresses there are, of each status."""

    total = fields.Integer(**_TOTAL)
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={
            "description": "Number of addresses of each status that occurs",
            "examples": [{"available": 25, "assigned": 15}],
        },
    )
    used = fields.Float(
        required=True,
        metadata={"description": "Share of the addresses that are assigned", "examples": [0.375]},
    )


class PoolSummarySchema(AddressCountsSchema):
    """How many addresses there are, whether they are few, and when none is left."""

    low = fields.Boolean(
        required=True,
        metadata={"description": "Whether the zone, or any zone, has few available addresses"},
    )
    exhausts_at = fields.Nested(
        ForecastSchema,
        required=True,
        allow_none=True,
        metadata={"description": "When no address is left; null if their number does not shrink"},
    )


class SummaryListItemSchema(ReplySchema):
    """How many addresses a zone, a host, an account or a status has.

    A line has the member that `by` names.
    """

    zone = fields.String(metadata={"description": "The zone", "examples": [examples.ZONE]})
    host = fields.String(metadata={"description": "The host", "examples": [examples.HOST]})
    status = fields.String(metadata={"description": "The status"})
    account_id = fields.String(metadata={"description": "The account"})
    account_name = fields.String(
        metadata={"description": "Name of the account; missing if it does not exist"}
    )
    total = fields.Integer(**_TOTAL)
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "As in the summary of the pool; missing by status"},
    )
    used = fields.Float(
        metadata={"description": "As in the summary of the pool; only by zone and by host"}
    )
    low = fields.Boolean(
        metadata={"description": "As in the summary of the pool; only by zone"},
    )
    exhausts_at = fields.Nested(
        ForecastSchema,
        allow_none=True,
        metadata={"description": "As in the summary of the pool; only by zone"},
    )


class AccountSummaryListItemSchema(ReplySchema):
    """How many addresses an account has."""

    account_id = fields.String(
        required=True,
        metadata={"description": "The account", "examples": [examples.ACCOUNT_ID]},
    )
    account_name = fields.String(
        metadata={"description": "Name of the account; missing if it does not exist"}
    )
    total = fields.Integer(**_TOTAL)
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "Number of addresses of each status that occurs"},
    )


def dump_pool(summary: Summary) -> dict[str, Any]:
    """Return the summary of a group of the pool as JSON."""
    return {
        "total": summary.total,
        "counts": dict(sorted(summary.counts.items(), key=_order)),
        "used": round(summary.used, 4),
    }


def dump_forecast(forecast: Forecast | None) -> dict[str, Any] | None:
    """Return a forecast as JSON."""
    if forecast is None:
        return None
    latest = None if forecast.latest is None else date(forecast.latest)
    return {
        "date": date(forecast.day),
        "between": [date(forecast.earliest), latest],
        "rate_per_day": round(forecast.rate, 2),
    }


def dump_account(summary: Summary, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the summary of an account as JSON.

    :param names: the names of accounts by id
    """
    name = names.get(summary.name)
    return {
        "account_id": summary.name,
        **({} if name is None else {"account_name": name}),
        "total": summary.total,
        "counts": dict(sorted(summary.counts.items(), key=_order)),
    }


def dump_statuses(summary: Summary) -> list[dict[str, Any]]:
    """Return the counts of each status as JSON."""
    return [
        {"status": status, "total": count}
        for status, count in sorted(summary.counts.items(), key=_order)
    ]


_STATUSES = [*map(str, Status)]


def _order(count: tuple[str, int]) -> tuple[int, str]:
    """Return a sort key: the statuses that this release knows come first, in their order."""
    status = count[0]
    return _STATUSES.index(status) if status in _STATUSES else len(_STATUSES), status


def csv_line(line: Mapping[str, Any]) -> dict[str, str]:
    """Return a summary as the cells of a line of CSV, with a column for each status."""
    flat = {k: v for k, v in line.items() if k not in ("counts", "exhausts_at")}
    if "exhausts_at" in line:
        flat["exhausts_at"] = (line["exhausts_at"] or {}).get("date", "")
    if "low" in line:
        flat["low"] = "true" if line["low"] else "false"
    return {name: str(value) for name, value in {**flat, **line.get("counts", {})}.items()}
