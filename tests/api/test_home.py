"""`/` and `/v2`: links to the documentation, as a page for browsers and else in the envelope."""

import re
from urllib.parse import urlsplit

import pytest

from tests.api.replies import success
from tests.openapi_check import CheckedApp

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
HOMES = ["/", "/v2", "/v2/"]


@pytest.mark.parametrize("path", HOMES)
@pytest.mark.parametrize("accept", ["", "*/*", "application/json, text/html;q=0.9"])
def test_a_program_gets_the_links_in_the_envelope(api: CheckedApp, path: str, accept: str) -> None:
    links = success(api.get(path, headers={"Accept": accept}, status=200), None)
    assert links["docs"] == "/v2/docs"
    assert links.pop("console") == "/console/login"
    for link in links.values():
        api.get(link, status=200)


@pytest.mark.parametrize("path", HOMES)
def test_a_browser_gets_a_page_with_the_same_links(api: CheckedApp, path: str) -> None:
    links = success(api.get(path, status=200), None)
    reply = api.get(path, headers={"Accept": BROWSER}, status=200)
    assert reply.content_type == "text/html"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert re.findall(r'href="([^"]+)"', reply.text) == [*links.values()]
    assert all(urlsplit(link).netloc == "" for link in links.values())


def test_a_client_that_accepts_neither_gets_406(api: CheckedApp) -> None:
    api.get("/", headers={"Accept": "image/png"}, status=406)
