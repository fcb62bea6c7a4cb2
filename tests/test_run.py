"""`make run`, in processes of its own, on free ports and with a data folder of its own."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import pytest

from embedded import EmbeddedCouch
from tests.make_run import Run, alive, children_of
from tests.servers import free_port

pytestmark = pytest.mark.slow


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
    """A function that starts `make run`, and returns when it has printed that it runs."""
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
    listed = {each["ip"] for each in answer["data"]}
    assert "203.0.113.2" in listed
    assert "203.0.113.1" not in listed
    operator = next(line for line in first.accounts() if line.startswith("Operator"))
    assert first.said.startswith(f"\nConsole    http://127.0.0.1:{first.port}/console (")
    assert operator.rpartition(" ")[2] in first.said.splitlines()[1]
    assert len(first.accounts()) == 2
    assert list(first.to_paste()) == ["API", "ACCOUNT", "PASSWORD", "TOKEN"]
    logins = tmp_path / "logins.json"
    assert logins.stat().st_mode & 0o777 == 0o600
    assert all(login["password"] in first.said for login in json.loads(logins.read_text()))
    assert len(first.children) >= 3  # the database, gunicorn and its worker

    os.killpg(first.process.pid, signal.SIGINT)  # Ctrl-C in a terminal
    assert first.end() == (0, "")
    assert nothing_is_left(first)

    second = start()
    assert second.to_paste()["PASSWORD"] == first.to_paste()["PASSWORD"]
    assert second.accounts() == first.accounts()
    assert second.curl()["data"] == answer["data"]
    second.process.send_signal(signal.SIGINT)
    assert second.end() == (0, "")
    assert nothing_is_left(second)


@linux
@pytest.mark.parametrize("command", ["server.js", "gunicorn"])
def test_when_one_process_dies_the_others_are_stopped(
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
    *logged, last = errors.splitlines()
    assert last.endswith("ended with status -9")
    # On a busy machine, the service may log that its database is unreachable before it is stopped.
    of_service = "background work failed and will be repeated"
    assert not [line for line in logged if command == "gunicorn" or of_service not in line]
    assert nothing_is_left(run)


@linux
def test_after_a_kill_no_process_is_left_and_the_next_start_succeeds(
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
        error = run.fail()
    assert error.startswith(f"port {run.environ[name]} cannot be used: ")
    assert f"{name}=" in error
    assert not (tmp_path / "data").exists()


def test_an_invalid_port_is_one_line(tmp_path: Path) -> None:
    assert Run(tmp_path, PORT="http").fail() == "PORT: 'http' is not a port"


def test_a_broken_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = Run(tmp_path / "file").fail()
    assert error.startswith(f"the data folder {tmp_path / 'file'} cannot be used: ")
    (tmp_path / "logins.json").write_text("nonsense")
    error = Run(tmp_path).fail()
    assert error.startswith(f"the data folder {tmp_path} cannot be used: ")


def test_an_unreachable_couchdb_is_one_line_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    error = Run(tmp_path, COUCHDB_URL=f"http://admin:secret@127.0.0.1:{port}").fail()
    assert error.startswith(f"the CouchDB at http://127.0.0.1:{port} cannot be used: ")
    assert "refused" in error


def test_a_tls_error_is_shown_in_full(tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path / "couch") as couch:
        error = Run(tmp_path, COUCHDB_URL=f"https://127.0.0.1:{couch.port}").fail()
    url = f"https://127.0.0.1:{couch.port}"
    reason = f"TLS failed: wrong version number (port {couch.port})"
    assert error == f"the CouchDB at {url} cannot be used: {reason}"


def test_an_invalid_couchdb_url_is_one_line_with_the_expected_form(tmp_path: Path) -> None:
    error = Run(tmp_path, COUCHDB_URL="admin:secret@127.0.0.1:5984").fail()
    assert error.startswith("COUCHDB_URL: '***@127.0.0.1:5984' is not of the form http://")


def test_a_setting_out_of_range_is_one_line(tmp_path: Path) -> None:
    error = Run(tmp_path, KAZOO_IPS_WORKERS="0").fail()
    assert error == "KAZOO_IPS_WORKERS: out of range"
