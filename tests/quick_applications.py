"""Lets all applications of a process share equal objects that are slow to create.

Tests create some thousand applications, all with the same routes, and hundreds of groups of
databases with a signing key each. Werkzeug compiles two functions for each route, which takes
0.04 s for an application. OpenSSL takes 0.03 s to make a key, and again to check a key that it
loads. So all databases that tests create get the same key; its id differs.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.routing import Rule

from kazoo_ips.repositories import signing_keys

_compile = Rule.compile
_compiled: dict[Any, dict[str, Any]] = {}
_RESULTS = ("_parts", "_trace", "_converters", "arguments", "_build", "_build_unknown")
"""The functions that Werkzeug has compiled, by the text of the rule, on which they depend
alone."""


def share() -> None:
    """Compile each route, make a key, and check each key only once in this process."""
    Rule.compile = _compile_once  # type: ignore[method-assign]
    signing_keys.load_pem_private_key = lru_cache(signing_keys.load_pem_private_key)
    signing_keys.rsa = SimpleNamespace(
        RSAPrivateKey=rsa.RSAPrivateKey,
        generate_private_key=lru_cache(rsa.generate_private_key),
    )


def _compile_once(rule: Rule) -> None:
    assert rule.map is not None
    assert not rule.host, "no route of the service depends on the host"
    converters = tuple(rule.map.converters.values())
    key = (rule.rule, rule.merge_slashes, repr(rule.defaults), converters)
    if key not in _compiled:
        _compile(rule)
        _compiled[key] = {name: getattr(rule, name) for name in _RESULTS}
    for name, value in _compiled[key].items():
        bound = getattr(value, "__func__", None)
        setattr(rule, name, bound.__get__(rule, None) if bound else value)
