"""Each step that the comments of the models in `spec/` name is a method of the code.

`make model` checks the models themselves; it needs Spin.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "spec"
MODELS = {path.stem: path.read_text() for path in sorted(SPEC.glob("*.pml"))}

sys.path.insert(0, str(SPEC))
import check  # noqa: E402

PROTOCOL = {
    "services/assigning/transactions.py": {"TransactionService"},
    "services/assigning/recovery.py": {"RecoveryService"},
    "services/assigning/pool_writes.py": {"PoolWriter"},
    "repositories/transaction_log.py": {"TransactionLog"},
}
"""The classes of the protocol. Each of their methods that writes must be a step of a model."""

WRITES = {
    "save", "save_all", "put", "put_all", "remove", "withdraw", "drop", "drop_all", "restore",
    "write", "make_available",
}  # fmt: skip
"""The calls by which a method is recognised as one that writes."""

LEFT_OUT = {
    "RecoveryService._drop": "conflicts of several addresses on a cluster are not modelled",
    "TransactionLog._put": "each of its callers is in a model",
    "TransactionLog.sweep": "a day later, when nobody asks any more",
    "TransactionService._assign_unlimited": "each address by itself, as `assign_one`",
    "TransactionService._write_copy": "the second step of each of its callers",
    "TransactionService.change_each": "each address by itself, as `assign_one`",
    "TransactionService.change_one": "one write decides, and the copy follows, as `assign_one`",
    "TransactionService.transfer": "the steps of `assign`; the schedules check its other end",
    "TransactionService.transfer_one": "one write decides, and the copies follow, as `assign_one`",
}


@cache
def methods() -> dict[str, set[str]]:
    """Return all methods of all classes, each with the names that it calls."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "kazoo_ips").rglob("*.py"):
        for kind in ast.walk(ast.parse(path.read_text())):
            if isinstance(kind, ast.ClassDef):
                for each in kind.body:
                    if isinstance(each, ast.FunctionDef):
                        calls = (n.func for n in ast.walk(each) if isinstance(n, ast.Call))
                        named = {f.attr for f in calls if isinstance(f, ast.Attribute)}
                        found[f"{kind.name}.{each.name}"] = named
    return found


def steps(model: str) -> set[str]:
    """Return the methods that a model's comments name."""
    comments = re.findall(r"/\*(.*?)\*/", model, re.DOTALL)
    return {name for c in comments for name in re.findall(r"\b[A-Z]\w+\.\w+\b", c)}


def writing() -> set[str]:
    """Return the methods of the protocol's classes that write."""
    kinds = set().union(*PROTOCOL.values())
    return {
        name for name, calls in methods().items() if name.split(".")[0] in kinds and calls & WRITES
    }


@pytest.mark.parametrize("model", MODELS)
def test_every_step_of_a_model_is_a_method(model: str) -> None:
    named = steps(MODELS[model])
    assert named
    assert named <= set(methods())


def test_every_method_of_the_protocol_that_writes_is_a_step_of_a_model() -> None:
    named = set().union(*map(steps, MODELS.values()))
    assert writing() - named == set(LEFT_OUT)


def test_a_step_without_a_method_is_noticed() -> None:
    named = steps("x; /* PoolWriter.write, PoolWriter.wrote */ y; /* see above */")
    assert named - set(methods()) == {"PoolWriter.wrote"}


def test_every_model_and_every_guard_is_checked() -> None:
    run = {name: set[str]() for name in MODELS}
    for each in check.SCENARIOS:
        flags = (flag.partition("=")[0] for flag in each.name.split())
        run[each.model] |= {*flags, *each.guards}
    for name, model in MODELS.items():
        flags = set(re.findall(r"^#if(?:n?def) (\w+)$", model, re.MULTILINE))
        assert flags - check.BY_HAND <= run[name] <= flags, name
