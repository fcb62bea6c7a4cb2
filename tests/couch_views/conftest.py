"""Fixtures: the files of `couch_views`, and Node to run a map function."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kazoo_ips.couch import design_docs
from tests import node

Rows = list[tuple[Any, Any]]
RunMap = Callable[[Path, list[dict[str, Any]]], list[Rows]]


@pytest.fixture(scope="session")
def run_map() -> Iterator[RunMap]:
    """A function that runs a map over documents: the rows of each, as (key, value)."""
    with node.running(Path(__file__).with_name("run_map.js")) as ask:

        def run(path: Path, docs: list[dict[str, Any]]) -> list[Rows]:
            document = design_docs.load(path.parts[-4])
            answer = ask(source=document["views"][path.parts[-2]]["map"], docs=docs)
            return [[(key, value) for key, value in rows] for rows in answer["rows"]]

        yield run
