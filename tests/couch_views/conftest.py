"""Fixtures: the files of `couch_views`, and Node to run a map function."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.server import EmbeddedError, find_node

Rows = list[tuple[Any, Any]]
RunMap = Callable[[Path, list[dict[str, Any]]], list[Rows]]


@pytest.fixture(scope="session")
def run_map() -> Iterator[RunMap]:
    """A function that runs a map over documents: the rows of each, as (key, value)."""
    try:
        node = find_node()
    except EmbeddedError as error:
        if not os.environ.get("COUCHDB_URL"):
            raise
        pytest.skip(str(error))
    command = [node, str(Path(__file__).with_name("run_map.js"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout

        def run(path: Path, docs: list[dict[str, Any]]) -> list[Rows]:
            assert process.stdin
            assert process.stdout
            print(json.dumps({"source": path.read_text(), "docs": docs}), file=process.stdin)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "error" not in answer, answer["error"]
            return [[(key, value) for key, value in rows] for rows in answer["rows"]]

        yield run
        process.stdin.close()
