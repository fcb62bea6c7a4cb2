"""The signing key while CouchDB refuses or loses writes."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.repositories.signing_keys import SYSTEM_AUTH, SYSTEM_CONFIG, SigningKeyRepository
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy


@pytest.fixture
def empty(proxied_settings: Settings) -> Iterator[Couch]:
    """Databases without a signing key, behind the proxy."""
    own = replace(proxied_settings, prefix=f"test-{uuid4().hex[:8]}-")
    databases = composition.databases(own)
    databases.create()
    yield composition.connect(own)
    databases.delete()


def test_a_signing_key_that_cannot_be_named_is_written_once_and_is_an_error(
    empty: Couch, proxy: FaultProxy
) -> None:
    proxy.rule(faults.conflict_chunked, "PUT", "-system_config/auth", times=None)
    with pytest.raises(DatastoreUnreachable):
        SigningKeyRepository(empty, lambda: 1).get()
    assert len(list(empty.database(SYSTEM_AUTH).range("", "\uffff"))) == 1


def test_a_signing_key_without_a_quorum_is_not_named(empty: Couch, proxy: FaultProxy) -> None:
    proxy.rule(faults.answer_202, "PUT", "-system_auth/")
    keys = SigningKeyRepository(empty, lambda: 1)
    with pytest.raises(DatastoreUnreachable):
        keys.get()
    assert empty.database(SYSTEM_CONFIG).find("auth") is None
    assert keys.get().id == keys.get().id
