"""The supervisor with minimal releases: which of them serves, and which it refuses."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kazoo_ips.config import BadSetting
from kazoo_ips.server import settings_file
from tests.servers import free_port

pytestmark = pytest.mark.slow

RELEASE = Path(__file__).with_name("release.py")
IMPATIENT = """
import sys
from kazoo_ips.server import release_switch
release_switch.START_TIMEOUT = 1.5
release_switch.main(sys.argv[1:])
"""


class Service:
    """A supervisor in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = folder / "settings"
        self.run = folder / "run"
        self.run.mkdir()
        self.bind(f"127.0.0.1:{self.port}")

    def bind(self, binds: str, more: str = "") -> None:
        """Write the settings."""
        self.settings.write_text(f"KAZOO_IPS_BIND={binds}\n{more}")

    def release(self, name: str, status: int = 200) -> None:
        """Create a release and point `current` to it."""
        python = self.folder / name / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\nexec {sys.executable} {RELEASE} {name} {status}\n")
        python.chmod(0o755)
        link = self.folder / "new"
        link.symlink_to(name)
        link.replace(self.folder / "current")

    def start(self) -> None:
        """Start the supervisor, and wait until the first release replies."""
        (self.run / "serving.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, self.folder, self.settings, self.run],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.wait_for(0)

    def wait_for(self, change: int) -> dict[str, Any]:
        """Return the supervisor's state after the change of that number."""
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            path = self.run / "serving.json"
            state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
            if state.get("changes", -1) >= change:
                return state
            time.sleep(0.02)
        raise AssertionError(self.process.stderr and self.process.stderr.read())

    def reload(self) -> dict[str, Any]:
        """Send SIGHUP, and return the state after the change."""
        change: int = json.loads((self.run / "serving.json").read_text())["changes"] + 1
        self.process.send_signal(signal.SIGHUP)
        return self.wait_for(change)

    def answer(self, host: str = "127.0.0.1", port: int = 0) -> list[str]:
        """Return name, process id and log level of the release that serves a new connection."""
        connection = http.client.HTTPConnection(host, port or self.port, timeout=10)
        connection.request("GET", "/", headers={"Connection": "close"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text.split(" ")

    def until(self, holds: Callable[[], bool]) -> bool:
        """Return whether the condition holds within some seconds."""
        end = time.monotonic() + 10
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def names(self, name: str) -> bool:
        """Return whether the release of that name replies within some seconds."""
        return self.until(lambda: self.answer()[0] == name)


@pytest.fixture
def service() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="kazoo-ips-"))
    service = Service(folder)
    service.release("one")
    service.start()
    yield service
    with service.process as process:
        process.terminate()
    shutil.rmtree(folder)


def test_a_healthy_release_takes_over_and_the_old_one_ends(service: Service) -> None:
    old = int(service.answer()[1])
    service.release("two")
    state = service.reload()
    assert (state["release"], state["refused"]) == (str(service.folder / "two"), "")
    assert service.names("two")
    assert service.until(lambda: not Path(f"/proc/{old}").exists())


def test_a_release_that_is_not_ready_never_answers_a_client(service: Service) -> None:
    old = service.answer()
    service.release("two", 503)
    state = service.reload()
    assert state["release"] == str(service.folder / "one")
    assert state["refused"] == "/readyz answers 503"
    assert service.answer() == old
    assert service.until(lambda: len(list(service.run.glob("*.sock"))) == 1)


def test_a_missing_release_is_refused(service: Service) -> None:
    shutil.rmtree(service.folder / "one")
    assert "No such file" in service.reload()["refused"]
    assert service.answer()[0] == "one"


def test_settings_are_read_again_at_a_reload(service: Service) -> None:
    assert service.answer()[2] == ""
    service.bind(f"127.0.0.1:{service.port}", "KAZOO_IPS_LOG_LEVEL=debug\n")
    assert service.reload()["refused"] == ""
    assert service.until(lambda: service.answer()[2] == "debug")


def test_a_malformed_settings_line_changes_nothing_and_is_not_quoted(service: Service) -> None:
    service.settings.write_text("COUCHDB_URL http://user:secret@127.0.0.1\n")
    assert service.reload()["refused"] == f"{service.settings}, line 1: not NAME=value"
    assert service.answer()[0] == "one"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="has no IPv6")
def test_changed_listen_addresses_are_opened_and_closed(service: Service) -> None:
    first, other = service.port, free_port()
    service.bind(f"127.0.0.1:{first}, [::1]:{other}")
    assert service.reload()["refused"] == ""
    assert service.answer("::1", other)[0] == service.answer()[0] == "one"
    both = free_port()
    service.bind(f"[::]:{both}")
    assert service.reload()["refused"] == ""
    assert service.answer("::1", both)[0] == service.answer("127.0.0.1", both)[0] == "one"
    assert service.until(lambda: closed(first))


def test_a_listen_address_in_use_changes_nothing(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service.bind(f"127.0.0.1:{service.port},127.0.0.1:{port}")
        refused = service.reload()["refused"]
    assert refused.startswith(f"KAZOO_IPS_BIND: 127.0.0.1:{port}: ")
    assert service.answer()[0] == "one"


def test_the_path_of_a_unix_socket_is_refused(service: Service) -> None:
    service.bind("unix:/tmp/x.sock")
    assert "host:port only" in service.reload()["refused"]
    assert service.answer()[0] == "one"


def closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_gunicorn_that_dies_is_started_again_and_clients_wait(service: Service) -> None:
    old = service.answer()
    os.kill(int(old[1]), signal.SIGKILL)
    new = service.answer()
    assert new[0] == "one"
    assert new[1] != old[1]


def test_gunicorn_ends_when_the_supervisor_is_killed(service: Service) -> None:
    old = int(service.answer()[1])
    service.process.kill()
    assert service.until(lambda: not Path(f"/proc/{old}").exists())
    assert closed(service.port)
    service.process.communicate()
    service.start()  # the pid file of the dead supervisor does not prevent a start
    assert service.answer()[0] == "one"


def test_only_one_supervisor_runs_and_a_stop_leaves_no_process(service: Service) -> None:
    second = subprocess.run(
        [sys.executable, "-c", IMPATIENT, service.folder, service.settings, service.run],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert (
        second.stderr
        == f"cannot start: another supervisor runs: {service.run / 'pid'} is locked\n"
    )
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert closed(service.port)
    assert list(service.run.glob("*.sock")) == []


def test_the_settings_file_has_comments_quotes_and_passwords_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("# one\n; two\n\nA=b c\nB=\"quoted \"\nC='it's'\nD=$x%#\\=\nE=\nF=\"\n")
    assert settings_file.read(file) == {
        "A": "b c", "B": "quoted ", "C": "it's", "D": "$x%#\\=", "E": "", "F": '"',
    }  # fmt: skip


@pytest.mark.parametrize("text", ["A", "export A=b", "A B=c", "1=2", "=x"])
def test_a_malformed_settings_line_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings"
    file.write_text(f"A=b\n{text}\n")
    with pytest.raises(BadSetting, match="line 2: not NAME=value"):
        settings_file.read(file)


def test_a_command_runs_with_the_files_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("KAZOO_IPS_BIND=here\n")
    command = [sys.executable, "-m", "kazoo_ips.settings_file", str(file)]
    program = ["/bin/sh", "-c", 'echo "$KAZOO_IPS_BIND $0"', "there"]
    result = subprocess.run([*command, *program], capture_output=True, text=True, check=True)
    assert result.stdout == "here there\n"
    result = subprocess.run([*command[:-1], "/no", *program], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (1, b"/no: No such file or directory\n")
