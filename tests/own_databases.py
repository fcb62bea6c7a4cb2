"""Databases that only one test, or the tests of one module, use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from tests.members import add_member


@contextmanager
def own_databases(settings: Settings, **changes: Any) -> Iterator[Settings]:
    """Create databases, and delete them at the end.

    :param changes: other settings that differ from the given ones
    :returns: the settings with the prefix of these databases
    """
    own = replace(settings, prefix=f"test-{uuid4().hex[:8]}-", **changes)
    databases = composition.databases(own)
    try:
        databases.create()
        add_member(own)
        yield own
    finally:
        databases.delete()
