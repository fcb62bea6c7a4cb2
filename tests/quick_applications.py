"""Lets all applications of a process share what takes long to create and never differs.

Tests create some thousand applications, all with the same routes and few signing keys. Werkzeug
compiles two functions for each route, which takes 0.03 s for an application, and OpenSSL checks
the primes of each key that it loads, which takes 0.03 s as well.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from werkzeug.routing import Rule

from kazoo_ips.repositories import signing_keys

_compile = Rule._compile_builder
_compiled: dict[Any, Callable[..., tuple[str, str]]] = {}


def share() -> None:
    """Compile each route, and check each key, only once in this process."""
    Rule._compile_builder = _compile_once  # type: ignore[method-assign]
    signing_keys.load_pem_private_key = lru_cache(signing_keys.load_pem_private_key)


def _compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
    """Return the function that builds a URL. It depends on nothing but the text of the rule."""
    key = (rule.rule, repr(rule.defaults), tuple(rule._trace), append_unknown)
    if key not in _compiled:
        _compiled[key] = _compile(rule, append_unknown)
    return _compiled[key]
