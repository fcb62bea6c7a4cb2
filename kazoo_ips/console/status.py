"""The state of the service: workers, CouchDB, background work, and what the doctor has found."""

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console.pages import is_partial, page, pages


@pages.on("GET", "/status", who=Who.OPERATOR)
def show_status() -> str:
    """What runs where, and what is wrong."""
    status = services().status.status()
    accounts = {account for _, _, account in status.doctor.examples} if status.doctor else set()
    return page(
        "_status.html" if is_partial() else "status.html",
        status=status,
        names=services().accounts.names({each for each in accounts if each}),
    )
