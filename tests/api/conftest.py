"""Fixtures of the API's tests."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from embedded import samples
from kazoo_ips import app as composition
from kazoo_ips.api import examples
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from tests.api.couchdb import Databases
from tests.api.recorded import Kazoo
from tests.conftest import Member
from tests.members import add_member


@pytest.fixture(scope="session")
def databases(settings: Settings) -> Databases:
    """The databases that the tests share."""
    return Databases(settings.as_administrator().couchdb_url, settings.prefix)


@pytest.fixture
def load(pool: Any, databases: Databases) -> Callable[..., None]:
    """A function that writes documents to the empty pool, as Kazoo does."""

    def put(*documents: dict[str, Any]) -> None:
        databases.put("dedicated_ips", *documents)

    return put


@pytest.fixture
def run(environment: dict[str, str], operator: Member) -> Callable[..., Result]:
    """A function that runs `kazoo-ips` on the databases that the tests share."""
    runner = CliRunner(env=environment)
    return lambda *arguments, **more: runner.invoke(cli, arguments, **more)


@pytest.fixture(scope="session")
def sample_account(services: Instance, operator: Member) -> str:
    """The sample account and another one, with the ids in the examples of the API description."""
    other, realm = "other-sample.example.com", "sample.example.com"
    services.accounts.create("Other sample", other, operator.id, examples.OTHER_ACCOUNT_ID)
    return services.accounts.create("Sample", realm, operator.id, examples.ACCOUNT_ID).id


@pytest.fixture
def sample_pool(pool: Any, services: Instance, sample_account: str) -> None:
    """The addresses of `make run`, in the empty pool."""
    samples.make_pool(services, sample_account)


@pytest.fixture(scope="module")
def kazoo(settings: Settings) -> Iterator[Kazoo]:
    """The recorded databases of a running Kazoo, restored with a prefix of their own."""
    own = replace(settings, prefix=f"test-{uuid4().hex[:8]}-")
    restored, databases = Kazoo(own), composition.databases(own)
    try:
        restored.restore()
        databases.create()
        add_member(own)
        yield restored
    finally:
        databases.delete()
