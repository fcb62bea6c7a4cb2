"""A row about the console: when a browser shows the first content of each page."""

import shutil
import time
from collections.abc import Iterator

from playwright.sync_api import BrowserContext, sync_playwright

from bench import BenchError
from bench.context import Bench
from bench.measure import Spread
from bench.row import Goal, Row
from bench.world import World, addresses, host, zone
from kazoo_ips.console import sessions

_BROWSERS = ("chromium", "google-chrome", "chrome")
_LEFT_OUT = "Left out now"
_BUILDING = 600.0
"""Maximum number of seconds to wait for an index."""
_PAINT = """() => new Promise((resolve) => {
  const found = () => performance.getEntriesByName('first-contentful-paint')[0];
  const look = () => found() ? resolve(found().startTime) : setTimeout(look, 10);
  look();
})"""


def pages(bench: Bench) -> Iterator[Row]:
    """Open each page in Chromium, and take the time until it shows the first content."""
    world = bench.world(bench.options.sizes[-1])
    bench.as_service(world)
    world.service  # noqa: B018 - the first use starts it
    # Until the archive has the new addresses, each page with a history reads all documents.
    world.wait_for_archiver()
    paths = _paths(world)
    times: dict[str, list[float]] = {path: [] for path in paths}
    for context in _browser(world):
        for path in paths:
            _build_indexes(context, path)
        for _ in range(bench.options.rounds):
            for path in paths:
                times[path].append(_first_paint(context, path))
    slowest = max(times, key=lambda path: Spread.of(times[path]).median)
    shown = ", ".join(
        f"{path.partition('?')[0]} {Spread.of(each).median:.0f}" for path, each in times.items()
    )
    yield Row(
        "console",
        f"the slowest page of the console, {world.size:,} addresses, first paint",
        "ms",
        Goal(at_most=1000),
        Spread.of(times[slowest]),
        shown,
        times,
    )


def _paths(world: World) -> list[str]:
    account, [address] = world.measured.account.id, addresses([100])
    return [
        "/console",
        "/console/addresses",
        f"/console/addresses?zone={zone(100)}&status=assigned",
        f"/console/addresses/{address}",
        "/console/accounts",
        f"/console/accounts/{account}",
        f"/console/accounts/{account}/history",
        f"/console/accounts/{account}/reservations",
        f"/console/accounts/{account}/limits",
        f"/console/accounts/{account}/webhooks",
        "/console/history",
        f"/console/zone?name={zone(100)}",
        f"/console/host?name={host(100)}",
        "/console/search?q=measured",
        "/console/import",
        "/console/webhooks",
        "/console/jobs",
        "/console/status",
    ]


def _browser(world: World) -> Iterator[BrowserContext]:
    """Yield a window of Chromium in which the operator is logged in.

    :raises BenchError: Chromium is not installed
    """
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        raise BenchError("the console: Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(base_url=world.service.url)
        cookie = {"name": sessions.COOKIE, "value": world.operator.token}
        context.add_cookies([{**cookie, "url": f"{world.service.url}{sessions.PATH}"}])  # type: ignore[typeddict-item]
        yield context
        browser.close()


def _build_indexes(context: BrowserContext, path: str) -> None:
    """Open a page until CouchDB has built the indexes that it reads, and nothing is left out."""
    end = time.monotonic() + _BUILDING
    while time.monotonic() < end:
        reply = context.request.get(path)
        if reply.status != 503 and _LEFT_OUT not in reply.text():
            return
        time.sleep(1)


def _first_paint(context: BrowserContext, path: str) -> float:
    """Return the milliseconds until a page shows its first content."""
    page = context.new_page()
    try:
        reply = page.goto(path)
        if reply is None or reply.status != 200:
            status = reply.status if reply else "nothing"
            said = page.locator("main").inner_text() if reply else ""
            raise BenchError(f"the console: {path} is {status}, not 200: {said}")
        if _LEFT_OUT in page.content():
            raise BenchError(f"the console: {path} leaves out a part")
        return float(page.evaluate(_PAINT))
    finally:
        page.close()
