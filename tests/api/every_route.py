"""Every route of the application, for tests that send a request to each."""

from urllib.parse import quote

from flask import Flask
from werkzeug.routing import Rule

from kazoo_ips.api.openapi import operation_of, rules_of
from kazoo_ips.api.route_descriptions import Operation
from kazoo_ips.app import create_app
from kazoo_ips.config import Settings

APP: Flask = create_app(Settings())
ROUTES: dict[tuple[str, str], Rule] = {
    (operation_of(APP, rule).method, rule.rule): rule for rule in rules_of(APP)
}
"""The rule of each route, by its method and its path as Flask has it."""

_VALUES = {
    "address": "192.0.2.1",
    "name": "ip",
    "zone": "us-east",
    "host": "proxy1.example.com",
    "year": "2026",
    **dict.fromkeys(("webhook_id", "job_id", "reservation_id"), 32 * "0"),
}
"""The values of path parameters other than the account. No webhook, job or reservation has
them."""


def url(rule: Rule, account_id: str, **values: str) -> str:
    """Return the path of a route.

    :param values: values of path parameters that replace the default ones
    """
    named = {"account_id": account_id, **_VALUES, **values}
    path = rule.rule
    for name in rule.arguments:
        for variable in (f"<{name}>", f"<address:{name}>", f"<webhook:{name}>"):
            path = path.replace(variable, quote(named[name], safe=""))
    return path


def operation(rule: Rule) -> Operation:
    """Return the description of a route."""
    return operation_of(APP, rule)
