"""Commands in this process, on CouchDB and over the API of a live service."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kazoo_ips import cli
from tests.conftest import Member


@dataclass(frozen=True)
class Done:
    """The result of a command: exit status, output, errors."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that is `kazoo-ips` on the command line."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["kazoo-ips", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        status: Any = end.value.code or 0
        out, err = capsys.readouterr()
        lines = err.splitlines(keepends=True)
        # Audit lines are on standard error if the system has no log.
        return Done(status, out, "".join(line for line in lines if not line.startswith('{"time"')))

    return call


@pytest.fixture
def without_couchdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a machine without CouchDB, with a home of its own."""
    for name in ("COUCHDB_URL", "COUCHDB_ADMIN_URL", "KAZOO_IPS_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def by_url(run: Run, without_couchdb: None, live: str, operator: Member) -> Run:
    """A function that runs `kazoo-ips` over the API, with the operator's token."""

    def call(*arguments: str, token: str = operator.token) -> Done:
        return run("--url", live, "--token", token, *arguments)

    return call


@pytest.fixture
def on_couchdb(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, operator: Member
) -> Run:
    """A function that runs `kazoo-ips` on the database of the tests."""

    def call(*arguments: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return run(*arguments)

    return call
