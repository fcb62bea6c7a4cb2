"""`make run` as a process of its own, on free ports and with a data folder of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import free_port

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "embedded.run"]


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
        """Wait until it has ended; return its exit status and its standard error."""
        errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode, errors

    def fail(self) -> str:
        """Return the one line of a start that fails."""
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

    def to_paste(self) -> dict[str, str]:
        """Return the variables that it prints for a shell."""
        return dict(re.findall(r"^export (\w+)=(\S+)$", self.said, re.MULTILINE))

    def curl(self) -> Any:
        """Run the printed curl line after the variables, and return the reply."""
        [line] = [line for line in self.said.splitlines() if line.startswith("curl ")]
        pasted = self.said[self.said.index("export ") : self.said.index(line) + len(line)]
        printed = subprocess.run(
            ["sh", "-c", pasted], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(printed.stdout)

    def accounts(self) -> list[str]:
        """The printed lines about accounts, with their passwords."""
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
    """Return state, parent and more of a process; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    return stat_of(pid)[:1] not in ([], ["Z"])
