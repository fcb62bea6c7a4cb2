"""Names of zones and hosts: bad ones are refused, and those in the database are printed safely."""

import json
import unicodedata
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from webtest import TestApp

from kazoo_ips.api import bodies, openapi
from kazoo_ips.cli import cli
from kazoo_ips.model import names
from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import invalid, page, success

BAD = {
    "": "minLength",
    " ": "pattern",
    "\u00a0": "pattern",
    " us-east": "pattern",
    "us-east ": "pattern",
    "us-east\n": "pattern",
    "us\neast": "pattern",
    "x\x00y": "pattern",
    "bell\x07": "pattern",
    "\x1b[31mred": "pattern",
    "us\x7feast": "pattern",
    "us\x85east": "pattern",
    "us\u200beast": "pattern",
    "\u202etsae-su": "pattern",
    "\ufeffus-east": "pattern",
    "us\u00adeast": "pattern",
    "us\u2028east": "pattern",
    "us\U000e0041east": "pattern",
    "\u3164": "pattern",
    "\u2800": "pattern",
    "us-east\ufe0f": "pattern",
    "us\u034feast": "pattern",
    "us\U000e0100east": "pattern",
    "x" * 256: "maxLength",
}
GOOD = [
    "us-east",
    "x",
    "x" * 255,
    "Zürich 1",
    "東京",
    "rack 7, row b",
    "=1+1",
    "🏢",
    "proxy1.example.com",
]


def body(**fields: str) -> dict[str, Any]:
    data = {"ip": "192.0.2.1", "zone": "us-east", "host": "proxy1.example.com", **fields}
    return {"data": data}


WEBHOOK = {"name": "x", "uri": "https://receiver.example/ips", "hook": "all"}
LINES = [
    ("PATCH", "/v2/ips/192.0.2.1", {"labels": {"a": "{}"}}, "labels.a"),
    ("PATCH", "/v2/ips/192.0.2.1", {"enabled": False, "reason": "{}"}, "reason"),
    ("PATCH", "/v2/ips/192.0.2.1", {"host": "{}"}, "host"),
    ("PATCH", "/v2/ips/zones/us-east", {"enabled": False, "reason": "{}"}, "reason"),
    ("PATCH", "/v2/ips/hosts/proxy1.example.com", {"enabled": False, "reason": "{}"}, "reason"),
    ("POST", "/v2/ips/hosts/proxy1.example.com/move", {"host": "{}"}, "host"),
    ("POST", "/v2/ips/hosts/proxy1.example.com/move", {"zone": "{}"}, "zone"),
    ("POST", "/v2/accounts/<A>/ips/limits", {"zones": {"{}": 1}}, "zones.{}"),
    ("PUT", "/v2/ips/webhooks", {**WEBHOOK, "name": "{}"}, "name"),
    ("PUT", "/v2/accounts/<A>/ips/webhooks", {**WEBHOOK, "name": "{}"}, "name"),
]
"""Requests with a text of one line that is stored, and the path of its error."""


BAD_TEXTS = [name for name, rule in BAD.items() if rule == "pattern"]


@pytest.mark.parametrize("name", BAD_TEXTS, ids=ascii)
@pytest.mark.parametrize(("method", "path", "data", "where"), LINES)
def test_a_bad_text_is_refused_wherever_it_would_be_stored(
    api: TestApp, add: Any, operator: Any, alice: Any,
    method: str, path: str, data: Any, where: str, name: str,
) -> None:  # fmt: skip
    add("192.0.2.1")
    sent = json.dumps({"data": data}).replace('"{}"', json.dumps(name)).encode()
    reply = api.request(
        path.replace("<A>", alice.id), method=method, body=sent, status=400,
        headers={**operator.headers, "Content-Type": "application/json"},
    )  # fmt: skip
    broken_rules = invalid(reply, operator.token)
    path_ = where.replace("{}", name)
    assert {each: list(rules) for each, rules in broken_rules.items()} == {path_: ["pattern"]}


@pytest.mark.parametrize("note", ["bell\x07", "\x1b[31mred", "\u202etsae", "a\u2028b", "a\x85b"])
def test_a_note_has_no_harmful_characters(
    api: TestApp, add: Any, operator: Any, note: str
) -> None:
    add("192.0.2.1")
    path, body = "/v2/ips/192.0.2.1", {"data": {"description": note}}
    reply = api.patch_json(path, body, headers=operator.headers, status=400)
    assert invalid(reply, operator.token).keys() == {"description"}
    body = {"data": {"description": "moves in May\n\tback in June \u26a0\ufe0f"}}
    reply = api.patch_json(path, body, headers=operator.headers, status=200)
    assert success(reply, operator.token)["description"] == body["data"]["description"]


def ids(databases: Databases) -> list[str]:
    rows = databases("GET", "dedicated_ips", "/_all_docs")["rows"]
    return [row["id"] for row in rows if not row["id"].startswith("_design/")]


@pytest.mark.parametrize("field", ["zone", "host"])
@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_bad_name_is_refused(
    api: TestApp, pool: Any, databases: Databases, operator: Any, name: str, field: str
) -> None:
    one = body(**{field: name})
    several = {"data": {"ips": [one["data"]]}}
    for sent, path in ((one, field), (several, f"ips.0.{field}")):
        reply = api.put_json("/v2/ips", sent, headers=operator.headers, status=400)
        broken_rules = invalid(reply, operator.token)
        assert {p: list(rules) for p, rules in broken_rules.items()} == {path: [BAD[name]]}
        assert broken_rules[path][BAD[name]]["value"] == name
    assert ids(databases) == []


@pytest.mark.parametrize("name", GOOD, ids=ascii)
def test_any_other_name_is_accepted_and_shown_unchanged(
    api: TestApp, pool: Any, operator: Any, name: str
) -> None:
    reply = api.put_json(
        "/v2/ips", body(zone=name, host=name), headers=operator.headers, status=201
    )
    made = success(reply, operator.token)
    assert (made["zone"], made["host"]) == (name, name)


@given(st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=8))
def test_the_description_of_the_api_accepts_the_same_names(name: str) -> None:
    assert VALIDATOR.is_valid(body(zone=name)["data"]) == (names.problem(name) is None)


INVISIBLE = "034F 115F 1160 17B4 17B5 180B 180C 180D 180F 2800 3164 FE00 FE0F FFA0 E0100 E01EF"


@pytest.mark.parametrize("code", INVISIBLE.split())
def test_no_invisible_character_is_accepted(code: str) -> None:
    character = chr(int(code, 16))
    assert names.problem(f"x{character}y") == f"has the invisible character U+{code}"
    known = character > "\uffff"
    assert known or not VALIDATOR.is_valid(body(zone=f"x{character}y")["data"])


def test_no_control_or_format_character_is_accepted() -> None:
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert names.problem(f"x{chr(code)}y"), hex(code)
            known = code > 0xFFFF or unicodedata.category(chr(code)) == "Cs"
            assert known or not VALIDATOR.is_valid(body(zone=f"x{chr(code)}y")["data"]), hex(code)


VALIDATOR = jsonschema_rs.Draft202012Validator(openapi.json_schema(bodies.CreateIPSchema))


@pytest.mark.parametrize("name", [n for n in BAD if n.strip() and "\n" not in n], ids=ascii)
def test_a_line_of_an_import_with_a_bad_name_is_invalid(
    environment: dict[str, str], pool: Any, databases: Databases, name: str
) -> None:
    if name.strip() != name and names.problem(name.strip()) is None:
        pytest.skip("blanks around a cell do not belong to it")
    rows = ["ip,zone,host", f"192.0.2.1,{name},a.example.com", "192.0.2.2,us-east,a.example.com"]
    given_ = "\n".join(rows).encode()
    done = CliRunner(env=environment).invoke(cli, ["add", "--from", "-", "--json"], input=given_)
    bad, good, _ = map(json.loads, done.stdout.splitlines())
    assert (bad["result"], good["result"], done.exit_code) == ("invalid", "added", 1)
    assert bad["reason"].startswith("the zone ")
    assert ids(databases) == ["192.0.2.2"]


@pytest.mark.parametrize("name", [n for n in BAD if "\x00" not in n], ids=ascii)
def test_a_command_with_a_bad_name_fails(
    environment: dict[str, str], pool: Any, databases: Databases, name: str
) -> None:
    runner = CliRunner(env=environment)
    for arguments in (["192.0.2.1", "us-east", name], ["192.0.2.0/31", name, "a.example.com"]):
        done = runner.invoke(cli, ["add", *arguments])
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"unable to add IP {arguments[0]}: ")
        assert done.stderr[:-1].isprintable()
    assert ids(databases) == []


# Names that the database has already

HARMFUL = "a\x1b]0;t\x07b\u202ec\u200bd\u2028e\ufefff"
SHOWN = r"a\x1b]0;t\x07b\u202ec\u200bd\u2028e\ufefff"


def test_terminals_get_names_escaped(
    environment: dict[str, str], load: Any, operator: Any, alice: Any
) -> None:
    load(
        kazoo_document("192.0.2.1", HARMFUL, f"{HARMFUL}\nhost", owner=alice.id),
        kazoo_document("192.0.2.2", HARMFUL, HARMFUL, pvt_status=HARMFUL),
        kazoo_document(f"junk{HARMFUL}\r\n"),
    )
    runner = CliRunner(env=environment)
    commands = {
        ("summary",): SHOWN,
        ("summary", HARMFUL): SHOWN,
        ("doctor",): f"junk{SHOWN}\\r\\n",
        ("add", "--dry-run", "192.0.2.1", "us-east", "a.example.com"): f"{SHOWN}\\nhost",
        ("add", "--from", "-"): SHOWN,
        ("account", "show", HARMFUL): None,
        ("assign", HARMFUL, alice.id): None,
        ("assign", "192.0.2.1", HARMFUL): None,
        ("release", HARMFUL): None,
        ("delete", HARMFUL): None,
    }
    for arguments, wanted in commands.items():
        sent = f"ip,zone,host\n192.0.2.3{HARMFUL},us-east,a.example.com\n".encode()
        done = runner.invoke(cli, list(arguments), input=sent)
        assert "Traceback" not in done.output
        assert all(line.isprintable() for line in done.output.split("\n")), arguments
        assert wanted is None or wanted in done.output, (arguments, done.output)


def test_csv_and_metrics_get_names_escaped_and_json_has_them_as_they_are(
    api: TestApp, load: Any, operator: Any
) -> None:
    load(kazoo_document("192.0.2.1", HARMFUL, HARMFUL))
    for path, line in (("/v2/ips", f"192.0.2.1,{SHOWN},{SHOWN}"), ("/v2/ips/zones", SHOWN)):
        reply = api.get(path, headers={**operator.headers, "Accept": "text/csv"}, status=200)
        assert line in reply.body.decode().split("\r\n")
    metrics = api.get("/metrics", status=200).body.decode()
    assert metrics.replace("\n", "").isprintable()
    zone = SHOWN.replace("\\", "\\\\")
    assert f'kazoo_ips_pool_addresses{{status="available",zone="{zone}"}} 1.0' in metrics
    reply = api.get(f"/v2/ips?host={quote(HARMFUL)}", headers=operator.headers, status=200)
    assert [row["zone"] for row in page(reply, operator.token)] == [HARMFUL]
