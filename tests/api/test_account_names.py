"""Commands take accounts by id, realm or name, and show the names of accounts."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import AssignIP, CreateIP, DedicatedIP
from tests.conftest import Member

ADDRESS = "192.0.2.1"
Run = Callable[..., Result]


@pytest.fixture
def add_account(services: Instance, operator: Member) -> Callable[[str], str]:
    """A function that creates an account of that name, and returns its id."""
    return lambda name: services.accounts.create(name, f"{uuid4().hex}.example.com").id


def test_every_command_takes_id_realm_and_name(
    run: Run,
    add: Callable[..., DedicatedIP],
    services: Instance,
    add_account: Callable[[str], str],
) -> None:
    add(ADDRESS)
    name = f"Acme & Söhne {uuid4().hex[:8]}"
    account_id = add_account(name)
    realm = services.accounts.fetch(account_id).realm
    for given in (account_id, realm, realm.upper(), name, name.lower().replace(" ", "-")):
        assigned = run("assign", ADDRESS, given)
        assert assigned.output == f"assigned IP {ADDRESS} to {account_id}\n"
        released = run("release", "--account", given)
        assert released.output == f"released 1 IPs of {account_id}\n"
        assert json.loads(run("account", "show", given).output)["id"] == account_id
        assert run("account", "disable", given).output == f"disabled account {account_id}\n"
        assert run("account", "enable", given).output == f"enabled account {account_id}\n"
        user = f"user-{uuid4().hex}"
        made = run("user", "create", given, user, "--password-stdin", "--json", input="x\n")
        assert json.loads(made.output)["account_id"] == account_id
        assert run("user", "disable", given, user).exit_code == 0
        options = ("--realm", f"{user}.example.com", "--parent", given, "--json")
        child = run("account", "create", user, *options)
        assert json.loads(child.output)["tree"][-1] == account_id


COMMANDS = [
    ("assign", ADDRESS, "{}"),
    ("release", "--account", "{}"),
    ("account", "show", "{}"),
    ("account", "enable", "{}"),
    ("account", "disable", "{}"),
    ("user", "disable", "{}", "admin"),
    ("account", "create", "New", "--realm", "new.example.com", "--parent", "{}"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_ambiguous_name_prints_the_candidates_and_changes_nothing(
    run: Run,
    services: Instance,
    add: Callable[..., DedicatedIP],
    add_account: Callable[[str], str],
    command: tuple[str, ...],
) -> None:
    add(ADDRESS)
    own = uuid4().hex[:8]
    ids = [add_account(f"Two-{own}"), add_account(f"two {own}")]
    before = services.accounts.list()
    done = run(*(word.format(f"TWO{own}") for word in command))
    assert done.exit_code == 1
    first, *candidates = done.stderr.splitlines()
    assert first.endswith(": several accounts have this name; use an id or a realm:")
    wanted = (services.accounts.fetch(each) for each in ids)
    assert sorted(candidates) == sorted(f"  {a.id} {a.realm} {a.name}" for a in wanted)
    assert services.accounts.list() == before
    assert services.ips.fetch(ADDRESS).assigned_to is None
    # The exact name identifies one account.
    assert run("assign", ADDRESS, f"two {own}").output == f"assigned IP {ADDRESS} to {ids[1]}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("given", ["nobody", "no.body.example.com", "!", "0" * 32])
def test_an_unknown_account_is_not_found(
    run: Run, command: tuple[str, ...], given: str, pool: Any
) -> None:
    done = run(*(word.format(given) for word in command))
    if command[0] == "release" and given == "0" * 32:  # the account may be deleted
        assert done.output == f"released 0 IPs of {given}\n"
        return
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith(": not_found\n")


def test_the_summary_shows_names_and_can_be_limited_to_a_zone(
    run: Run, add: Callable[..., DedicatedIP], services: Instance, alice: Member
) -> None:
    add("192.0.2.1", "us-east", "b")
    add("192.0.2.2", "us-west", "a")
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)

    def table(*arguments: str) -> list[list[str]]:
        lines = run("summary", *arguments).output.splitlines()
        return [[c.strip() for c in x.split("|")[1:-1]] for x in lines if x.startswith("| ")]

    hers = ["192.0.2.1", "assigned", "us-east", "b", alice.id, "Alice"]
    free = ["192.0.2.2", "available", "us-west", "a", "", ""]
    header = ["IP", "Status", "Zone", "Host", "Account", "Name"]
    assert table() == [header, hers, free]
    assert table("--zone", "us-east") == [header, hers]
    assert table("a", "--zone", "us-west") == [header, free]
    assert run("summary", "--zone", "nowhere").output == "No IPs found\n"
    printed = [json.loads(x) for x in run("summary", "--json").output.splitlines()]
    names = ("ip", "status", "zone", "host", "account_id", "account_name")
    assert [list(line.values()) for line in printed] == [hers, [x or None for x in free]]
    assert {tuple(line) for line in printed} == {names}
    assert run("summary", "--json", "--zone", "nowhere").output == ""


def test_the_names_of_a_long_list_take_one_request_for_a_thousand_accounts(
    settings: Settings, services: Instance, alice: Member, bob: Member, pool: Any
) -> None:
    sent: list[str] = []
    watched = composition.build(settings, trace=lambda method, url: sent.append(url))
    commands = [CreateIP(f"192.0.2.{n}", "us-east", "a") for n in range(1, 21)]
    services.bulk_additions.create_all(commands, uuid4().hex)
    for n, command in enumerate(commands):
        services.ips.assign(AssignIP((alice, bob)[n % 2].id, command.address), uuid4().hex)
    owners = {ip.assigned_to for ip, _ in watched.lists.summary() if ip.assigned_to}
    sent.clear()
    assert watched.accounts.names(owners) == {alice.id: "Alice", bob.id: "Bob"}
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("zone", "host", "text"),
    [
        ("z", "b", "in zone us-east, not z and on host a, not b"),
        ("us-east", "b", "on host a, not b"),
        ("z", "a", "in zone us-east, not z"),
        ("us-east", "a", "with this zone and host"),
    ],
)
def test_the_error_for_an_address_that_exists_names_the_differences(
    run: Run, add: Callable[..., DedicatedIP], zone: str, host: str, text: str
) -> None:
    add(ADDRESS, "us-east", "a")
    done = run("add", ADDRESS, zone, host)
    line = f"unable to add IP {ADDRESS}: conflict: the pool has it already, {text}\n"
    assert (done.exit_code, done.stderr) == (1, line)


@pytest.mark.parametrize(
    ("name", "realm", "field"),
    [
        ("", "new.example.com", "name"),
        (" New", "new.example.com", "name"),
        ("a\u202eb", "new.example.com", "name"),
        ("x" * 129, "new.example.com", "name"),
        ("New", "", "realm"),
        ("New", "abc", "realm"),
        ("New", "new example.com", "realm"),
        ("New", "new.example.com\n", "realm"),
        ("New", "x" * 254, "realm"),
        ("New", "http://new.example.com", "realm"),
        ("New", "....", "realm"),
        ("New", "new..example.com", "realm"),
        ("New", "new.example.com.", "realm"),
        ("New", "-new.example.com", "realm"),
        ("New", "new-.example.com", "realm"),
        ("New", f"{'x' * 64}.example.com", "realm"),
    ],
)
def test_a_bad_name_or_realm_of_a_new_account_is_refused(
    run: Run, services: Instance, name: str, realm: str, field: str
) -> None:
    before = services.accounts.list()
    done = run("account", "create", name, "--realm", realm)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert f'{{"{field}": {{' in done.stderr
    assert services.accounts.list() == before
    with pytest.raises(ValidationFailed):
        services.accounts.create(name, realm)


def commands(group: Any, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command, and of every group of commands."""
    found = [words]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*words, name))
    return found


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_no_help_is_cut_off(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help", terminal_width=80).output
    assert "..." not in re.sub(
        r"\b(IP|ARGS)\]?\.\.\.", "", text
    )  # an argument that may be repeated


def test_names_are_read_once(settings: Settings, add_account: Callable[[str], str]) -> None:
    sent: list[str] = []
    own = composition.build(
        replace(settings, identity_cache=3.0), trace=lambda method, url: sent.append(url)
    )
    first, second, missing = add_account("First"), add_account("Second"), "f" * 32
    assert own.accounts.names({first, missing}) == {first: "First"}
    assert own.accounts.names([first, second]) == {first: "First", second: "Second"}
    sent.clear()
    assert own.accounts.names({first, second, missing}) == {first: "First", second: "Second"}
    assert sent == []
