"""The service as a plain member of CouchDB, and the command `secure`.

The embedded server has no users. So on it, all of these tests but one are skipped.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.couch.login_circuit_breaker import PAUSES
from kazoo_ips.errors import DatastoreLoginRefused, DocumentNotFound
from kazoo_ips.model import AssignIP, CreateIP, ReleaseIP
from kazoo_ips.repositories.access import ROLE, AccessRepository
from kazoo_ips.repositories.accounts import account_database
from tests.openapi_check import CheckedApp

ADDRESS = "192.0.2.1"
KAZOO = {"admins": {"names": ["ops"]}, "members": {"names": ["kazoo"], "roles": ["voip"]}}
"""The `_security` object of a database to which an operator has added members by hand."""


@dataclass(frozen=True)
class Secured:
    """Databases of one test, and the CouchDB user that becomes a member."""

    settings: Settings
    couch: Couch
    user: str

    def run(self, *command: str, password: str = "s3cret") -> Result:
        """Run a command, with the user's password or another one."""
        parts = self.settings.couchdb_url.replace("s3cret", password)
        environment = {
            "COUCHDB_URL": parts,
            "COUCHDB_ADMIN_URL": self.settings.couchdb_admin_url,
            "KAZOO_IPS_PREFIX": self.settings.prefix,
        }
        return CliRunner(env=environment).invoke(cli, command)

    @property
    def administrator(self) -> Instance:
        """The services with the administrator's login."""
        return composition.build(self.settings.as_administrator())

    @property
    def member(self) -> Instance:
        """The services with the user's login, with a clock that is some minutes ahead."""
        return composition.build(self.settings, clock=lambda: time.time() + 300)


@pytest.fixture
def secured(settings: Settings, couch: Couch) -> Iterator[Secured]:
    """Databases that only administrators may use, and a user that does not exist yet."""
    if "couchdb" not in couch.greeting():
        pytest.skip("the embedded server has no users")
    user = f"test-{uuid4().hex[:8]}"
    admin_url = settings.as_administrator().couchdb_url
    host = admin_url.rpartition("@")[2]
    own = replace(
        settings,
        couchdb_url=f"http://{user}:s3cret@{host}",
        couchdb_admin_url=admin_url,
        prefix=f"test-{uuid4().hex[:8]}-",
    )
    databases = composition.databases(own)
    databases.create()
    yield Secured(own, composition.connect(own.as_administrator()), user)
    databases.delete()
    users = couch.users()
    document = users.find(f"org.couchdb.user:{user}")
    if document:
        users.remove(document["_id"], document["_rev"])


def test_secure_reports_a_server_without_users(settings: Settings, couch: Couch) -> None:
    if "couchdb" in couch.greeting():
        pytest.skip("for the embedded server, which has none")
    host = settings.couchdb_url.removeprefix("http://")
    environment = {
        "COUCHDB_URL": f"http://kazoo_ips:s3cret@{host}",
        "COUCHDB_ADMIN_URL": f"http://admin:password@{host}",
    }
    refused = CliRunner(env=environment).invoke(cli, ["secure"])
    assert str(refused.exception) == "this CouchDB has no database _users, so it has no users"


def roles(database: Database) -> list[str]:
    found: list[str] = database.security()["members"]["roles"]
    return found


def test_secure_creates_the_user_and_adds_it_and_a_second_run_changes_nothing(
    secured: Secured,
) -> None:
    with pytest.raises(DatastoreLoginRefused):
        secured.member.accounts.list()
    names = AccessRepository(secured.couch).databases()
    assert {"accounts", "dedicated_ips", "kazoo_ips", "system_auth", "system_config"} < {*names}
    assert sum(name.startswith("kazoo_ips_history_") for name in names) == 2
    result = secured.run("secure", "--dry-run")
    assert (result.exit_code, result.stdout.count("not done: --dry-run")) == (0, 1 + len(names))
    with pytest.raises(DocumentNotFound):
        secured.couch.users().get(f"org.couchdb.user:{secured.user}")
    assert roles(secured.couch.database("dedicated_ips")) == ["_admin"]

    result = secured.run("secure")
    time.sleep(PAUSES[0])  # CouchDB has refused the user above
    assert result.exit_code == 0
    assert set(result.stdout.splitlines()) == {
        f"user {secured.user}: created",
        *(f"{name}: member added" for name in names),
    }
    assert "s3cret" not in result.output
    assert secured.member.accounts.list() == []
    assert roles(secured.couch.database("dedicated_ips")) == ["_admin", ROLE]
    assert secured.run("secure").stdout == ""


def test_secure_keeps_existing_members(secured: Secured) -> None:
    secured.couch.database("accounts").secure(KAZOO)
    secured.couch.database("system_auth").secure({})
    output = secured.run("secure").stdout
    assert "accounts: member added\n" in output
    assert "system_auth: open to every user, not changed\n" in output
    merged = {**KAZOO, "members": {"names": ["kazoo"], "roles": ["voip", ROLE]}}
    assert secured.couch.database("accounts").security() == merged
    assert "roles" not in secured.couch.database("system_auth").security().get("members", {})


def test_an_existing_user_keeps_its_password_and_roles_by_default(secured: Secured) -> None:
    secured.couch.users().put(
        {
            "_id": f"org.couchdb.user:{secured.user}", "name": secured.user, "type": "user",
            "roles": ["reports"], "password": "s3cret", "team": "billing",
        }
    )  # fmt: skip
    assert f"user {secured.user}: role {ROLE}\n" in secured.run("secure").stdout
    document = secured.couch.users().get(f"org.couchdb.user:{secured.user}")
    assert (document["roles"], document["team"]) == (sorted(["reports", ROLE]), "billing")
    assert secured.member.accounts.list() == []

    refused = secured.run("secure", password="another")
    assert refused.exit_code == 1
    assert str(refused.exception).endswith("has another password; --new-password changes it")
    assert secured.member.accounts.list() == []
    result = secured.run("secure", "--new-password", password="another")
    assert result.stdout == f"user {secured.user}: new password\n"
    with pytest.raises(DatastoreLoginRefused):
        secured.member.accounts.list()


def test_secure_needs_an_administrator(secured: Secured) -> None:
    secured.run("secure")
    own = secured.settings.couchdb_url
    environment = {
        "COUCHDB_URL": own.replace(secured.user, "somebody"),
        "COUCHDB_ADMIN_URL": own,
        "KAZOO_IPS_PREFIX": secured.settings.prefix,
    }
    refused = CliRunner(env=environment).invoke(cli, ["secure"])
    assert str(refused.exception).endswith("that user is not an administrator of CouchDB")


def test_an_account_created_by_the_command_has_the_service_as_a_member(secured: Secured) -> None:
    secured.run("secure")
    made = secured.run("account", "create", "Operator", "--realm", "operator.example.com")
    assert made.exit_code == 0
    [account] = secured.member.accounts.list()
    assert account.operator
    assert secured.run("secure").stdout == ""


@pytest.fixture
def kazoos(secured: Secured) -> Any:
    """An account whose database Kazoo has created: the service is not a member."""
    secured.run("secure")
    account = secured.administrator.accounts.create("New", "new.example.com")
    database = secured.couch.database(account_database(account.id))
    database.secure({"admins": {"roles": ["_admin"]}, "members": {"roles": ["_admin"]}})
    return account


def test_an_account_created_by_kazoo_is_503_until_secure_runs_again(
    secured: Secured, kazoos: Any
) -> None:
    secured.administrator.pool.create(CreateIP(ADDRESS, "us-east", "a.example.com"), "x")
    token = secured.administrator.auth.open_session(kazoos).token
    api = CheckedApp(composition.create_app(secured.settings))
    path, headers = f"/v2/accounts/{kazoos.id}/ips/{ADDRESS}", {"X-Auth-Token": token}
    reply = api.post(path, headers=headers, status=503)
    assert reply.json["message"] == "datastore_fault"
    assert secured.administrator.ips.fetch(ADDRESS).assigned_to is None
    assert secured.run("secure").stdout == f"{account_database(kazoos.id)}: member added\n"
    api.post(path, headers=headers, status=200)
    api.delete(path, headers=headers, status=200)


def test_the_doctor_names_the_accounts_without_access(secured: Secured, kazoos: Any) -> None:
    services = secured.administrator
    for n in (1, 2):
        services.pool.create(CreateIP(f"192.0.2.{n}", "us-east", "a.example.com"), "x")
    services.ips.assign(AssignIP(kazoos.id, ADDRESS), "x")
    found = {(f.problem, f.address, f.account_id) for f in secured.member.doctor.examine()}
    assert found == {("no_access", ADDRESS, kazoos.id)}
    services.ips.release(ReleaseIP(kazoos.id, ADDRESS), "x")
    found = {(f.problem, f.address, f.account_id) for f in secured.member.doctor.examine()}
    assert found == {("no_access", "", kazoos.id)}
    done = secured.run("doctor")
    assert done.exit_code == 1
    assert "CouchDB refuses access to this account" in done.stdout
    secured.run("secure")
    assert list(secured.member.doctor.examine()) == []


def test_watch_adds_the_user_to_new_accounts(
    secured: Secured, kazoos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured.run("secure")
    database = secured.couch.database(account_database("f" * 32))

    def wait(seconds: float) -> None:
        assert seconds == 7
        if not database.create():
            raise KeyboardInterrupt

    monkeypatch.setattr("kazoo_ips.cli.database_access.time.sleep", wait)
    result = secured.run("secure", "--watch", "7")
    assert result.stdout.startswith(f"{account_database('f' * 32)}: member added\n")
    assert roles(database) == ["_admin", ROLE]
