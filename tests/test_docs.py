"""The documentation agrees with the code, the settings and the files that it describes."""

import ast
import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from flask import Flask
from werkzeug.exceptions import MethodNotAllowed, NotFound

from bench import report
from kazoo_ips import app
from kazoo_ips.api import openapi
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.model.history import HistoryEventKind
from kazoo_ips.model.webhooks import hooks
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome

TESTS = Path(__file__).parent
ROOT = TESTS.parent
README = ROOT / "README.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        README,
        ROOT / "bench" / "README.md",
        ROOT / "bench" / "results" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
SECURITY = PAGES["docs/security.md"]
NAMED = sorted(set(re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", SECURITY)))


@cache
def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_named_by_the_security_page_exists(file: str, name: str) -> None:
    assert name in named_in(TESTS / file)


def test_every_threat_has_a_measure_and_a_test() -> None:
    table = SECURITY.partition("| threat |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(rows) > 30
    for threat, measure, test in rows:
        assert threat.startswith("**") or (measure and ".py::test_" in test), threat


# Links


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub generates it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(line) for line in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)}


def links(page: str) -> list[str]:
    """Return the targets of a page's links and pictures, without those on other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", PAGES[page])
    return [link for link in found if not urlsplit(link).scheme]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page: str) -> None:
    for link in links(page):
        file, _, heading = link.partition("#")
        target = ROOT / os.path.normpath(Path(page).parent / file) if file else ROOT / page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_the_readme_names_every_page_and_no_other() -> None:
    listed = PAGES["README.md"].partition("## Documentation\n")[2].partition("\n## ")[0]
    named = re.findall(r"\]\((docs/[\w-]+\.md)\)", listed)
    assert sorted(named) == sorted(page for page in PAGES if page.startswith("docs/"))


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


# Tables that repeat the code.


def table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of a table of a page, without its header row."""
    text = PAGES[page].partition(heading)[2].partition("\n\n")[0]
    rows = text.partition("---|\n")[2].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]


def test_the_settings_page_has_every_setting_as_the_code_has_it() -> None:
    shown = [
        [f"`{s.metadata['name']}`", f"`{s.default}`" if s.default else "", s.metadata["help"]]
        for s in fields(Settings)
    ]
    assert table("docs/settings.md", "| setting | default |") == shown


def test_the_routes_page_has_every_route_with_who_may_call_it(rules: Flask) -> None:
    shown: set[tuple[str, str, str]] = set()
    path = ""
    for first, method, who, _ in table("docs/routes.md", "| path | method |"):
        path = first.strip("`") or path
        shown.add((path, method.strip("`"), who))
    routes = set()
    for rule in openapi.rules_of(rules):
        described = openapi.operation_of(rules, rule)
        who = "the account" if described.who is Who.ACCOUNT else described.who.value
        routes.add((re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), described.method, who))
    assert shown == routes


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a command, with its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, each in command.commands.items():
        yield from leaves(each, f"{path} {name}")


def test_the_commands_page_has_every_command() -> None:
    shown = [
        re.sub(r"`(kazoo-ips [a-z -]*[a-z]).*", r"\1", first)
        for first, *_ in table("docs/commands.md", "| command | |")
    ]
    assert sorted(shown) == sorted(words for words, _ in leaves(cli, "kazoo-ips"))


def test_the_importing_page_has_every_result() -> None:
    shown = {first.strip("`") for first, _ in table("docs/importing.md", "| result | |")}
    own = {"repeated", "contradictory", "invalid"}
    assert shown == own | {outcome.value for outcome in AdditionOutcome}


def test_the_pages_have_every_kind_of_event_and_no_other() -> None:
    table = PAGES["docs/history.md"].partition("### Kinds of events")[2].partition("\n\nA ")[0]
    kinds = [kind for row in table.splitlines()[4:] for kind in named(row.split("|")[1])]
    assert sorted(kinds) == sorted(kind.value for kind in HistoryEventKind)
    [row] = [r for r in PAGES["docs/webhooks.md"].splitlines() if r.startswith("| `hook` |")]
    assert sorted(n for n in named(row) if n.startswith("ips_")) == sorted({*hooks()} - {"all"})


def named(text: str) -> list[str]:
    return re.findall("`([^`]+)`", text)


def test_the_performance_page_has_the_figures_of_the_results() -> None:
    run = json.loads((ROOT / "bench" / "results" / "couchdb-sbwt-none.json").read_text())
    assert "\n".join(report.routes(run)) in PAGES["docs/performance.md"]


def test_the_table_of_all_ratios_is_that_of_the_results() -> None:
    files = {title: f"{name}.json" for name, title in report.COLUMNS.items()}
    folder = ROOT / "bench" / "results"
    runs = {title: json.loads((folder / file).read_text()) for title, file in files.items()}
    assert "\n".join(report.published(runs)) in PAGES["bench/results/README.md"]


# Names in the text of pages


def code(text: str) -> Iterator[str]:
    """Return all code in a text: indented lines, fenced lines, and words between backticks."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in fenced:
        yield from block.splitlines()
    yield from re.findall(r"^ {4,}(.*)$", text, re.MULTILINE)
    yield from (" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text))


OTHER_NAMES = {
    "KAZOO_IPS_DATA",  # `make run`
    "KAZOO_IPS_ROOT",  # `make deploy`
    "KAZOO_IPS_URL",  # commands at a URL
    "KAZOO_IPS_TOKEN",
    "KAZOO_IPS_PROFILE",
    "KAZOO_IPS_CA_FILE",
    "COUCHDB_PORT",  # `make run`
    "COUCHDB_PASSWORD",  # compose.yaml
}


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str) -> None:
    known = {setting.metadata["name"] for setting in fields(Settings)} | OTHER_NAMES
    named = set(re.findall(r"(?<![A-Z_])(?:KAZOO_IPS|COUCHDB)_[A-Z_]+[A-Z]", PAGES[page]))
    assert named <= known


def targets() -> set[str]:
    rules = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", rules, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_is_named_exists(page: str) -> None:
    named = {
        match[1]
        for each in code(PAGES[page])
        if (match := re.search(r"(?:^|[ ;&|(])make ([a-z][a-z-]*)", each))
    }
    assert named <= targets()


def unknown(words: list[str]) -> str | None:
    """Return the first word of a `kazoo-ips` command line that the program does not know."""
    command: click.Command = cli
    options = {"--help", "-h", "--version"}
    follows = False
    for word in words:
        if follows:  # the value of an option before the command
            follows = False
            continue
        if word.startswith("--"):
            options |= {o for each in command.params for o in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in options:
                return word
            values = {o for p in command.params if not getattr(p, "is_flag", 0) for o in p.opts}
            follows = isinstance(command, click.Group) and word in values
        elif isinstance(command, click.Group):
            for each in word.split("|"):
                if each not in command.commands:
                    return each
            command = command.commands[word.split("|")[0]]
    return None


def command_lines(text: str) -> list[str]:
    """Return the texts after each `kazoo-ips` that is a command line."""
    lines = (re.sub(r"\[([^]]*)\]", r"\1", line.replace("\\|", "|")) for line in code(text))
    found = (
        re.search(r"(?:^|[ ;&|(]|bin/)kazoo-ips ((?!kazoo-ips)(?:[a-z]|--)[^#>;&…]*)", line)
        for line in lines
    )
    return [match[1] for match in found if match]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists(page: str) -> None:
    for line in command_lines(PAGES[page]):
        assert unknown(line.split()) is None, line


def test_an_unknown_command_is_noticed() -> None:
    page = "`kazoo-ips docter`, `kazoo-ips add\\|asign IP`, and\n\n    kazoo-ips setup --gard\n"
    lines = command_lines(page)
    assert [unknown(line.split()) for line in lines] == ["--gard", "docter", "asign"]


@pytest.fixture(scope="module")
def rules() -> Flask:
    """The application's routes. The application sends no request to its database."""
    return app.create_app(Settings())


def leads_to_a_route(application: Flask, path: str) -> bool:
    """Return whether a path that a page names, with its placeholders, has a handler."""
    path = re.sub(r"\{[^}]*\}|\$\w+|<[^>]*>|…", "x", path.partition("?")[0])
    try:
        application.url_map.bind("localhost").match(path.rstrip("/"), method="GET")
    except MethodNotAllowed:
        return True
    except NotFound:
        return False
    return True


@pytest.mark.parametrize("page", PAGES)
def test_every_route_that_is_named_exists(page: str, rules: Flask) -> None:
    found = [
        path
        for each in code(PAGES[page].replace("$API", "/v2"))
        for path in re.findall(r"(?<![\w}…])/(?:v2/[^\s`\"'),;]+|healthz|readyz|metrics)", each)
        if not set(path) & set("*()|^")
    ]
    for path in found:
        assert leads_to_a_route(rules, path), path


def test_an_unknown_route_is_noticed(rules: Flask) -> None:
    assert leads_to_a_route(rules, "/v2/accounts/{id}/ips/{ip}")
    assert not leads_to_a_route(rules, "/v2/accounts/{id}/ip")


# The page about the code


def test_the_list_of_modules_is_the_folder() -> None:
    section = PAGES["docs/code.md"].partition("## The folders")[2].partition("\n## ")[0]
    listed = re.findall(r"^\* `([\w/]+\.py)` \w", section, re.MULTILINE)
    package = ROOT / "kazoo_ips"
    modules = [str(path.relative_to(package)) for path in package.rglob("*.py")]
    wanted = [each for each in modules if not each.endswith("__init__.py")]
    assert sorted(listed) == sorted([*wanted, "api/docs/__init__.py"])


def body_lines(source: list[str], function: ast.FunctionDef) -> int:
    """Return the lines of a function's body without docstrings, comments and blank lines."""
    body = {*range(function.body[0].lineno, (function.end_lineno or 0) + 1)}
    for node in ast.walk(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            body -= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    return sum(not re.match(r"\s*(#|$)", source[number - 1]) for number in body)


def test_every_long_module_and_function_has_a_reason() -> None:
    page = PAGES["docs/code.md"]
    section = page.partition("## Long modules and functions")[2].partition("\n## ")[0]
    files = {name.rpartition("/")[2] for name in re.findall("`([^`]+)`", section)}
    functions = {name.rpartition(".")[2] for name in files}
    for path in (ROOT / "kazoo_ips").rglob("*.py"):
        source = path.read_text()
        lines = source.splitlines()
        assert path.name in files or len(lines) <= 250, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and body_lines(lines, node) > 25:
                assert node.name in functions, (path, node.name)


def test_the_sizes_of_our_own_infrastructure_are_those_of_the_files() -> None:
    """The page rounds them: a tenth more or less is still true."""
    page = PAGES["docs/code.md"]
    sizes = re.findall(r"\*\* \(([^()]+):\s+about\s+(\d+)\s+lines\)", page)
    assert len(sizes) == 14
    for files, documented in sizes:
        paths = [ROOT / "kazoo_ips" / name for name in re.findall("`(.+?)`", files)]
        lines = sum(len(path.read_text().splitlines()) for path in paths)
        assert abs(lines - int(documented)) <= lines / 10, (files, lines)


def test_every_file_of_the_code_that_is_named_exists() -> None:
    text = PAGES["docs/code.md"]
    named = set(
        re.findall(r"`((?:tests|api|services|repositories|couch|cli)/[\w/]+(?:\.py)?)`", text)
    )
    assert named
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "kazoo_ips" / name).exists(), name
