"""Fixtures of the API's tests, which these use as well."""

from tests.api.conftest import databases, load

__all__ = ["databases", "load"]
