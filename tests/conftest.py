"""Fixtures: a real database, the application on it, accounts with tokens, and an empty pool.

The tests use the embedded database, unless COUCHDB_URL names another one. They create databases of
their own there, and delete them at the end. With COUCHDB_ADMIN_URL, the application's CouchDB user
is a plain member of these databases, and the administrator sends all other requests.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
from webtest import TestApp

from embedded import EmbeddedCouch
from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import Account, CreateIP, DedicatedIP, User
from kazoo_ips.repositories.accounts import account_database, normalize_name
from tests import quick_applications
from tests.api.own_application import OwnApplication, create_own_application
from tests.browsers import MISSING
from tests.emptying import Emptier
from tests.openapi_check import CheckedApp
from tests.own_databases import own_databases
from tests.servers import Gunicorn

pytest.register_assert_rewrite("tests.api.replies")
quick_applications.share()
# Without compiled modules, each program that a test starts would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def couchdb_url() -> Iterator[str]:
    """The URL of the database that all tests share. The embedded one has its data in memory."""
    if os.environ.get("COUCHDB_URL"):
        yield os.environ["COUCHDB_URL"]
        return
    os.environ.pop("COUCHDB_ADMIN_URL", None)
    with EmbeddedCouch(None) as couch:
        yield couch.url


@pytest.fixture(scope="session")
def settings(couchdb_url: str) -> Iterator[Settings]:
    """Settings with a prefix of this run; its databases are deleted at the end."""
    run = Settings(
        couchdb_url=couchdb_url,
        couchdb_admin_url=os.environ.get("COUCHDB_ADMIN_URL", ""),
        identity_cache=0,
        refusal_time=0.01,
        login_limit=0,
        account_limit=1_000_000,
        client_limit=1_000_000,
        key_limit=1_000_000,
    )
    with own_databases(run) as made:
        yield made


@pytest.fixture
def own_app(settings: Settings) -> Iterator[OwnApplication]:
    """An application on databases of its own: the test would slow down or damage shared ones."""
    with create_own_application(settings) as made:
        yield made


@pytest.fixture(scope="session")
def couch(settings: Settings) -> Couch:
    """The database server, to read documents directly."""
    return composition.connect(settings.as_administrator())


@pytest.fixture(scope="session")
def services(settings: Settings) -> Instance:
    """The service layer without HTTP."""
    return composition.build(settings.as_administrator())


@dataclass(frozen=True)
class Member:
    """An account with a user, its password and a token."""

    account: Account
    user: User
    password: str
    token: str

    @property
    def id(self) -> str:
        """The account's id."""
        return self.account.id

    @property
    def headers(self) -> dict[str, str]:
        """The header with the caller's token."""
        return {"X-Auth-Token": self.token}


@pytest.fixture(scope="session")
def member(services: Instance) -> Callable[..., Member]:
    """A function that creates an account. The first one is the operator's."""

    def make(name: str, parent: Member | None = None) -> Member:
        realm = f"{normalize_name(name)}-{uuid4().hex[:6]}.example.com"
        account = services.accounts.create(name, realm, parent and parent.id)
        user = services.accounts.create_user(account.id, "admin", "secret")
        token = services.auth.open_session(account, user).token
        return Member(account, user, "secret", token)

    return make


@pytest.fixture(scope="session")
def operator(member: Callable[..., Member]) -> Member:
    """The operator's account."""
    return member("Operator")


@pytest.fixture(scope="session")
def alice(member: Callable[..., Member], operator: Member) -> Member:
    """An account below the operator's."""
    return member("Alice", operator)


@pytest.fixture(scope="session")
def child(member: Callable[..., Member], alice: Member) -> Member:
    """An account below Alice's."""
    return member("Child", alice)


@pytest.fixture(scope="session")
def bob(member: Callable[..., Member], operator: Member) -> Member:
    """Another account, which is neither above nor below Alice's."""
    return member("Bob", operator)


@pytest.fixture(scope="session")
def wsgi(settings: Settings, operator: Member, emptier: Emptier) -> Any:
    """The WSGI application; the operator exists."""
    made = composition.create_app(settings)
    emptier.instances.append(made.extensions["kazoo_ips"])
    return made


@pytest.fixture
def api(wsgi: Any) -> TestApp:
    """The application for WebTest."""
    return CheckedApp(wsgi)


@pytest.fixture(scope="session")
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a program that uses the tests' databases."""
    return {
        **os.environ,
        "COUCHDB_URL": settings.couchdb_url,
        "COUCHDB_ADMIN_URL": settings.couchdb_admin_url,
        "KAZOO_IPS_PREFIX": settings.prefix,
        "KAZOO_IPS_IDENTITY_CACHE": "0",
        "KAZOO_IPS_REFUSAL_TIME": "0.01",
        "KAZOO_IPS_LOGIN_LIMIT": "0",
        "KAZOO_IPS_ACCOUNT_LIMIT": "1000000",
        "KAZOO_IPS_CLIENT_LIMIT": "1000000",
        "KAZOO_IPS_KEY_LIMIT": "1000000",
        # Most test pools have few addresses. Only the tests of low zones expect the events of
        # them.
        "KAZOO_IPS_LOW_PERCENT": "0",
        "KAZOO_IPS_DOCTOR_HOURS": "never",
    }


@pytest.fixture(scope="session")
def live(
    environment: dict[str, str], operator: Member, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of the application, served by a gunicorn on a free port.

    It serves until the last test, so it runs no background work.
    """
    log = tmp_path_factory.mktemp("gunicorn") / "log"
    with Gunicorn(environment, log, workers=1, background=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def emptier(couch: Couch, services: Instance) -> Emptier:
    """A function that empties the pool, the accounts of copies, and the log of transactions."""
    return Emptier(couch, services)


@pytest.fixture
def pool(couch: Couch, emptier: Emptier) -> Iterator[Database]:
    """The pool's database, empty at the start of the test; so are the accounts of copies, and
    the log of transactions.
    """
    emptier()
    yield couch.database("dedicated_ips")
    emptier()


@pytest.fixture
def copies(couch: Couch, alice: Member) -> Database:
    """Alice's database, with the copies in it."""
    return couch.database(account_database(alice.id))


@pytest.fixture
def add(pool: Database, services: Instance) -> Callable[..., DedicatedIP]:
    """A function that adds an address to the empty pool."""

    def make(
        address: str = "192.0.2.1", zone: str = "us-east", host: str = "proxy1.example.com"
    ) -> DedicatedIP:
        return services.pool.create(CreateIP(address, zone, host), uuid4().hex)

    return make


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The exchanges and documents of a running Kazoo."""
    return Path(__file__).parents[2] / "shared" / "recordings"


_LONG = ("tests/simulation/test_runs.py", "tests/test_docs_commands.py", "tests/deploy/")
"""Tests that take up to a minute each. They run first. Otherwise one of them could be the last
test, and all other processes would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first, and mark those of the database, which `make check` leaves out."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))
    for item in items:
        if "couchdb_url" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many schedules were run (`tests/schedules`), and whether a browser is missing."""
    reports = [r for rs in terminalreporter.stats.values() for r in rs if hasattr(r, "when")]
    counts = [
        n for r in reports if r.when == "call" for k, n in r.user_properties if k == "schedules"
    ]
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if MISSING in str(r.longrepr)]
    if skipped:
        text = f"{len(skipped)} tests of pages in a browser were left out: {MISSING}"
        terminalreporter.write_line(text, yellow=True)
    if counts:
        terminalreporter.write_line(f"{sum(counts)} schedules of {len(counts)} scenarios were run")


# Property tests run the same few examples each time. With HYPOTHESIS_PROFILE=thorough they run
# many new ones.
hypothesis.settings.register_profile(
    "default", deadline=None, print_blob=True, derandomize=True, max_examples=50
)
hypothesis.settings.register_profile(
    "thorough", deadline=None, print_blob=True, derandomize=False, max_examples=1000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
