"""The documentation, held against what it speaks of."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SECURITY = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", SECURITY)))


@cache
def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_threats_name_exists(file: str, name: str) -> None:
    assert name in named_in(TESTS / file)


def test_every_threat_has_a_measure_and_a_test() -> None:
    table = SECURITY.partition("| threat |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(rows) > 30
    for threat, measure, test in rows:
        assert threat.startswith("**") or (measure and ".py::test_" in test), threat
