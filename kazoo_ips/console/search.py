"""Search: by address, CIDR block, account, label, zone or host."""

from typing import Any

from flask import redirect, request, url_for

from kazoo_ips.api import schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console.pages import is_partial, page, pages
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
    return page(
        "_results.html" if is_partial() else "search.html",
        q=text,
        lines=_lines(block) if block else (),
        **_names(text),
        labelled=_labelled(text),
        is_address=block is not None and block.first == block.last,
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
        label = schemas.load_query((schemas.PoolSchema(),), [("label", text)])["label"]
    except ValidationFailed:
        return ()
    return services().lists.pool(ListIPs(limit=_LINES, label=label)).items


def _names(text: str) -> dict[str, Any]:
    """Return the accounts, zones and hosts that a text names."""
    if not text:
        return {"accounts": (), "zones": (), "hosts": ()}
    wanted, lists = text.casefold(), services().lists
    return {
        "accounts": services().accounts.starting_with(text, _LINES),
        "zones": [name for name in lists.zones() if wanted in name.casefold()][:_LINES],
        "hosts": [name for name in lists.hosts() if wanted in name.casefold()][:_LINES],
    }
