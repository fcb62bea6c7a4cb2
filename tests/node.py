"""Runs functions of design documents in Node. Scripts read and write lines of JSON."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedded.server import EmbeddedError, find_node

Ask = Callable[..., dict[str, Any]]


@contextmanager
def running(script: Path) -> Iterator[Ask]:
    """Run a script, and yield a function that sends an object to it and returns its result.

    Without Node the test is skipped, unless the embedded server needs Node as well.
    """
    try:
        node = find_node()
    except EmbeddedError as error:
        if not os.environ.get("COUCHDB_URL"):
            raise
        pytest.skip(str(error))
    pipe = subprocess.PIPE
    with subprocess.Popen([node, str(script)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        sent, received = process.stdin, process.stdout

        def ask(**members: Any) -> dict[str, Any]:
            print(json.dumps(members), file=sent, flush=True)
            answer: dict[str, Any] = json.loads(received.readline())
            assert "error" not in answer, answer["error"]
            return answer

        yield ask
        sent.close()
