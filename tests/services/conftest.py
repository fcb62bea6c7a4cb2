"""Fixtures that the tests of several services use."""

from uuid import uuid4

import pytest


@pytest.fixture
def address() -> str:
    """An address that no other test uses, so that it has no tombstone and no earlier revisions."""
    return f"2001:db8:{uuid4().int % 65536:x}::{uuid4().int % 65536:x}"
