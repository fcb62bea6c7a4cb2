"""The operator's commands: their exit status and output. That of `sup` is exactly Kazoo's."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from kazoo_ips import app as composition
from kazoo_ips import cli
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP
from tests.api.couchdb import Databases, account_database, kazoo_document
from tests.api.own_application import OwnApplication
from tests.api.recorded import SUB_TWO, document
from tests.command_results import CommandResult, output, run_kazoo_ips
from tests.members import add_member

ADDRESS, ZONE, HOST = "192.0.2.1", "us-east", "proxy1.example.com"
IPS = "kazoo_ips_maintenance"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], None]:
    """A function that makes the commands use the database of some settings."""

    def set_environment(settings: Settings) -> None:
        monkeypatch.setenv("COUCHDB_URL", settings.couchdb_url)
        monkeypatch.setenv("COUCHDB_ADMIN_URL", settings.couchdb_admin_url)
        monkeypatch.setenv("KAZOO_IPS_PREFIX", settings.prefix)

    return set_environment


@pytest.fixture
def sup(
    use: Any, settings: Settings, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., CommandResult]:  # fmt: skip
    """A function that is `sup` on the command line."""
    use(settings)

    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sup", *arguments])
        try:
            cli.sup()
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
        return CommandResult(status, *output(capsys))

    return run


@pytest.fixture
def kazoo_ips(
    use: Any, settings: Settings, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., CommandResult]:  # fmt: skip
    """A function that is `kazoo-ips` on the command line."""
    use(settings)

    return lambda *arguments: run_kazoo_ips(arguments, capsys, monkeypatch)


def done(line: str) -> CommandResult:
    return CommandResult(0, f"{line}\n", "")


def failed(line: str) -> CommandResult:
    return CommandResult(1, "", f"{line}\n")


# sup kazoo_ips_maintenance


@pytest.mark.parametrize(
    ("function", "usage"),
    [
        ("add", "<ip> <zone> <host>"), ("assign", "<ip> <account>"), ("release", "<ip>"),
        ("delete", "<ip>"),
    ],
)  # fmt: skip
def test_sup_without_arguments_prints_its_usage(sup: Any, function: str, usage: str) -> None:
    wanted = failed(f"Please use: sup {IPS} {function} {usage}")
    assert sup(IPS, function) == wanted
    assert sup(IPS, function, *["x"] * 7) == wanted


def test_sup_adds_assigns_releases_and_deletes(
    sup: Any, pool: Any, databases: Databases, alice: Any
) -> None:
    added = sup(IPS, "add", ADDRESS, ZONE, HOST)
    assert added == done(f"added IP {ADDRESS} to available dedicated ips")
    made = databases.get("dedicated_ips", ADDRESS)
    assert (made["pvt_zone"], made["pvt_host"]) == (ZONE, HOST)
    assert made["pvt_status"] == "available"
    assert made["pvt_request_id"].startswith("command-")

    assigned = sup(IPS, "assign", ADDRESS, alice.id)
    assert assigned == done(f"assigned IP {ADDRESS} to {alice.id}")
    assert databases.get("dedicated_ips", ADDRESS)["pvt_assigned_to"] == alice.id
    assert databases.get(account_database(alice.id), ADDRESS)["pvt_assigned_to"] == alice.id

    assert sup(IPS, "release", ADDRESS) == done(f"released IP {ADDRESS}")
    assert databases.get("dedicated_ips", ADDRESS)["pvt_status"] == "available"
    assert databases.find(account_database(alice.id), ADDRESS) is None

    assert sup(IPS, "delete", ADDRESS) == done(f"deleted IP {ADDRESS}")
    assert databases.find("dedicated_ips", ADDRESS) is None


def test_sup_prints_the_reason_of_a_failure(
    sup: Any, add: Any, services: Instance, alice: Any
) -> None:
    add(ADDRESS)
    other, nobody = "192.0.2.2", "f" * 32
    assert sup(IPS, "add", ADDRESS, ZONE, HOST) == failed(f"unable to add IP {ADDRESS}: conflict")
    assert sup(IPS, "assign", other, alice.id) == failed("unable to assign IP: not_found")
    assert sup(IPS, "assign", ADDRESS, nobody) == failed("unable to find account: not_found")
    assert sup(IPS, "assign", ADDRESS, "nonsense") == failed("unable to find account: not_found")
    assert sup(IPS, "release", other) == failed("unable to release IP: not_found")
    assert sup(IPS, "delete", other) == failed("unable to delete IP: not_found")
    services.ips.assign(AssignIP(alice.id, ADDRESS), "0" * 32)
    again = sup(IPS, "assign", ADDRESS, alice.id)
    assert again == failed("unable to assign IP: already_assigned")
    assert sup(IPS, "delete", ADDRESS) == failed("unable to delete IP: assigned")
    assert services.ips.fetch(ADDRESS).assigned_to == alice.id


@pytest.mark.parametrize("ip", ["nope", "192.0.2.01", "192.0.2.0/24", "", "fe80::1%eth0", " "])
def test_sup_adds_only_addresses(sup: Any, pool: Any, databases: Databases, ip: str) -> None:
    added = sup(IPS, "add", ip, ZONE, HOST)
    assert added.status == 1
    assert added.out == ""
    assert added.err.startswith(f"unable to add IP {ip}: ")
    assert added.err.count("\n") == 1
    rows = databases("GET", "dedicated_ips", "/_all_docs")["rows"]
    assert [row for row in rows if not row["id"].startswith("_design/")] == []


def test_sup_accepts_any_spelling_of_an_address(
    sup: Any, pool: Any, databases: Databases, alice: Any
) -> None:
    long = "2001:0DB8:0000:0000:0000:0000:0000:0001"
    assert sup(IPS, "add", long, ZONE, HOST) == done(f"added IP {long} to available dedicated ips")
    assert databases.find("dedicated_ips", "2001:db8::1")
    assert sup(IPS, "add", "2001:db8::1", ZONE, HOST).err == (
        "unable to add IP 2001:db8::1: conflict\n"
    )
    assert sup(IPS, "assign", long, alice.id).status == 0
    assert sup(IPS, "release", "2001:DB8::1").status == 0
    assert sup(IPS, "delete", long).status == 0
    assert databases.find("dedicated_ips", "2001:db8::1") is None


def test_sup_releases_twice_as_kazoo_does(sup: Any, add: Any) -> None:
    add(ADDRESS)
    assert sup(IPS, "release", ADDRESS) == done(f"released IP {ADDRESS}")


SUMMARY = """\
+-----------------+------------+------------+--------------------------------+----------------------------------+
| IP              | Status     | Zone       | Host                           | Account                          |
+=================+============+============+================================+==================================+
| 192.0.2.1       | available  | zone-1     | a.example.com                  |                                  |
| 192.0.2.2       | assigned   | zone-1     | b.example.com                  | {alice} |
+-----------------+------------+------------+--------------------------------+----------------------------------+
"""  # noqa: E501 - as wide as Kazoo has it


def test_sup_prints_the_pool_in_kazoos_table(sup: Any, load: Any, alice: Any) -> None:
    assert sup(IPS, "summary") == done("No IPs found")
    load(
        kazoo_document("192.0.2.2", "zone-1", "b.example.com", alice.id),
        kazoo_document("192.0.2.1", "zone-1", "a.example.com"),
    )
    table = SUMMARY.format(alice=alice.id)
    assert sup(IPS, "summary") == CommandResult(0, table, "")
    lines = table.splitlines(keepends=True)
    assert sup(IPS, "summary", "a.example.com") == CommandResult(
        0, "".join([*lines[:4], lines[5]]), ""
    )
    for host in ("a.example", "nobody.example.com", "A.example.com"):
        assert sup(IPS, "summary", host) == done("No IPs found")


def test_the_table_does_not_truncate_long_values(sup: Any, load: Any) -> None:
    long = "2001:db8:1111:2222:3333:4444:5555:6666"
    load(
        kazoo_document(long, "a-zone-with-a-long-name", "a" * 40 + ".example.com"),
        kazoo_document("192.0.2.1", "z", "b.example.com"),
    )
    lines = sup(IPS, "summary").out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        long, "available", "a-zone-with-a-long-name", "a" * 40 + ".example.com", "",
    ]  # fmt: skip
    assert lines[4].startswith("| 192.0.2.1 ")


def test_sup_refreshes_missing_and_stale_copies_silently(
    sup: Any, load: Any, databases: Databases, alice: Any
) -> None:
    copies = account_database(alice.id)
    load(
        kazoo_document("192.0.2.1", owner=alice.id),
        kazoo_document("192.0.2.2", owner=alice.id, note="new"),
        kazoo_document("192.0.2.3"),
        kazoo_document("192.0.2.4", owner="f" * 32),
    )
    databases.put(copies, kazoo_document("192.0.2.2", "old-zone", owner=alice.id))
    refreshed = sup(IPS, "refresh")
    assert (refreshed.status, refreshed.out) == (0, "")
    for address in ("192.0.2.1", "192.0.2.2"):
        pool = databases.get("dedicated_ips", address)
        copy = databases.get(copies, address)
        assert {**copy, "_rev": ""} == {**pool, "_rev": ""}
    assert databases.find(copies, "192.0.2.3") is None
    before = databases.get(copies, "192.0.2.1")
    assert sup(IPS, "refresh").status == 0
    assert databases.get(copies, "192.0.2.1") == before
    for address in ("192.0.2.1", "192.0.2.2"):
        sup(IPS, "delete", address)
        databases.put(copies, {**databases.get(copies, address), "_deleted": True})


def test_sup_without_or_with_an_unknown_function_lists_all_functions(sup: Any) -> None:
    for arguments, status in [((), 0), (("--help",), 0), (("nonsense", "x"), 1), ((IPS,), 1),
                              ((IPS, "nonsense"), 1)]:  # fmt: skip
        result = sup(*arguments)
        text = (result.err if status else result.out).splitlines()
        assert (result.status, text[0]) == (status, "Please use:")
        assert f"  sup {IPS} add <ip> <zone> <host>" in text
        assert "  sup crossbar_maintenance create_account <name> <realm> <user> <password>" in text
        assert len(text) == 8


# sup crossbar_maintenance


CREATE = ("crossbar_maintenance", "create_account")


def test_sup_needs_four_arguments_to_create_an_account(sup: Any) -> None:
    usage = "create_account <name> <realm> <user> <password>"
    assert sup(*CREATE, "ACME") == failed(f"Please use: sup crossbar_maintenance {usage}")


def test_the_first_account_is_the_operator_and_later_ones_are_its_children(
    own_app: OwnApplication, use: Any, sup: Any
) -> None:
    settings = own_app.settings
    composition.databases(settings).delete()
    composition.databases(settings).create()
    add_member(settings)
    use(settings)
    first = sup(*CREATE, "Master", "Master.example.com", "Admin", "pass:word")
    [created, updated, admin] = first.out.splitlines()
    assert (first.status, first.err) == (0, "")
    account_id = created.split("'")[1]
    database = quote(account_database(account_id), safe="")
    assert created == f"created new account '{account_id}' in db '{database}'"
    assert updated == "updated master account id in system_config.accounts"
    assert admin == f"created new account admin user '{admin.split(chr(39))[1]}'"
    made = own_app.databases.get("accounts", account_id)
    assert made["pvt_superduper_admin"] is True
    assert made["pvt_tree"] == []
    assert made["realm"] == "master.example.com"
    own = own_app.databases.get(account_database(account_id), account_id)
    assert {**own, "_rev": ""} == {**made, "_rev": ""}
    config = own_app.databases.get("system_config", "accounts")
    assert config["default"]["master_account_id"] == account_id

    second = sup(*CREATE, "ACME", "acme.example.com", "admin", "secret")
    [created, admin] = second.out.splitlines()
    child = own_app.databases.get("accounts", created.split("'")[1])
    assert child["pvt_tree"] == [account_id]
    assert "pvt_superduper_admin" not in child
    assert own_app.databases.get("system_config", "accounts") == config

    login = {"credentials": "", "account_realm": "master.example.com"}
    login["credentials"] = hashlib.md5(b"admin:pass:word").hexdigest()
    reply = own_app.api.put_json("/v2/user_auth", {"data": login}, status=201)
    assert reply.json["data"]["account_id"] == account_id
    assert reply.json["data"]["is_master_account"] is True
    headers = {"X-Auth-Token": reply.json["auth_token"]}
    own_app.api.get("/v2/ips", headers=headers, status=200)


def test_an_account_created_by_the_command_has_kazoos_fields(
    databases: Databases, alice: Any
) -> None:
    by_kazoo = document(account_database(SUB_TWO), SUB_TWO)
    not_ours = {
        "pvt_node", "pvt_document_hash", "pvt_request_id", "pvt_is_authenticated",
        "pvt_auth_user_id", "pvt_auth_account_id",
    }  # fmt: skip
    made = databases.get(account_database(alice.id), alice.id)
    assert by_kazoo.keys() - not_ours <= made.keys()
    assert {k: type(made[k]) for k in by_kazoo.keys() - not_ours} == {
        k: type(by_kazoo[k]) for k in by_kazoo.keys() - not_ours
    }


def test_a_realm_is_unique(sup: Any, operator: Any, alice: Any) -> None:
    again = sup(*CREATE, "Other", alice.account.realm.upper(), "admin", "secret")
    assert again.status == 1
    assert again.err.startswith("failed to create 'Other': ")
    assert "Realm is not unique" in again.err


# kazoo-ips


COMMANDS = {
    "setup", "secure", "add", "assign", "release", "delete", "summary", "refresh", "account",
    "user",
}  # fmt: skip


def test_help_lists_every_command_with_a_description(kazoo_ips: Any) -> None:
    result = kazoo_ips("--help")
    assert result.status == 0
    assert result.out.startswith("Usage: kazoo-ips [OPTIONS] COMMAND [ARGS]...\n")
    listed = {
        words[0]: words[1:]
        for line in result.out.partition("Commands:\n")[2].splitlines()
        if (words := line.split()) and line[:3].strip()  # not a continuation line
    }
    assert listed.keys() >= COMMANDS
    assert all(listed.values())
    for command in COMMANDS:
        own = kazoo_ips(command, "--help")
        assert own.status == 0
        assert own.out.startswith(f"Usage: kazoo-ips {command} ")


def test_help_has_whole_descriptions_in_a_narrow_terminal(
    kazoo_ips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for group in ((), ("account",), ("user",)):
        result = kazoo_ips(*group, "--help")
        assert "..." not in result.out.partition("Commands:")[2]
    words = kazoo_ips("--help").out.split()
    assert " ".join(words).count("Assign an address to an account: id, realm or name.") == 1


BAD = "\udcff"  # how Python reads the byte 0xff of an argument


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", BAD, ZONE, HOST), ("add", ADDRESS, BAD, HOST), ("add", ADDRESS, ZONE, BAD),
        ("assign", ADDRESS, BAD), ("release", BAD), ("delete", BAD), ("summary", BAD),
        ("summary", "--zone", BAD), ("account", "show", BAD), ("user", "disable", "alice", BAD),
        ("user", "create", "alice", f"x{BAD}", "--password-stdin"),
    ],
)  # fmt: skip
def test_an_argument_that_is_not_utf_8_is_one_line(
    kazoo_ips: Any, arguments: tuple[str, ...]
) -> None:
    result = kazoo_ips(*arguments)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("an argument is not UTF-8: ")
    assert result.err.count("\n") == 1


def test_the_name_of_a_file_may_have_any_bytes(kazoo_ips: Any, pool: Any, tmp_path: Path) -> None:
    file = tmp_path / f"pool{BAD}.csv"
    file.write_text(f"ip,zone,host\n{ADDRESS},{ZONE},{HOST}\n")
    for arguments in (("--from", str(file)), (f"--from={file}",)):
        assert kazoo_ips("add", *arguments).status == 0


def test_the_plain_commands_print_what_sup_prints(kazoo_ips: Any, pool: Any, alice: Any) -> None:
    assert kazoo_ips("add", ADDRESS, ZONE, HOST) == done(
        f"added IP {ADDRESS} to available dedicated ips"
    )
    assert kazoo_ips("assign", ADDRESS, alice.id) == done(f"assigned IP {ADDRESS} to {alice.id}")
    assert kazoo_ips("delete", ADDRESS) == failed("unable to delete IP: assigned")
    assert kazoo_ips("delete", "--force", ADDRESS) == done(f"deleted IP {ADDRESS}")
    assert kazoo_ips("summary") == done("No IPs found")
    assert kazoo_ips("release", ADDRESS) == failed("unable to release IP: not_found")


@pytest.mark.parametrize("arguments", [("nonsense",), ("add",), ("add", "--nonsense"), ("user",)])
def test_a_usage_error_exits_with_status_2(kazoo_ips: Any, arguments: tuple[str, ...]) -> None:
    result = kazoo_ips(*arguments)
    assert result.status == 2
    assert "Usage: kazoo-ips" in result.err
    assert result.out == ""


def test_setup_creates_missing_databases_and_a_second_run_changes_nothing(
    kazoo_ips: Any, use: Any, own_app: OwnApplication
) -> None:
    use(own_app.settings)
    assert kazoo_ips("setup") == CommandResult(0, "", "")
    own_app.databases("DELETE", "dedicated_ips")
    made = kazoo_ips("setup")
    assert made == CommandResult(
        0, "created dedicated_ips\ncreated dedicated_ips/_design/ips\n", ""
    )
    assert kazoo_ips("setup") == CommandResult(0, "", "")


def test_accounts_are_created_shown_and_listed(
    kazoo_ips: Any, use: Any, own_app: OwnApplication
) -> None:
    use(own_app.settings)
    made = kazoo_ips("account", "create", "ACME", "--realm", "acme.example.com", "--json")
    assert (made.status, made.err) == (0, "")
    acme = json.loads(made.out)
    assert (acme["name"], acme["realm"], acme["tree"]) == (
        "ACME",
        "acme.example.com",
        [own_app.id],
    )
    assert "signature_secret" not in acme
    options = ("--realm", "sub.example.com", "--parent", acme["id"], "--json")
    sub = json.loads(kazoo_ips("account", "create", "Sub", *options).out)
    assert sub["tree"] == [own_app.id, acme["id"]]
    shown = kazoo_ips("account", "show", sub["id"])
    assert json.loads(shown.out) == sub
    listed = kazoo_ips("account", "list")
    assert listed.out.splitlines() == [
        f"{acme['id']} acme.example.com ACME",
        f"{own_app.id} operator.example.com Operator operator",
        f"{sub['id']} sub.example.com Sub",
    ]
    as_json = json.loads(kazoo_ips("account", "list", "--json").out)
    assert [each["id"] for each in as_json] == [acme["id"], own_app.id, sub["id"]]
    orphan = kazoo_ips("account", "create", "X", "--realm", "x.example.com", "--parent", "f" * 32)
    assert orphan == failed("failed to create 'X': not_found")
    assert kazoo_ips("account", "show", "f" * 32) == failed("unable to find account: not_found")


def test_an_account_is_disabled_and_enabled(
    kazoo_ips: Any, api: Any, member: Callable[..., Any], operator: Any
) -> None:
    one = member("Switched", operator)
    path = f"/v2/accounts/{one.id}/ips/zones"
    api.get(path, headers=one.headers, status=200)
    assert kazoo_ips("account", "disable", one.id) == done(f"disabled account {one.id}")
    api.get(path, headers=one.headers, status=401)
    assert f"{one.id} {one.account.realm} Switched disabled" in kazoo_ips("account", "list").out
    assert kazoo_ips("account", "enable", one.id) == done(f"enabled account {one.id}")
    api.get(path, headers=one.headers, status=200)
    unknown = kazoo_ips("account", "disable", "f" * 32)
    assert unknown == failed("unable to disable account: not_found")


def test_a_user_is_created_with_a_password_from_standard_input_and_disabled(
    kazoo_ips: Any, settings: Settings, api: Any, alice: Any
) -> None:
    runner = CliRunner()
    create = ["user", "create", alice.id, "Carol", "--password-stdin", "--json"]
    made = runner.invoke(cli.cli, create, input="pass word\n")
    assert made.exit_code == 0
    user = json.loads(made.output)
    assert user == {"id": user["id"], "account_id": alice.id, "username": "carol"}
    credentials = hashlib.md5(b"carol:pass word").hexdigest()
    login = {"data": {"credentials": credentials, "account_realm": alice.account.realm}}
    reply = api.put_json("/v2/user_auth", login, status=201)
    headers = {"X-Auth-Token": reply.json["auth_token"]}
    path = f"/v2/accounts/{alice.id}/ips/zones"
    api.get(path, headers=headers, status=200)
    again = runner.invoke(cli.cli, create, input="other\n")
    assert again.exit_code == 1
    assert "Username is not unique" in again.output
    assert kazoo_ips("user", "disable", alice.id, "carol") == done("disabled user carol")
    api.get(path, headers=headers, status=401)
    api.put_json("/v2/user_auth", login, status=401)
    api.get(path, headers=alice.headers, status=200)
    nobody = kazoo_ips("user", "disable", alice.id, "nobody")
    assert nobody.status == 1
    assert nobody.err.startswith("unable to disable user: ")


def test_a_user_is_asked_for_the_password_twice(use: Any, settings: Settings, alice: Any) -> None:
    use(settings)
    runner = CliRunner()
    made = runner.invoke(cli.cli, ["user", "create", alice.id, "dave"], input="one\none\n")
    assert made.exit_code == 0
    assert made.output.splitlines()[-1].startswith("created new account admin user '")
    assert "one" not in made.output.replace("Password", "").replace("user", "")


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COUCHDB_URL", "nonsense"), ("COUCHDB_URL", "ftp://127.0.0.1"),
        ("KAZOO_IPS_READ_TIMEOUT", "soon"), ("KAZOO_IPS_READ_TIMEOUT", "0"),
        ("KAZOO_IPS_CONNECT_TIMEOUT", "-1"), ("KAZOO_IPS_TOKEN_LIFETIME", "1.5"),
        ("KAZOO_IPS_TOKEN_LIFETIME", "0"), ("KAZOO_IPS_IDENTITY_CACHE", "5"),
        ("KAZOO_IPS_WORKERS", "0"), ("KAZOO_IPS_THREADS", "x"),
        ("KAZOO_IPS_REFUSAL_TIME", "-0.1"), ("KAZOO_IPS_READ_TIMEOUT", "nan"),
        ("KAZOO_IPS_READ_TIMEOUT", "inf"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_one_line_that_names_it(
    sup: Any, kazoo_ips: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for result in (sup(IPS, "summary"), kazoo_ips("summary")):
        assert (result.status, result.out) == (1, "")
        assert result.err.count("\n") == 1
        assert result.err.startswith(f"{name}: ")


def test_a_database_that_does_not_answer_is_one_line(
    sup: Any, kazoo_ips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUCHDB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("COUCHDB_ADMIN_URL", "")
    why = "Connection refused (port 9)"
    line = failed(f"CouchDB does not answer at the address in COUCHDB_URL: {why}")
    assert sup(IPS, "summary") == line
    assert sup(IPS, "add", ADDRESS, ZONE, HOST) == line
    assert sup(IPS, "release", ADDRESS) == line
    assert kazoo_ips("account", "list") == line
    assert kazoo_ips("setup") == line


def test_a_database_without_the_pool_is_one_line(sup: Any, use: Any, settings: Settings) -> None:
    use(replace(settings, prefix="test-nothing-here-"))
    for arguments in (("summary",), ("release", ADDRESS), ("delete", ADDRESS)):
        result = sup(IPS, *arguments)
        assert (result.status, result.out) == (1, "")
        assert result.err.count("\n") == 1
        assert "Traceback" not in result.err


COMMAND = [sys.executable, "-c", "from kazoo_ips.cli import main, sup; main()"]


def test_output_that_cannot_be_written_is_one_line(environment: dict[str, str], load: Any) -> None:
    load(kazoo_document(ADDRESS))
    for arguments in (["summary"], ["account", "list"], ["doctor"]):
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE,
                text=True, timeout=30, check=False, env=environment,
            )  # fmt: skip
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1:] == [
            "cannot write the output: No space left on device"
        ]
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["add", "--from", "-"], 0), (["summary"], 0)],
)
def test_a_closed_standard_input_is_an_empty_one(
    environment: dict[str, str], pool: Any, arguments: list[str], status: int
) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, *arguments]
    result = subprocess.run(
        shell, capture_output=True, text=True, timeout=30, check=False, env=environment
    )
    assert (result.returncode, result.stderr) == (status, "")


def test_a_password_that_is_not_utf_8_is_one_line(environment: dict[str, str], alice: Any) -> None:
    command = [*COMMAND, "user", "create", alice.id, "new", "--password-stdin"]
    for locale in ({}, {"LC_ALL": "C.UTF-8"}):
        result = subprocess.run(
            command, input=b"secret\xff\n", capture_output=True, timeout=30, check=False,
            env={**environment, **locale},
        )  # fmt: skip
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr == b"failed to create 'new': the password is not UTF-8\n"


def test_the_commands_are_installed(environment: dict[str, str], pool: Any) -> None:
    folder = Path(sys.executable).parent
    for command in (["kazoo-ips", "summary"], ["sup", IPS, "summary"]):
        result = subprocess.run(
            [folder / command[0], *command[1:]],
            capture_output=True, text=True, timeout=30, check=False, env=environment,
        )  # fmt: skip
        assert (result.returncode, result.stdout, result.stderr) == (0, "No IPs found\n", "")


# The pool in numbers, and in a long table.


def test_summary_counts_by_status_zone_host_and_account(
    kazoo_ips: Any, load: Any, alice: Any
) -> None:
    place = ("us-east", "a.example.com")
    load(
        kazoo_document("192.0.2.1", *place, alice.id),
        kazoo_document("192.0.2.2", *place),
        kazoo_document("192.0.2.3", *place, pvt_status="quarantined"),
        kazoo_document("192.0.2.9", "us-west", "b.example.com"),
    )
    east = {"assigned": 1, "available": 1, "quarantined": 1}
    expected = {
        "zone": [
            {"zone": "us-east", "total": 3, "counts": east, "low": False, "exhausts_at": None},
            {
                "zone": "us-west", "total": 1, "counts": {"available": 1}, "low": False,
                "exhausts_at": None,
            },
        ],
        "host": [
            {"host": "a.example.com", "total": 3, "counts": east},
            {"host": "b.example.com", "total": 1, "counts": {"available": 1}},
        ],
        "account": [
            {
                "account_id": alice.id, "account_name": alice.account.name, "total": 1,
                "counts": {"assigned": 1},
            }
        ],
        "status": [{"total": 4, "counts": {**east, "available": 2}}],
    }  # fmt: skip
    for by, lines in expected.items():
        printed = kazoo_ips("summary", "--by", by, "--json")
        assert [json.loads(line) for line in printed.out.splitlines()] == lines
    for arguments, line in (
        (
            ("zone",),
            "| us-east    | 1         | 1        | 1           | 3        | 33.3%  |     |"
            "            |",
        ),
        (("host", "--zone", "us-west"), "| b.example.com | 1         | 1        | 0.0%   |"),
        (("account",), f"| {alice.id} | 1        | 1        | Alice |"),
        (("status",), "| available   | 2        |"),
    ):
        printed = kazoo_ips("summary", "--by", *arguments)
        assert line in printed.out.splitlines(), printed.out
    assert kazoo_ips("summary", "--by", "zone", "--zone", "x") == done("No IPs found")


@pytest.mark.parametrize(
    "arguments", [("a.example.com", "--by", "zone"), ("--by", "account", "--zone", "us-east")]
)
def test_summary_refuses_counts_that_it_cannot_make(
    kazoo_ips: Any, arguments: tuple[str, ...]
) -> None:
    assert kazoo_ips("summary", *arguments).status == 2


def test_a_long_table_is_the_same_in_parts(
    sup: Any, kazoo_ips: Any, load: Any, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(
        *(kazoo_document(f"192.0.2.{n}", "z", "a.example.com", alice.id) for n in range(7)),
        kazoo_document("2001:db8:" + ":1" * 5, "a-long-zone", "b" * 40),
    )
    commands = (lambda: sup(IPS, "summary"), lambda: kazoo_ips("summary"))
    whole = [command() for command in commands]
    monkeypatch.setattr("kazoo_ips.cli.console._TABLE_CHUNK", 2)
    monkeypatch.setattr("kazoo_ips.repositories.lists._CHUNK", 3)
    monkeypatch.setattr("kazoo_ips.cli.account_names._CHUNK", 2)
    assert [command() for command in commands] == whole
    assert len(whole[0].out.splitlines()) == 8 + 4
