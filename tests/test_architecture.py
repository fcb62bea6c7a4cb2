"""The code itself: the imports of each folder, the docstrings, and a reply for each error."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kazoo_ips import errors
from kazoo_ips.api import errors as replies
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes
from kazoo_ips.config import Settings
from kazoo_ips.console.pages import Pages, pages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kazoo_ips"
PATHS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = sorted(PATHS)

PACKAGES = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}

MAY_IMPORT = {
    "": set(),
    "errors": set(),
    "config": set(),
    "error_texts": set(),
    "model": {"model", "errors"},
    "processes": {"processes"},
    "observability": {
        "observability", "model", "processes",
        "msgspec", "opentelemetry", "prometheus_client",
    },
    "couch": {
        "couch", "error_texts", "errors", "model", "observability", "processes",
        "cachetools", "couchdb", "httptools", "msgspec",
    },
    "repositories": {"repositories", "couch", "errors", "model", "processes", "cryptography"},
    "services": {
        "services", "repositories", "error_texts", "errors", "model", "observability", "outbound",
        "processes", "cachetools", "jwt", "standardwebhooks",
    },
    "background": {
        "background", "services", "repositories", "errors", "model", "observability",
        "processes", "cachetools",
    },
    "remote": {"remote", "services", "error_texts", "errors", "model", "urllib3"},
    "outbound": {"outbound", "errors", "amqp", "kombu"},
    "api": {
        "api", "services", "error_texts", "errors", "model", "observability", "processes",
        "apispec", "flask", "marshmallow", "msgspec", "werkzeug",
    },
    "console": {
        "console", "api", "services", "errors", "model", "observability", "processes",
        "flask", "werkzeug",
    },
    "app": {
        "api", "console", "background", "services", "repositories", "couch", "config", "model",
        "observability", "outbound", "processes", "flask",
    },
    "server": {
        "server", "api", "config", "couch", "error_texts", "errors", "observability",
        "processes", "gunicorn",
    },
    "cli": {
        "cli", "app", "remote", "services", "repositories", "config", "error_texts", "errors",
        "model", "observability", "click", "matplotlib", "plotille", "rich",
    },
    "gunicorn_conf": {"server"},
    "supervisor": {"server"},
    "settings_file": {"server"},
}  # fmt: skip
"""For each folder, the folders and third-party packages that it may import."""

ONLY = {
    "opentelemetry": "kazoo_ips.observability.spans",
    "kombu": "kazoo_ips.outbound.amqp",
    "amqp": "kazoo_ips.outbound.amqp",
    "matplotlib": "kazoo_ips.cli.plot_files",
    "plotille": "kazoo_ips.cli.plot_text",
}
"""Optional packages, each with the only module that may import it."""

NEVER = {"model": {"os", "time", "datetime", "uuid", "random"}, "errors": {"os", "time"}}
"""For each folder, the modules of the standard library that it may not import: clocks, randomness,
files and network."""

BLUEPRINTS = {
    "about", "account_ips", "accounts", "changes", "docs", "exports", "health", "history", "home",
    "ips", "jobs", "kazoo_schemas", "limits", "login", "places", "reservations", "status",
    "summaries", "usage", "webhooks",
}  # fmt: skip
BORROWS = {"account_ips": {"ips"}}
"""Imports between blueprints. `PUT /v2/accounts/{A}/ips` calls the handler of `PUT /v2/ips`."""


@cache
def imports(source: str) -> set[str]:
    """Return the dotted names that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """Return the folder of one of our modules, or the name of a third-party package."""
    parts = name.split(".")
    return parts[0] if parts[0] != "kazoo_ips" else parts[1] if len(parts) > 1 else ""


def forbidden(module: str, source: str) -> set[str]:
    """Return the imports of a module that are not permitted."""
    own = room(module)
    names = imports(source)
    wrong = {
        name
        for name in names
        if room(name) not in MAY_IMPORT[own]
        and (name.startswith("kazoo_ips") or room(name) not in sys.stdlib_module_names)
    }
    wrong |= {name for name in names if room(name) in NEVER.get(own, ())}
    wrong |= {name for name in names if ONLY.get(room(name), module) != module}
    blueprint = module.removeprefix("kazoo_ips.api.")
    if blueprint in BLUEPRINTS:
        others = BLUEPRINTS - {blueprint} - BORROWS.get(blueprint, set())
        wrong |= {n for n in names if n.removeprefix("kazoo_ips.api.").split(".")[0] in others}
    return wrong


def test_the_wheel_has_every_package() -> None:
    listed = ConfigParser()
    listed.read(ROOT / "setup.cfg")
    packages = listed["options"]["packages"].split()
    assert sorted(packages) == sorted({*PACKAGES, "kazoo_ips.couch_views"})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_folder_may(module: str) -> None:
    assert forbidden(module, PATHS[module].read_text()) == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("kazoo_ips.errors", "from kazoo_ips import model"),
        ("kazoo_ips.model.dedicated_ip", "import time"),
        ("kazoo_ips.model.dedicated_ip", "import flask"),
        ("kazoo_ips.model.addresses", "from kazoo_ips.repositories.ips import IPRepository"),
        ("kazoo_ips.services.idempotency", "from kazoo_ips.background.worker import ROUND"),
        ("kazoo_ips.couch.client", "from kazoo_ips.repositories.documents import POOL"),
        ("kazoo_ips.couch.client", "import flask"),
        ("kazoo_ips.repositories.ips", "import couchdb"),
        ("kazoo_ips.repositories.ips", "from kazoo_ips.app import Instance"),
        ("kazoo_ips.repositories.ips", "def late():\n    from flask import request"),
        ("kazoo_ips.services.assigning.assignment", "from kazoo_ips.couch import client"),
        ("kazoo_ips.services.assigning.assignment", "from flask import g"),
        ("kazoo_ips.services.assigning.assignment", "import marshmallow"),
        ("kazoo_ips.api.ips", "from kazoo_ips.repositories.ips import IPRepository"),
        ("kazoo_ips.api.ips", "from kazoo_ips.api import login"),
        ("kazoo_ips.api.ips", "from kazoo_ips.api.account_ips import assign"),
        ("kazoo_ips.api.ips", "import couchdb"),
        ("kazoo_ips.api", "from kazoo_ips import app"),
        ("kazoo_ips.outbound.http_sender", "from kazoo_ips.model.webhooks import Webhook"),
        ("kazoo_ips.outbound.http_sender", "import urllib3"),
        ("kazoo_ips.remote.client", "import flask"),
        ("kazoo_ips.remote.services", "from kazoo_ips.app import Instance"),
        ("kazoo_ips.observability.tracing", "from opentelemetry import trace"),
        ("kazoo_ips.api.ips", "from kazoo_ips.console.pages import page"),
        ("kazoo_ips.console.addresses", "from kazoo_ips.repositories.ips import IPRepository"),
        ("kazoo_ips.console.addresses", "from kazoo_ips import app"),
        ("kazoo_ips.app", "import pytest"),
        ("kazoo_ips.cli", "import couchdb.client"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, line: str) -> None:
    assert not forbidden(module, PATHS[module].read_text())
    assert forbidden(module, f"{PATHS[module].read_text()}\n{line}\n")


def test_only_the_couch_folder_imports_the_driver() -> None:
    users = {m for m in MODULES if "couchdb" in map(room, imports(PATHS[m].read_text()))}
    assert {room(m) for m in users} == {"couch"}
    assert users


def test_no_module_imports_the_composition_root() -> None:
    commands = {m for m in MODULES if room(m) == "cli"}
    server = {m for m in MODULES if room(m) == "server"}
    started = {f"kazoo_ips.{name}" for name in ("gunicorn_conf", "settings_file", "supervisor")}
    top = {"app": commands, "cli": commands, "server": server | started}
    top |= {room(name): set() for name in started}
    for name, allowed in top.items():
        importers = {
            m
            for m in MODULES
            if any(room(i) == name for i in imports(PATHS[m].read_text()) if i[:9] == "kazoo_ips")
        }
        assert importers <= allowed, name


def test_every_blueprint_module_is_registered(wsgi: Any) -> None:
    made = {
        module.removeprefix("kazoo_ips.api.")
        for module in MODULES
        if module.startswith("kazoo_ips.api.") and _routes(importlib.import_module(module))
    }
    assert made == BLUEPRINTS
    assert set(wsgi.blueprints) == {*BLUEPRINTS, pages.name}


def _routes(module: ModuleType) -> Routes | None:
    found = getattr(module, "routes", None)
    return found if isinstance(found, Routes) else None


# Documentation.


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_does(module: str) -> None:
    assert ast.get_docstring(ast.parse(PATHS[module].read_text()))


def undocumented(node: ast.AST) -> Iterator[str]:
    """Return the public classes, functions and methods below a node that have no docstring."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, kinds) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield child.name
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    assert list(undocumented(ast.parse(PATHS[module].read_text()))) == []


def test_a_missing_docstring_is_noticed() -> None:
    source = "def f(): pass\ndef _g(): pass\nclass C:\n    'doc'\n    def m(self): pass\n"
    assert list(undocumented(ast.parse(source))) == ["f", "m"]


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda each: each.metadata["name"])
def test_every_setting_has_one_line_of_help_and_a_default_of_its_type(setting: Any) -> None:
    assert 0 < len(setting.metadata["help"]) < 80
    assert "\n" not in setting.metadata["help"]
    assert type(setting.default).__name__ == getattr(setting.type, "__name__", setting.type)


# Errors.


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def drawn() -> dict[str, str | None]:
    """Return the tree in the docstring: the parent of each class."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        match = re.match(r"^([│├└─ ]*)([A-Z][A-Za-z]+)( {2,}.*)?$", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            parents[match[2]] = above[depth - 1] if depth else None
    return parents


def test_the_error_tree_in_the_docstring_is_that_of_the_classes() -> None:
    defined = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert drawn() == {**defined, "KazooIPsError": None}


NO_REPLY = {
    errors.KazooIPsError: "the root is never raised",
    errors.NotSecured: "only commands raise it",
    errors.RemoteFailure: "only commands raise it",
    errors.ReceiverUnavailable: "only consumers of the feed raise it",
    errors.RuleBroken: "goes out as ValidationFailed",
    errors.AlreadyAssigned: "goes out as ValidationFailed",
    errors.AssignedToAnother: "goes out as ValidationFailed",
    errors.NotAssigned: "goes out as ValidationFailed",
    errors.Resting: "goes out as ValidationFailed",
    errors.Reserved: "goes out as ValidationFailed",
    errors.OutOfService: "goes out as ValidationFailed",
    errors.NotResting: "goes out as ValidationFailed",
    errors.NotReserved: "goes out as ValidationFailed",
    errors.NotDisabled: "goes out as ValidationFailed",
    errors.Unusable: "goes out as ValidationFailed",
    errors.UnknownStatus: "goes out as ValidationFailed",
    errors.DatastoreError: "its subclasses are raised",
    errors.DocumentNotFound: "becomes whatever the document stands for",
}
"""Errors without a reply of their own, because other code catches them. Uncaught, they are 500."""


@pytest.mark.parametrize(
    "kind", sorted(subclasses(errors.KazooIPsError), key=lambda kind: kind.__name__)
)
def test_every_error_has_a_reply_by_its_ancestry(kind: type[Exception]) -> None:
    nearest = next(ancestor for ancestor in kind.__mro__ if ancestor in replies.REPLIES)
    assert (nearest is Exception) == (kind in NO_REPLY)


def test_every_reply_belongs_to_an_existing_error() -> None:
    known = subclasses(errors.KazooIPsError) | {Exception}
    assert set(replies.REPLIES) <= known


# Routes.


def test_a_route_needs_an_authorisation_rule() -> None:
    routes = Routes("test", __name__)
    with pytest.raises(TypeError, match="who"):
        routes.on("GET", "/test", replies=None)  # type: ignore[call-arg]


def test_a_route_needs_the_form_of_its_reply() -> None:
    routes = Routes("test", __name__)
    with pytest.raises(TypeError, match="replies"):
        routes.on("GET", "/test", who=Who.OPERATOR)  # type: ignore[call-arg]


@pytest.mark.parametrize("way", ["route", "get", "post", "put", "patch", "delete"])
def test_a_route_cannot_be_registered_by_flasks_decorators(way: str) -> None:
    routes = Routes("test", __name__)
    with pytest.raises(TypeError, match="who"):
        getattr(routes, way)("/test")(lambda: "anybody")


def test_a_page_needs_an_authorisation_rule() -> None:
    made = Pages("test", __name__)
    with pytest.raises(TypeError, match="who"):
        made.on("GET", "/test")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="who"):
        made.get("/test")(lambda: "anybody")


def test_a_route_with_both_is_registered() -> None:
    routes = Routes("test", __name__)
    asked = routes.on("GET", "/test", who=Who.OPERATOR, replies=None)
    asked(lambda: None)  # type: ignore[arg-type,return-value]
    assert len(routes.deferred_functions) == 1


def test_every_route_of_the_application_has_an_authorisation_rule(wsgi: Any) -> None:
    asked = {rule.endpoint.split(".")[0] for rule in wsgi.url_map.iter_rules()}
    assert asked == {*BLUEPRINTS, pages.name}
    assert all(isinstance(wsgi.blueprints[name], Routes | Pages) for name in asked)
