"""Search: by address, CIDR block, account, label, zone or host."""

from collections.abc import Iterable
from typing import Any

from flask import redirect, request, url_for

from kazoo_ips.api import queries, schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import parts
from kazoo_ips.console.pages import is_partial, page, pages
from kazoo_ips.console.parts import Part
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import ListIPs
from kazoo_ips.model.addresses import Block, parse_network

_LINES = 20
"""Maximum number of lines of each kind."""


@pages.on("GET", "/search", who=Who.OPERATOR)
def search() -> Any:
    """What matches a text. A text that is exactly one address leads to its page."""
    text = request.args.get("q", "").strip()
    block = _block(text)
    if block and len(block) == 1 and not is_partial():
        address = next(iter(block))[1]
        return redirect(url_for("console.show_address", address=address))
    wanted, lists = text.casefold(), services().lists

    def named(names: Iterable[str]) -> list[str]:
        return [name for name in names if wanted in name.casefold()][:_LINES] if text else []

    found = parts.read_region(
        lines=Part("addresses", lambda: _lines(block) if block else (), ()),
        accounts=Part("accounts", lambda: services().accounts.starting_with(
            text, _LINES) if text else (), ()),
        zones=Part("zones", lambda: named(lists.zones()), ()),
        hosts=Part("hosts", lambda: named(lists.hosts()), ()),
        labelled=Part("labels", lambda: _labelled(text), ()),
    )  # fmt: skip
    return page(
        "_results.html" if is_partial() else "search.html",
        q=text,
        is_address=block is not None and block.first == block.last,
        **found,
    )


def _block(text: str) -> Block | None:
    """Return the addresses that a text names; None if it is no address and no CIDR block."""
    try:
        return parse_network(text)
    except ValueError:
        return None


def _lines(block: Block) -> Any:
    query = ListIPs(limit=_LINES, between=block.sort_keys)
    return services().lists.pool(query).items


def _labelled(text: str) -> Any:
    """Return addresses with a label, if the text is one: `key:value`."""
    try:
        label = schemas.load_query((queries.PoolSchema(),), [("label", text)])["label"]
    except ValidationFailed:
        return ()
    return services().lists.pool(ListIPs(limit=_LINES, label=label)).items
