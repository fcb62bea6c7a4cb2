"""Operations of clients, written as a sentence, and their possible effects.

A pool is a set of pairs of an address and its account, `-` if it is available. Each address and
each account is a letter. This module does not know how a request is sent.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from urllib.parse import quote

Pool = frozenset[tuple[str, str]]
UNASSIGNED = "-"

ADDRESSES = {letter: f"192.0.2.{number}" for number, letter in enumerate("abcdef", 1)}
LETTERS = {address: letter for letter, address in ADDRESSES.items()}


@dataclass(frozen=True)
class Operation:
    """One request, as in `X assigns ab`.

    :param by: `X`, `Y`, or `operator`
    :param verb: assigns, allocates, releases, creates, deletes or repairs
    :param what: addresses, a number, or `all`; nothing for `repairs`
    """

    by: str
    verb: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.by} {self.verb} {self.what}".strip()

    @classmethod
    def read(cls, sentence: str) -> "Operation":
        """Parse a sentence."""
        return cls(*sentence.split())

    def request(self, ids: Mapping[str, str]) -> tuple[str, str, dict[str, Any] | None]:
        """Return method, path and data of the request.

        :param ids: the account id of each name
        """
        own = f"/v2/accounts/{ids.get(self.by, '')}/ips"
        wanted = [ADDRESSES[letter] for letter in self.what if letter in ADDRESSES]
        one = f"{own}/{quote(wanted[0], safe='')}" if len(wanted) == 1 else None
        new = [{"ip": ip, "zone": "z", "host": "h.example.com"} for ip in wanted]
        match self.verb:
            case "assigns":
                return ("POST", one, None) if one else ("POST", own, {"ips": wanted})
            case "allocates":
                return "POST", own, {"quantity": int(self.what)}
            case "releases" if self.what == "all":
                return "DELETE", own, None
            case "releases":
                return ("DELETE", one, None) if one else ("DELETE", own, {"ips": wanted})
            case "creates":
                return "PUT", "/v2/ips", new[0] if one else {"ips": new}
            case "deletes":
                return "DELETE", f"/v2/ips/{quote(wanted[0], safe='')}?force=true", None
        raise ValueError(self)

    def effects(
        self, pool: Pool, concurrent: frozenset[str] = frozenset()
    ) -> Iterator[tuple[frozenset[str], Pool]]:
        """Yield each possible effect on a pool: the changed addresses, and the pool afterwards.

        :param concurrent: addresses that concurrent operations may change. A release of all may
            include or miss an address that is assigned to the account at the same time.
        """
        has = dict(pool)
        for letters in self._possible(has, concurrent):
            left = {letter: owner for letter, owner in has.items() if letter not in letters}
            if self.verb == "deletes":
                yield letters, frozenset(left.items())
            else:
                owner = self.by if self.verb in ("assigns", "allocates") else UNASSIGNED
                yield letters, frozenset({**left, **dict.fromkeys(letters, owner)}.items())

    def _possible(
        self, has: Mapping[str, str], concurrent: frozenset[str]
    ) -> Iterator[frozenset[str]]:
        wanted = frozenset(self.what)
        match self.verb:
            case "allocates":
                free = sorted(letter for letter, owner in has.items() if owner == UNASSIGNED)
                yield from map(frozenset, combinations(free, int(self.what)))
            case "releases" if self.what == "all":
                held = {letter for letter, owner in has.items() if owner == self.by}
                yield from (frozenset(held - left) for left in _subsets(held & concurrent))
            case "creates" if not wanted & has.keys():
                yield wanted
            case "deletes" if wanted <= has.keys():
                yield wanted
            case "assigns" | "releases":
                owner = UNASSIGNED if self.verb == "assigns" else self.by
                if all(has.get(letter) == owner for letter in wanted):
                    yield wanted

    def about(self, pool: Pool) -> frozenset[str]:
        """Return the addresses that the operation may read or write."""
        if self.verb in ("allocates", "repairs") or self.what == "all":
            return frozenset(letter for letter, _ in pool)
        return frozenset(self.what)


def _subsets(letters: Collection[str]) -> Iterator[set[str]]:
    for count in range(len(letters) + 1):
        yield from map(set, combinations(sorted(letters), count))


def read_pool(text: str) -> Pool:
    """Parse a pool such as `a:X b:- c:Y`."""
    return frozenset((word[0], word[2:]) for word in text.split())


def show_pool(pool: Pool) -> str:
    """Return the text that `read_pool` parses."""
    return " ".join(f"{letter}:{owner}" for letter, owner in sorted(pool))
