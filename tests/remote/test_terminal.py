"""Output on a terminal and in a pipe, and shell completion."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.model import AssignIP, CreateIP
from tests.conftest import Member

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("kazoo-ips")
PLACE = ("us-east", "proxy1.example.com")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

OnTerminal = Callable[..., str]


@pytest.fixture
def on_terminal(live: str, operator: Member, tmp_path: Path) -> OnTerminal:
    """A function that runs `kazoo-ips` by URL on a terminal, and returns what it shows."""

    def run(*words: str, **environment: str) -> str:
        own = {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50", **environment}
        kept = {k: v for k, v in os.environ.items() if k[:5] != "COUCH" and k != "NO_COLOR"}
        child, descriptor = pty.fork()
        if child == 0:
            arguments = [str(COMMAND), "--url", live, "--token", operator.token, *words]
            os.execve(COMMAND, arguments, {**kept, "XDG_CONFIG_HOME": str(tmp_path), **own})
        shown = b""
        while select.select([descriptor], [], [], 30)[0]:
            try:
                part = os.read(descriptor, 65_536)
            except OSError:  # the command has ended
                break
            shown += part
        os.close(descriptor)
        assert os.waitpid(child, 0)[1] == 0, shown
        return shown.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def filled(pool: object, services: Instance, alice: Member) -> None:
    """Two addresses, one of them Alice's."""
    for address in ("192.0.2.1", "192.0.2.2"):
        services.pool.create(CreateIP(address, *PLACE), "0" * 32)
    services.ips.assign(AssignIP(alice.id, "192.0.2.2"), "0" * 32)


@pytest.mark.usefixtures("filled")
def test_a_table_on_a_terminal_has_colours_and_no_frame_of_kazoos(
    on_terminal: OnTerminal, alice: Member
) -> None:
    shown = on_terminal("summary")
    assert COLOUR.search(shown)
    lines = ESCAPE.sub("", shown).splitlines()
    assert not any(line.startswith("+--") for line in lines)
    [row] = [line.split() for line in lines if "192.0.2.2" in line]
    assert row == ["192.0.2.2", "assigned", *PLACE, alice.id, "Alice"]


@pytest.mark.usefixtures("filled")
def test_no_color_and_a_dumb_terminal_are_respected(on_terminal: OnTerminal) -> None:
    without = on_terminal("summary", NO_COLOR="1")
    assert not COLOUR.search(without)
    assert "192.0.2.2" in without
    dumb = on_terminal("summary", TERM="dumb")
    assert "\x1b" not in dumb
    assert dumb.startswith("+-----")


@pytest.mark.usefixtures("filled")
def test_json_on_a_terminal_is_json(on_terminal: OnTerminal) -> None:
    lines = [json.loads(line) for line in on_terminal("summary", "--json").splitlines()]
    assert [line["ip"] for line in lines] == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.usefixtures("pool")
def test_an_import_shows_its_progress_on_a_terminal_only(on_terminal: OnTerminal) -> None:
    shown = ESCAPE.sub("", on_terminal("add", "198.51.100.0/28", *PLACE))
    assert "importing" in shown
    assert "16/16" in shown
    assert "198.51.100.15 added" in shown
    assert shown.rstrip().endswith("16 added")
    assert "importing" not in on_terminal("add", "198.51.100.0/28", *PLACE, TERM="dumb")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_can_be_loaded(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    script = subprocess.run([COMMAND, "completion", shell], capture_output=True, check=True)
    start = b"autoload -U compinit && compinit -u\n" if shell == "zsh" else b""
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    loaded = subprocess.run(
        [shell, *options], input=start + script.stdout, capture_output=True, check=False
    )
    assert (loaded.returncode, loaded.stderr) == (0, b"")


@pytest.fixture
def complete(
    live: str, operator: Member, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., set[str]]:
    """A function that returns what a shell suggests for the last word of a command line."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def suggestions(*words: str, url: str = live, local: bool = False) -> set[str]:
        options = [] if local else ["--url", url, "--token", operator.token]
        complete = BashComplete(cli, {}, "kazoo-ips", "_KAZOO_IPS_COMPLETE")
        found = complete.get_completions([*options, *words[:-1]], words[-1])
        return {each.value for each in found}

    return suggestions


@pytest.mark.usefixtures("filled")
def test_arguments_are_completed_from_the_service(
    complete: Callable[..., set[str]], alice: Member
) -> None:
    assert {"assign", "add", "account"} <= complete("a")
    assert complete("add", "192.0.2.9", "us") == {"us-east"}
    assert complete("add", "192.0.2.9", "us-east", "pr") == {"proxy1.example.com"}
    assert complete("assign", "192.0.2.") == {"192.0.2.1", "192.0.2.2"}
    assert complete("assign", "198.") == set()
    assert complete("assign", "1") == {"192.0.2.1", "192.0.2.2"}
    assert alice.account.realm in complete("assign", "192.0.2.1", "alice-")
    assert complete("release", "--account", alice.id[:30]) == {alice.id}
    assert "192.0.2.1" in complete("history", "")


@pytest.mark.usefixtures("filled")
def test_arguments_are_completed_from_couchdb(
    complete: Callable[..., set[str]],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert complete("assign", "192.0.2.", local=True) == {"192.0.2.1", "192.0.2.2"}
    assert complete("summary", "pr", local=True) == {"proxy1.example.com"}


def test_without_a_service_nothing_is_suggested(complete: Callable[..., set[str]]) -> None:
    assert complete("assign", "192.", url="http://127.0.0.1:1") == set()
    assert complete("assign", "192.", url="nonsense") == set()
