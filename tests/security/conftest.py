"""Fixtures of the API's tests, which these use as well."""

from tests.api.conftest import databases, fresh, load

__all__ = ["databases", "fresh", "load"]
