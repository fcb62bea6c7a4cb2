"""Commands in this process, on CouchDB and over the API of a live service."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_results import CommandResult, run_kazoo_ips
from tests.conftest import Member

Run = Callable[..., CommandResult]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that is `kazoo-ips` on the command line."""

    return lambda *arguments: run_kazoo_ips(arguments, capsys, monkeypatch)


@pytest.fixture
def without_couchdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a machine without CouchDB, with a home directory of its own."""
    for name in ("COUCHDB_URL", "COUCHDB_ADMIN_URL", "KAZOO_IPS_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def by_url(run: Run, without_couchdb: None, live: str, operator: Member) -> Run:
    """A function that runs `kazoo-ips` over the API, with the operator's token."""

    def call(*arguments: str, token: str = operator.token) -> CommandResult:
        return run("--url", live, "--token", token, *arguments)

    return call


@pytest.fixture
def on_couchdb(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, operator: Member
) -> Run:
    """A function that runs `kazoo-ips` on the database of the tests."""

    def call(*arguments: str) -> CommandResult:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return run(*arguments)

    return call
