"""The files of the pages: those of npm equal the files in their packages, and none is missing."""

import re
from pathlib import Path

import pytest

from kazoo_ips.console import assets
from tests.console.browsing import Browser

HERE = Path(__file__).parent
STATIC = Path(assets.__file__).parent / "static"
TEMPLATES = Path(assets.__file__).parent / "templates"
SHIPPED = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_that_of_the_package(packages: Path, name: str) -> None:
    assert (STATIC / name).read_bytes() == (packages / SHIPPED[name]).read_bytes()


def test_the_lock_file_has_the_hash_of_each_package_and_no_registry() -> None:
    text = (HERE / "package-lock.json").read_text()
    assert len(re.findall(r'"integrity": "sha512-', text)) == text.count('"node_modules/')
    assert "resolved" not in text


def test_every_file_is_served_and_named() -> None:
    assert {path.name for path in STATIC.iterdir()} == set(assets.MEDIA)
    named = set()
    for path in TEMPLATES.glob("*.html"):
        named |= set(re.findall(r"asset_url\('([\w.]+)'\)", path.read_text()))
    assert named <= set(assets.MEDIA)


def test_every_template_is_used() -> None:
    package = TEMPLATES.parent
    text = "".join(p.read_text() for p in (*package.glob("*.py"), *TEMPLATES.glob("*.html")))
    assert [p.name for p in TEMPLATES.glob("*.html") if f'"{p.name}"' not in text] == []


def test_a_browser_keeps_a_file_until_its_content_changes(visitor: Browser) -> None:
    for name, media in assets.MEDIA.items():
        reply = visitor.get(f"/console/static/{name}", status=200)
        assert reply.headers["Content-Type"] == media
        assert reply.headers["Cache-Control"].endswith("immutable")
        tag = {"If-None-Match": reply.headers["ETag"]}
        visitor.get(f"/console/static/{name}", headers=tag, status=304)
    visitor.get("/console/static/../pages.py", status=404)
    visitor.get("/console/static/%2e%2e%2fpages.py", status=404)
