"""Runs `kazoo-ips` in this process, as its entry point does."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from kazoo_ips import cli


@dataclass(frozen=True)
class CommandResult:
    """The result of a command: its exit status, and what it wrote on stdout and stderr."""

    status: int
    out: str
    err: str


def output(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return what a command has written on stdout and stderr, without its audit lines.

    Audit lines are on stderr if the system has no log.
    """
    out, err = capsys.readouterr()
    lines = err.splitlines(keepends=True)
    return out, "".join(line for line in lines if not line.startswith('{"time"'))


def run_kazoo_ips(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> CommandResult:
    """Run `kazoo-ips` with these arguments."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["kazoo-ips", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    status: Any = end.value.code or 0
    return CommandResult(status, *output(capsys))
