"""Fixtures that the tests of several services use."""

from uuid import uuid4

import pytest

from tests.clocks import ManualClock


@pytest.fixture
def address() -> str:
    """An address that no other test uses, so that it has no tombstone and no earlier revisions."""
    return f"2001:db8:{uuid4().int % 65536:x}::{uuid4().int % 65536:x}"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test advances."""
    return ManualClock()
