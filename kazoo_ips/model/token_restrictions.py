"""Token restrictions: which requests of an account's or user's token Kazoo permits.

The rules are those of Kazoo's `cb_token_restrictions.erl`. `get_token_restrictions` in Kazoo's
`crossbar_util.erl` chooses among them. The operator's tokens are never restricted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kazoo_ips.model import addresses

CATCH_ALL = "_"
"""In restrictions, the name that stands for every method, level, endpoint, account or verb."""
DEFAULT_LEVEL = "admin"
"""The privilege level of a token without a user, unless `system_config` has another one."""


def level_rules(
    templates: Iterable[Mapping[str, Any]], method: str, level: str
) -> Mapping[str, Any] | None:
    """Return the rules for a token, by endpoint; None if it is not restricted.

    :param templates: the restrictions by authentication method: the account's, then the system's.
        The first template with an entry for the method, or for `_`, is used
    :param method: the authentication method, for example `cb_user_auth`
    :param level: the privilege level, `admin` or `user`
    """
    for template in templates:
        levels = template.get(method)
        levels = template.get(CATCH_ALL) if levels is None else levels
        if levels is not None:
            break
    else:
        return None
    if not isinstance(levels, Mapping):
        return None
    rules = levels[level] if level in levels else levels.get(CATCH_ALL)
    return rules if isinstance(rules, Mapping) else None


@dataclass(frozen=True, slots=True)
class Access:
    """The properties of a request that the restrictions of its token depend on.

    :param token_account_id: the account of the token
    :param account_id: the account of the request
    :param is_descendant: whether the account of the request is below that of the token
    :param endpoint: the resource, for example `ips`
    :param arguments: the path segments after the endpoint
    :param verb: the HTTP method. If the request names another method in `verb`, it is that method
    """

    token_account_id: str
    account_id: str
    is_descendant: bool
    endpoint: str
    arguments: Sequence[str]
    verb: str

    def is_permitted(self, rules: Mapping[str, Any]) -> bool:
        """Return whether the rules permit the request.

        Only the first entry that matches the account is used, and only its first pattern that
        matches the path. A request that no pattern matches is not permitted.

        :param rules: the result of `level_rules`
        """
        entries = rules.get(self.endpoint)
        entries = rules.get(CATCH_ALL) if entries is None else entries
        patterns = next((e.get("rules") for e in _objects(entries) if self._has_account(e)), None)
        if not isinstance(patterns, Mapping):
            return False
        for pattern, verbs in patterns.items():
            if _matches(_segments(pattern), self.arguments):
                return isinstance(verbs, list) and bool(
                    {self.verb, CATCH_ALL} & {*map(str, verbs)}
                )
        return False

    def _has_account(self, entry: Mapping[str, Any]) -> bool:
        allowed = entry.get("allowed_accounts")
        if allowed is None:
            return True
        names = {CATCH_ALL, self.account_id}
        if self.account_id == self.token_account_id:
            names.add("{AUTH_ACCOUNT_ID}")
        elif self.is_descendant:
            names.add("{DESCENDANT_ACCOUNT_ID}")
        return isinstance(allowed, list) and bool(names & {*map(str, allowed)})


def _objects(entries: Any) -> Iterable[Mapping[str, Any]]:
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def _segments(pattern: str) -> list[str]:
    """Split a pattern at its slashes, without empty segments at its end."""
    segments = pattern.split("/")
    while segments and not segments[-1]:
        segments.pop()
    return segments


def _matches(pattern: Sequence[str], arguments: Sequence[str]) -> bool:
    """Match path segments: `*` stands for one segment, `#` for any number of them.

    Two spellings of one address match. Otherwise a request with another spelling would not meet
    the rule for the address.
    """
    if not pattern:
        return not arguments
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_matches(rest, arguments[n:]) for n in range(len(arguments) + 1))
    if not arguments:
        return False
    is_match = first == "*" or _spelled(first) == _spelled(arguments[0])
    return is_match and _matches(rest, arguments[1:])


def _spelled(segment: str) -> str:
    return addresses.canonical(segment) or segment
