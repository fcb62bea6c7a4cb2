"""The page of the API's description, in a real browser; skipped if there is none."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request

from kazoo_ips.api import examples
from kazoo_ips.model import DedicatedIP
from tests.browsers import complaints_of, launched
from tests.conftest import Member
from tests.openapi_check import CheckedApp


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a new browser. Errors on its console fail the test."""
    with launched() as browser:
        opened = browser.new_page()
        opened.set_default_timeout(20_000)
        complaints = complaints_of(opened)
        yield opened
    assert complaints == []


def operation(page: Page, method: str, path: str) -> Locator:
    """Open an operation on the page."""
    block = page.locator(f".opblock-{method.lower()}").filter(
        has=page.locator(f'[data-path="{path}"]')
    )
    block.locator(".opblock-summary-control").click()
    return block


def authorize(page: Page, token: str) -> None:
    """Enter a token on the page."""
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux .auth-container", has_text="X-Auth-Token")
    dialog.get_by_role("textbox").fill(token)
    dialog.get_by_role("button", name=re.compile("^Apply|^Authorize")).click()
    page.locator(".dialog-ux .btn-done").first.click()


def execute(block: Locator, **parameters: str) -> tuple[str, str]:
    """Send an operation's request; return the status and body that the page shows."""
    for name, value in parameters.items():
        block.locator(f'tr[data-param-name="{name}"] input').fill(value)
    block.get_by_role("button", name="Execute").click()
    shown = block.locator(".live-responses-table .response")
    status = shown.locator(".response-col_status").inner_text().split()[0]
    return status, shown.locator(".highlight-code").first.inner_text()


def test_a_user_sends_a_request_from_the_page_and_sees_its_reply(
    live: str, page: Page, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.1")
    sent: list[str] = []

    def note(request: Request) -> None:
        sent.append(request.url)

    page.on("request", note)
    page.goto(f"{live}/v2/docs")
    block = operation(page, "GET", "/v2/accounts/{account_id}/ips")
    authorize(page, alice.token)
    status, body = execute(block, account_id=alice.id)
    assert status == "200"
    assert "192.0.2.1" in body
    post = operation(page, "POST", "/v2/accounts/{account_id}/ips/{address}")
    status, body = execute(post, account_id=alice.id, address="192.0.2.1")
    assert status == "200"
    assert "assigned_to" in body
    elsewhere = [url for url in sent if not url.startswith((live, "data:", "blob:"))]
    assert elsewhere == []


def test_the_page_keeps_its_login_over_a_reload_and_has_the_examples_filled_in(
    live: str, page: Page, sample_pool: None, operator: Member
) -> None:
    page.goto(f"{live}/v2/docs")
    page.get_by_role("button", name="Authorize").first.click()
    assert page.locator(".dialog-ux h4").first.inner_text().startswith("XAuthToken")
    page.locator(".dialog-ux .close-modal").click()
    authorize(page, operator.token)
    page.reload()
    for method, path, tells in (
        ("GET", "/v2/accounts/{account_id}/ips", "192.0.2.3"),
        ("GET", "/v2/accounts/{account_id}/ips/{address}", examples.ACCOUNT_ID),
        ("POST", "/v2/accounts/{account_id}/ips/{address}", examples.ACCOUNT_ID),
        ("DELETE", "/v2/accounts/{account_id}/ips/{address}", "available"),
        ("PUT", "/v2/ips", "192.0.2.21"),
    ):
        status, body = execute(operation(page, method, path))
        assert (status[0], tells in body) == ("2", True), (method, path, status, body)
        assert "dry_run" not in body


def test_the_page_may_run_only_its_own_scripts(api: CheckedApp) -> None:
    reply = api.get("/v2/docs", status=200)
    assert reply.content_type == "text/html"
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="([^"]+)"', reply.text):
        assert name.startswith("/v2/")
        part: Any = api.get(name, status=200)
        assert part.body
        tag = part.headers["ETag"]
        api.get(name, headers={"If-None-Match": tag}, status=304)


def test_an_unknown_file_of_the_page_is_404(api: CheckedApp) -> None:
    for name in ("nothing.js", "..%2Fpage.html", "__init__.py", "swagger-ui.js.map"):
        api.get(f"/v2/docs/{name}", status=404)
