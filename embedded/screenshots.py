"""`make screenshots`: the pictures of the console in the documentation, from the sample data.

Starts `make run` in a folder of its own, and opens pages in Chromium.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, sync_playwright

from kazoo_ips.api import examples

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {
    "console.png": ("/console", "light", 1200, 640),
    "console-zone.png": ("/console/zone?name=us-east", "light", 1200, 760),
    "console-address.png": ("/console/addresses/192.0.2.101", "light", 1200, 560),
    "console-account.png": (f"/console/accounts/{examples.ACCOUNT_ID}", "dark", 1200, 640),
    "console-phone.png": ("/console", "dark", 390, 760),
}
"""The file of each picture; the page, the colour scheme, and the size of the window."""
_BROWSERS = ("chromium", "google-chrome", "chrome")


def main() -> None:
    """`python -m embedded.screenshots`."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        sys.exit(f"no browser is installed ({', '.join(_BROWSERS)})")
    with TemporaryDirectory() as folder, _service(Path(folder)) as url:
        [operator, _] = json.loads((Path(folder) / "logins.json").read_text())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
            page = _window(browser, "light", 1200, 640)
            _log_in(page, url, operator["password"])
            _await_forecasts(page)
            page.context.close()
            for name, (path, scheme, width, height) in PICTURES.items():
                page = _window(browser, scheme, width, height)
                _log_in(page, url, operator["password"])
                page.goto(f"{url}{path}", wait_until="networkidle")
                page.screenshot(path=DOCS / name)
                print(DOCS / name)
                page.context.close()
            browser.close()


def _await_forecasts(page: Page) -> None:
    """Load the overview until the archive has the history from which the forecasts are made."""
    for _ in range(60):
        if not page.locator("td.n .quiet").count():
            return
        page.wait_for_timeout(1000)
        page.reload(wait_until="networkidle")
    sys.exit("no forecast after a minute")


@contextmanager
def _service(folder: Path) -> Iterator[str]:
    """Run the service on the sample data, and yield its URL."""
    ports = [str(_free_port()), str(_free_port())]
    environ = {k: v for k, v in os.environ.items() if k != "COUCHDB_URL"}
    environ |= {"PORT": ports[0], "COUCHDB_PORT": ports[1], "KAZOO_IPS_DATA": str(folder)}
    command = [sys.executable, "-m", "embedded.run"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                if line.startswith("Ctrl-C"):
                    break
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _window(browser: Browser, scheme: str, width: int, height: int) -> Page:
    return browser.new_page(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
    )


def _log_in(page: Page, url: str, password: str) -> None:
    page.goto(f"{url}/console/login")
    page.get_by_label("Account").fill("operator.example.com")
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/console")


if __name__ == "__main__":
    main()
