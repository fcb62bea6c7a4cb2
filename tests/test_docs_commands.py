"""The tests paste the command blocks of README, quick start and API page after a `make run`.

They paste each page unchanged and in order, into sh and into an interactive zsh, which does not
ignore comments. Every curl call must get the status and the reply that the page shows.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded import EmbeddedCouch
from tests.make_run import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/quick-start.md", "docs/api.md", "docs/history.md"]
SHELLS = {"sh": ["sh", "-e"], "zsh": ["zsh", "-f", "-i", "-s"]}

NOT_RUN = {
    "make run",  # the fixture has started it
    "make test",
    "python3 -m venv .venv",  # made by `make install`
    ".venv/bin/pip install .",
}
COUCHDB_URL = "export COUCHDB_URL="
SERVE = "gunicorn -c python:kazoo_ips.gunicorn_conf"
REPLACED = {
    f"{COUCHDB_URL}http://admin:PASSWORD@couch.example.com:5984": f"{COUCHDB_URL}$OTHER",
    SERVE: f"{SERVE} --check-config",
}
NOT_200 = {"If-None-Match": 304, "PUT": 201}
"""The status of the calls that contain these words. All others get 200, or the printed status."""

FAILED = r"not found|no matches|parse error|Usage:|[Uu]nable|failed to|CouchDB"
"""Texts on standard error by which a failed shell or command is recognised."""

CURL = """\
#!/bin/sh
n=$(ls "$CALLS" | wc -l)
"$CURL" -sS "$@" -w '%{stderr}%{http_code}' 2>"$CALLS/$n.status" >"$CALLS/$n.reply"
cat "$CALLS/$n.reply"
"""
"""A script in place of curl. It calls the real curl, and records status and reply."""


@dataclass(frozen=True)
class Call:
    """A curl call of a page, and the expected reply."""

    line: str
    status: int
    reply: Any


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page: language and text."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the text of the command blocks, without the lines that are not run."""
    kept = []
    for language, text in blocks(page):
        lines = text.splitlines() if language == "sh" else []
        kept += [REPLACED.get(line, line) for line in lines if line not in NOT_RUN]
    return kept


def calls(page: str) -> Iterator[Call]:
    """Return the curl calls of a page, in order."""
    after = [*blocks(page)[1:], ("", "")]
    for (language, text), (next_language, printed) in zip(blocks(page), after, strict=True):
        if language != "sh":
            continue
        found = re.findall(r"\bcurl (?:[^\n]*\\\n)*[^\n]*", text)
        for line in found:
            reply = None
            if line is found[-1] and next_language == "json":
                reply = json.loads(re.sub(r", …}$", "}", printed.strip()))
            status = next((code for word, code in NOT_200.items() if word in line), 200)
            yield Call(line, int((reply or {}).get("error", status)), reply)


def fits(printed: Any, found: Any) -> bool:
    """Return whether a value is the printed one. `…` stands for any value."""
    if isinstance(printed, str) and printed.endswith("…"):
        return isinstance(found, str)
    if isinstance(printed, dict):
        return all(fits(printed[name], found[name]) for name in printed)
    if isinstance(printed, list):
        return len(printed) == len(found) and all(map(fits, printed, found))
    return bool(printed == found)


@dataclass(frozen=True)
class Terminal:
    """The environment of a shell beside a `make run`: the recording curl, and another CouchDB."""

    run: Run
    other: str
    folder: Path

    def paste(self, shell: str, page: str) -> None:
        """Paste the printed variables and a page into a new shell, and compare every reply."""
        recorded = self.folder / page.replace("/", "-")
        recorded.mkdir()
        exports = [f"export {name}={value}" for name, value in self.run.to_paste().items()]
        done = subprocess.run(
            SHELLS[shell],
            input="\n".join([*exports, *commands(page), "echo finished", ""]),
            cwd=ROOT,
            env=self.environ(recorded),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, output
        assert "finished" in done.stdout, output
        assert not re.search(FAILED, done.stderr), output
        wanted = [*calls(page)]
        assert len(list(recorded.iterdir())) == 2 * len(wanted), output
        for number, call in enumerate(wanted):
            status = (recorded / f"{2 * number}.status").read_text()
            reply = (recorded / f"{2 * number}.reply").read_text()
            assert status == str(call.status), f"{call.line}\n{reply}"
            assert not call.reply or fits(call.reply, json.loads(reply)), f"{call.line}\n{reply}"

    def environ(self, recorded: Path) -> dict[str, str]:
        """Return the environment of the shell. Calls of curl are recorded in a folder."""
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CURL": str(shutil.which("curl")),
            "CALLS": str(recorded),
            "COUCHDB_URL": f"http://127.0.0.1:{self.run.couch_port}",
            "OTHER": self.other,
        }


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A fresh `make run`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "curl").write_text(CURL)
    (tmp_path / "bin" / "curl").chmod(stat.S_IRWXU)
    # A person is slower than this test. So the rate limit must not refuse calls of a later page.
    run = Run(tmp_path / "data", KAZOO_IPS_ACCOUNT_LIMIT="1000")
    with EmbeddedCouch(tmp_path / "other") as other:
        run.start()
        yield Terminal(run, other.url, tmp_path)
        run.process.terminate()
        run.end()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_pasted_into_sh(terminal: Terminal, page: str) -> None:
    terminal.paste("sh", page)


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh here")
def test_all_pages_can_be_pasted_into_zsh_one_after_the_other(terminal: Terminal) -> None:
    for page in PAGES:
        terminal.paste("zsh", page)


def test_every_line_that_is_not_run_is_in_a_page() -> None:
    lines = {line for page in PAGES for _, text in blocks(page) for line in text.splitlines()}
    assert {*NOT_RUN, *REPLACED} <= lines


def test_a_wrong_reply_would_be_noticed() -> None:
    assert fits({"data": ["…", 1]}, {"data": ["x", 1], "status": "success"})
    assert not fits({"data": ["…", 1]}, {"data": ["x", 2]})
    assert not fits({"data": ["…"]}, {"data": ["x", "y"]})
