"""Fixtures of the API's tests."""

from collections.abc import Callable
from typing import Any

import pytest

from kazoo_ips.config import Settings
from tests.api.couchdb import Databases

pytest.register_assert_rewrite("tests.api.replies")


@pytest.fixture(scope="session")
def databases(settings: Settings) -> Databases:
    """The databases that the tests share."""
    return Databases(settings.couchdb_url, settings.prefix)


@pytest.fixture
def load(pool: Any, databases: Databases) -> Callable[..., None]:
    """A function that puts documents into the empty pool, as Kazoo would."""

    def put(*documents: dict[str, Any]) -> None:
        databases.put("dedicated_ips", *documents)

    return put
