"""Summaries: how many addresses the pool, each zone, host and account has."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from flask import Response, g

from kazoo_ips.api import envelope, lists, queries
from kazoo_ips.api import summary_resources as resources
from kazoo_ips.api.route_descriptions import CSV, Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.model import Summary
from kazoo_ips.services.pool.summaries import ListSummaries, walk

routes = Routes("summaries", __name__, url_prefix="/v2")

Dump = Callable[[Sequence[Summary]], list[dict[str, Any]]]


@routes.on(
    "GET",
    "/ips/summary",
    who=Who.OPERATOR,
    replies=(
        resources.PoolSummarySchema(),
        resources.SummaryListItemSchema(many=True),
    ),
    query=queries.SummarySchema,
    csv=True,
    operation_id="get_pool_summary",
)
def of_pool() -> Response:
    """How many addresses of each status there are: in all, or by zone, host, account or status.

    The cost depends on the number of lines, and not on the number of addresses.
    """
    by, zone, service = g.query.get("by"), g.query.get("zone"), services().summaries
    if by == "zone" and zone is None:
        return _list(service.zones, _zones)
    if by == "host":
        return _list(partial(service.hosts, zone=zone), _hosts)
    if by == "account":
        return _list(service.accounts, _accounts)
    summary = service.pool() if zone is None else service.zone(zone)
    if by == "status":
        lines = resources.dump_statuses(summary)
    elif by == "zone":
        lines = _zones([summary] if summary.counts else [])
    else:
        line = _forecast(summary)
        return _csv([line]) if g.media == CSV else envelope.success(line)
    return _csv(lines) if g.media == CSV else lists.page_reply(lines, None)


@routes.on(
    "GET",
    "/accounts/<account_id>/ips/summary",
    who=Who.ACCOUNT,
    replies=resources.AccountSummaryListItemSchema(many=True),
    query=queries.SummaryPageSchema,
    csv=True,
    operation_id="get_account_summary",
)
def of_account(account_id: str) -> Response:
    """How many addresses the account has, and each account below it.

    The first line is the account itself. The others follow by id.
    """
    return _list(partial(services().summaries.account, account_id), _accounts)


def _forecast(summary: Summary) -> dict[str, Any]:
    forecast = resources.dump_forecast(summary.forecast)
    return {**resources.dump_pool(summary), "low": bool(summary.low), "exhausts_at": forecast}


def _zones(found: Sequence[Summary]) -> list[dict[str, Any]]:
    return [{"zone": each.name, **_forecast(each)} for each in found]


def _hosts(found: Sequence[Summary]) -> list[dict[str, Any]]:
    return [{"host": each.name, **resources.dump_pool(each)} for each in found]


def _accounts(found: Sequence[Summary]) -> list[dict[str, Any]]:
    names = services().accounts.names({each.name for each in found})
    return [resources.dump_account(each, names) for each in found]


def _list(list_page: ListSummaries, dump: Dump) -> Response:
    after, limit = queries.load_summary(g.query, everything=g.media == CSV)
    if limit is not None:
        page = list_page(after, limit)
        lines = dump(page.items)
        if g.media == CSV:
            return _csv(lines)
        return lists.page_reply(lines, None if page.after is None else (page.after,))
    parts: Iterator[list[dict[str, Any]]] = map(dump, lists.chunks(walk(list_page)))
    if g.media == CSV:
        return _csv([line for part in parts for line in part])
    return envelope.stream(parts)


def _csv(lines: Sequence[dict[str, Any]]) -> Response:
    rows = [resources.csv_line(line) for line in lines]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return lists.csv_reply(columns, rows)
