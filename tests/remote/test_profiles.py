"""Profiles: logins, where a command does its work, and who can read the tokens."""

import io
import json
import stat
import sys
from pathlib import Path

import pytest

from kazoo_ips.cli import profiles
from tests.conftest import Member
from tests.remote.conftest import Run


@pytest.fixture
def file(without_couchdb: None, tmp_path: Path) -> Path:
    """The file of profiles, which does not exist yet."""
    return tmp_path / "kazoo-ips" / "profiles.ini"


@pytest.fixture
def log_in(
    run: Run, live: str, operator: Member, file: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A function that logs the operator in."""

    def call(*options: str, password: str = operator.password, account: str = "") -> object:
        given = io.TextIOWrapper(io.BytesIO(f"{password}\n".encode()))
        monkeypatch.setattr(sys, "stdin", given)
        account = account or operator.account.realm
        who = ("--account", account, "--username", "admin", "--password-stdin")
        return run("login", "--url", live, *who, *options)

    return call  # type: ignore[return-value]


def test_a_login_keeps_the_token_where_only_its_owner_can_read_it(
    log_in: Run, run: Run, live: str, operator: Member, file: Path
) -> None:
    done = log_in()
    assert (done.status, done.err) == (0, "")
    assert done.out == f"logged in to {live} as admin of Operator {operator.id}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.parent.iterdir()] == ["profiles.ini"]
    assert "secret" not in file.read_text()
    # The profile `default` is used without any option, because no CouchDB is named.
    listed = run("account", "list")
    assert (listed.status, operator.id in listed.out) == (0, True)


def test_an_existing_file_that_others_can_read_is_refused(
    log_in: Run, run: Run, file: Path
) -> None:
    log_in()
    file.chmod(0o640)
    refused = run("account", "list")
    assert refused.status == 1
    assert refused.err == f"{file}: others can read the tokens in it; run chmod 600 {file}\n"
    assert log_in().status == 1


def test_the_environment_of_couchdb_is_preferred_to_the_default_profile(
    log_in: Run, on_couchdb: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in("--profile", "prod")
    assert run("--profile", "prod", "account", "list").status == 0
    log_in()
    assert "works on CouchDB only" in run("account", "show", "Operator").err
    assert on_couchdb("account", "show", "Operator").status == 0
    assert on_couchdb("--profile", "prod", "account", "list").status == 0
    assert "works on CouchDB" in on_couchdb("--profile", "prod", "account", "show", "x").err
    monkeypatch.setenv("KAZOO_IPS_PROFILE", "prod")
    assert "works on CouchDB" in on_couchdb("account", "show", "x").err


def test_variables_name_url_token_and_profile(
    run: Run, live: str, operator: Member, without_couchdb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAZOO_IPS_URL", f"{live}/v2/")
    assert run("account", "list").err == (
        "the service needs a valid token: run kazoo-ips login, or give --token\n"
    )
    monkeypatch.setenv("KAZOO_IPS_TOKEN", operator.token)
    assert run("account", "list").status == 0
    monkeypatch.setenv("KAZOO_IPS_URL", "ftp://example.com")
    wanted = (
        "KAZOO_IPS_URL: 'ftp://example.com' is not of the form https://host or https://host:port"
    )
    assert run("account", "list").err == f"{wanted}\n"
    assert run("--url", live, "account", "list").status == 0


def test_the_token_of_a_profile_is_used_for_its_url_only(log_in: Run, run: Run, live: str) -> None:
    log_in("--profile", "prod")
    assert run("--url", live, "account", "list").status == 0
    other = live.replace("127.0.0.1", "localhost")
    assert "needs a valid token" in run("--url", other, "account", "list").err


@pytest.mark.parametrize("name", ["", "a b", "../x", "a]b", "a\nb", "x" * 65])
def test_a_name_that_the_file_cannot_have_is_refused(log_in: Run, file: Path, name: str) -> None:
    if name:
        assert log_in("--profile", name).status == 1
        assert not file.exists()
    with pytest.raises(ValueError, match="not a valid name of a profile"):
        profiles.check_name(name)


def test_any_value_is_read_back(file: Path) -> None:
    kept = profiles.Profile("https://example.com", "a.b.c", "Söhne & [x]; #1 %(y)s = :", "f" * 32)
    profiles.save("DEFAULT", kept)
    profiles.save("b", profiles.Profile("https://b.example.com"))
    assert profiles.load() == {"DEFAULT": kept, "b": profiles.Profile("https://b.example.com")}


def test_a_file_that_is_not_one_is_one_line(run: Run, file: Path) -> None:
    file.parent.mkdir()
    file.write_text("nonsense")
    file.chmod(0o600)
    assert run("account", "list").err == f"{file} is not a file of profiles\n"


def test_a_wrong_login_is_refused_and_keeps_nothing(
    log_in: Run, file: Path, alice: Member
) -> None:
    wanted = "the service refuses the account, the user or the password\n"
    assert log_in(password="wrong").err == wanted
    assert log_in(account=alice.account.realm + ".x").err == wanted
    assert not file.exists()


def test_an_account_is_named_by_realm_or_name(log_in: Run, operator: Member) -> None:
    assert log_in(account=operator.account.name).status == 0
    assert log_in(account=operator.account.realm.upper()).status == 0


def test_profiles_are_listed_without_tokens_and_removed(
    log_in: Run, run: Run, live: str, operator: Member
) -> None:
    log_in()
    log_in("--profile", "prod")
    assert run("profiles").out.splitlines() == [
        f"{name} {live} {operator.id} Operator" for name in ("default", "prod")
    ]
    printed = [json.loads(line) for line in run("profiles", "--json").out.splitlines()]
    assert printed[1] == {
        "profile": "prod", "url": live, "account_id": operator.id, "account_name": "Operator",
    }  # fmt: skip
    assert run("logout").out == "removed the profile default\n"
    assert run("logout").err == "there is no profile default\n"
    assert run("--profile", "default", "summary").err == (
        "there is no profile default; profiles: prod\n"
    )


def test_options_of_a_url_need_one(on_couchdb: Run) -> None:
    result = on_couchdb("--token", "x", "summary")
    assert (result.status, result.err) == (1, "--token and --ca-file need --url or --profile\n")
