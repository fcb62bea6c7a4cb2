"""The use of a zone over time, and the forecast of when it runs out."""

from typing import Any

from flask import Response, g
from marshmallow import fields

from kazoo_ips.api import envelope, examples
from kazoo_ips.api.event_resources import member
from kazoo_ips.api.fields import Number
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.api.schemas import RequestSchema
from kazoo_ips.api.summary_resources import ForecastSchema, dump_forecast
from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model.usage import UsageSeries
from kazoo_ips.services.history.times import date
from kazoo_ips.services.pool.usage import DAYS, MAX_DAYS

routes = Routes("usage", __name__, url_prefix="/v2/ips")


class UsageQuerySchema(RequestSchema):
    """The query of the use of a zone."""

    days = Number(
        most=MAX_DAYS,
        metadata={"description": f"Number of days, until today; {DAYS} by default"},
    )


class ZoneUsageDaySchema(ReplySchema):
    """The use of a zone on one day, in UTC."""

    date = fields.String(required=True, metadata={"description": "The day", "format": "date"})
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        **member("Number of addresses of each status at the end of the day; for today, now"),
    )
    assigned = fields.Integer(**member("Number of assignments on this day"))
    released = fields.Integer(**member("Number of releases on this day"))


class ZoneUsageSchema(ReplySchema):
    """The use of a zone, day by day until today."""

    zone = fields.String(**member("The zone", examples.ZONE))
    days = fields.List(fields.Nested(ZoneUsageDaySchema), **member("The days, the earliest first"))
    exhausts_at = fields.Nested(
        ForecastSchema,
        required=True,
        allow_none=True,
        metadata={"description": "When no address is left; null if their number does not shrink"},
    )


@routes.on(
    "GET",
    "/zones/<zone>/usage",
    who=Who.OPERATOR,
    replies=ZoneUsageSchema(),
    query=UsageQuerySchema,
    operation_id="get_zone_usage",
    examples={"zone": examples.ZONE},
)
def fetch(zone: str) -> Response:
    """The use of a zone over time: its addresses by status, assignments and releases each day.

    It begins with the first event of the zone, if that is later than the first day.
    """
    series = services().usage.series(zone, g.query.get("days", DAYS))
    if not series.counts:
        raise BadIdentifier(zone)
    return envelope.success(_dump(series))


def _dump(series: UsageSeries) -> dict[str, Any]:
    return {
        "zone": series.zone,
        "days": [
            {
                "date": date(day),
                "counts": {status: counts[index] for status, counts in series.counts.items()},
                "assigned": series.assigned[index],
                "released": series.released[index],
            }
            for index, day in enumerate(series.days)
        ],
        "exhausts_at": dump_forecast(series.forecast),
    }
