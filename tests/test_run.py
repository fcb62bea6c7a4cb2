"""`make run`, as a newcomer runs it: its own processes, free ports, a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from embedded import EmbeddedCouch

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "embedded.run"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Run:
    """One `python -m embedded.run`, started in a process group of its own, as a shell does."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.port, self.couch_port = free_port(), free_port()
        self.environ = {
            **{k: v for k, v in os.environ.items() if k != "COUCHDB_URL"},
            "PORT": str(self.port),
            "COUCHDB_PORT": str(self.couch_port),
            "KAZOO_IPS_DATA": str(folder),
            "KAZOO_IPS_WORKERS": "1",
            **environ,
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            lines.append(line)
        self.said = "".join(lines)
        self.children = [
            pid for pid in processes() if f"=127.0.0.1:{self.port}\0" in environ_of(pid)
        ] + children_of(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote on stderr, when it has ended."""
        errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode, errors

    def fail(self) -> str:
        """The one line of a start that fails."""
        result = subprocess.run(
            COMMAND,
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.rstrip("\n")

    def curl(self) -> Any:
        """What the printed curl line answers."""
        [line] = [line for line in self.said.splitlines() if line.startswith("curl ")]
        printed = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(printed.stdout)

    def accounts(self) -> list[str]:
        """The lines about accounts, passwords included."""
        return [line for line in self.said.splitlines() if " account " in line]


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def environ_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def children_of(parent: int) -> list[int]:
    return [pid for pid in processes() if stat_of(pid)[1:2] == [str(parent)]]


def stat_of(pid: int) -> list[str]:
    """State, parent and more of a process; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    return stat_of(pid)[:1] not in ([], ["Z"])


def nothing_is_left(run: Run) -> bool:
    end = time.monotonic() + 5
    while any(alive(pid) for pid in run.children):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    for port in (run.port, run.couch_port):
        socket.create_server(("127.0.0.1", port)).close()
    return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """A function that starts it and returns when it has said that it runs."""
    started: list[Run] = []

    def make(folder: Path = tmp_path, **environ: str) -> Run:
        run = Run(folder, **environ)
        run.start()
        started.append(run)
        return run

    yield make
    for run in started:
        with run.process as process:
            process.terminate()


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@linux
def test_first_and_second_start(start: Callable[..., Run], tmp_path: Path) -> None:
    first = start()
    answer = first.curl()
    assert answer["status"] == "success"
    assert {"192.0.2.2", "198.51.100.1", "2001:db8::2"} <= {each["ip"] for each in answer["data"]}
    assert "192.0.2.1" not in {each["ip"] for each in answer["data"]}
    assert len(first.accounts()) == 2
    logins = tmp_path / "logins.json"
    assert logins.stat().st_mode & 0o777 == 0o600
    assert all(login["password"] in first.said for login in json.loads(logins.read_text()))
    assert len(first.children) >= 3  # the database, gunicorn and its worker

    os.killpg(first.process.pid, signal.SIGINT)  # Ctrl-C in a terminal
    assert first.end() == (0, "")
    assert nothing_is_left(first)

    second = start()
    assert second.accounts() == first.accounts()
    assert second.curl()["data"] == answer["data"]
    second.process.send_signal(signal.SIGINT)
    assert second.end() == (0, "")
    assert nothing_is_left(second)


@linux
@pytest.mark.parametrize("command", ["server.js", "gunicorn"])
def test_when_one_of_its_processes_dies_the_rest_is_stopped(
    start: Callable[..., Run], command: str
) -> None:
    run = start()
    [victim] = [
        pid
        for pid in children_of(run.process.pid)
        if command in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(victim, signal.SIGKILL)
    status, errors = run.end()
    assert status == 1
    assert errors.endswith("ended with status -9\n")
    assert errors.count("\n") == 1
    assert nothing_is_left(run)


@linux
def test_after_a_kill_nothing_is_left_and_the_next_one_starts_at_once(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    killed = start()
    ports = {"PORT": str(killed.port), "COUCHDB_PORT": str(killed.couch_port)}
    killed.process.kill()
    following = start(tmp_path, **ports)
    assert following.accounts() == killed.accounts()
    assert not any(alive(pid) for pid in killed.children)
    following.process.send_signal(signal.SIGINT)
    assert following.end() == (0, "")


@linux
def test_with_couchdb_url_it_starts_no_database(start: Callable[..., Run], tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path / "other") as other:
        prefix = f"run-{uuid4().hex[:8]}-"
        run = start(tmp_path, COUCHDB_URL=other.url, KAZOO_IPS_PREFIX=prefix)
        assert run.curl()["status"] == "success"
        assert f"Fauxton    {other.url}/_utils/" in run.said
        assert not any(
            "server.js" in Path(f"/proc/{pid}/cmdline").read_text()
            for pid in children_of(run.process.pid)
        )
        run.process.terminate()
        assert run.end() == (0, "")
        assert nothing_is_left(run)
        connection = HTTPConnection("127.0.0.1", other.port, timeout=10)
        connection.request("GET", "/_all_dbs")
        names = json.loads(connection.getresponse().read())
        connection.close()
        assert all(name.startswith(prefix) for name in names)
        assert f"{prefix}dedicated_ips" in names


@pytest.mark.parametrize("name", ["PORT", "COUCHDB_PORT"])
def test_a_port_in_use_is_one_line(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "data")
    with socket.create_server(("127.0.0.1", int(run.environ[name]))):
        said = run.fail()
    assert said.startswith(f"port {run.environ[name]} cannot be used: ")
    assert f"{name}=" in said
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_none_is_one_line(tmp_path: Path) -> None:
    assert Run(tmp_path, PORT="http").fail() == "PORT: 'http' is not a port"


def test_a_broken_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = Run(tmp_path / "file").fail()
    assert said.startswith(f"the data folder {tmp_path / 'file'} cannot be used: ")
    (tmp_path / "logins.json").write_text("nonsense")
    said = Run(tmp_path).fail()
    assert said.startswith(f"the data folder {tmp_path} cannot be used: ")


def test_an_unreachable_couchdb_is_one_line_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    said = Run(tmp_path, COUCHDB_URL=f"http://admin:secret@127.0.0.1:{port}").fail()
    assert said.startswith(f"the CouchDB at http://127.0.0.1:{port} cannot be used: ")
    assert "refused" in said


def test_a_couchdb_without_tls_is_told_with_the_whole_error(tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path / "couch") as couch:
        said = Run(tmp_path, COUCHDB_URL=f"https://127.0.0.1:{couch.port}").fail()
    assert said.startswith(f"the CouchDB at https://127.0.0.1:{couch.port} cannot be used: [SSL: ")
    assert "wrong version number" in said.lower()


def test_a_couchdb_url_that_is_none_is_one_line_with_the_form_of_one(tmp_path: Path) -> None:
    said = Run(tmp_path, COUCHDB_URL="admin:secret@127.0.0.1:5984").fail()
    assert said.startswith("COUCHDB_URL: '***@127.0.0.1:5984' is not of the form http://")


def test_a_setting_out_of_range_is_one_line(tmp_path: Path) -> None:
    said = Run(tmp_path, KAZOO_IPS_WORKERS="0").fail()
    assert said == "KAZOO_IPS_WORKERS: out of range"
