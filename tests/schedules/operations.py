"""Operations of clients, written as sentences, and their possible effects.

A pool is a set of pairs of an address and its owner. Addresses are small letters. An owner is one
of these:

* `X`: the account that has the address
* `x`: the account that the address is reserved for
* `~X`: the account that had the address last; the address rests
* `-`: none; the address is available
* `disabled`: none; the host of the address is drained

The pair of `!` and `drained` says that the host is drained. This module does not send requests.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

Pool = frozenset[tuple[str, str]]
UNASSIGNED, RESTS, DISABLED = "-", "~", "disabled"
HOST, DRAINED = "!", "drained"

ADDRESSES = {letter: f"192.0.2.{number}" for number, letter in enumerate("abcdef", 1)}
LETTERS = {address: letter for letter, address in ADDRESSES.items()}


@dataclass(frozen=True)
class Operation:
    """One request, as in `X assigns ab`.

    :param by: `X`, `Y`, or `operator`
    :param verb: assigns, allocates, reserves, confirms or cancels (a reservation), releases,
        gives (to the other account), creates, moves (to another host), deletes, drains or repairs
    :param what: addresses, a number, `all`, or `host`; for `repairs` nothing, or `rests` if only
        the rests are ended that are over
    :param most: the maximum number of addresses that the account which gets them may have; None
        is no limit
    """

    by: str
    verb: str
    what: str = ""
    most: int | None = None

    @property
    def caller(self) -> str:
        """The account of the request's token. Only the operator may act for both accounts."""
        return "operator" if self.verb == "gives" else self.by

    def __str__(self) -> str:
        return f"{self.by} {self.verb} {self.what}".strip()

    @classmethod
    def read(cls, sentence: str, limits: Mapping[str, int] = MappingProxyType({})) -> "Operation":
        """Parse a sentence.

        :param limits: the limit of each account that has one
        """
        by, *rest = sentence.split()
        gets = _OTHER[by] if rest[0] == "gives" else by
        return cls(by, *rest, most=limits.get(gets))

    def request(  # noqa: PLR0911 - one for each kind of request
        self, ids: Mapping[str, str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        """Return method, path and data of the request.

        :param ids: the account id of each name
        """
        own = f"/v2/accounts/{ids.get(self.by, '')}/ips"
        wanted = [ADDRESSES[letter] for letter in self.what if letter in ADDRESSES]
        if self.verb in _RESERVATIONS:
            return self._of_reservation(own, wanted)
        one = f"{own}/{quote(wanted[0], safe='')}" if len(wanted) == 1 else None
        new = [{"ip": ip, "zone": "z", "host": "h.example.com"} for ip in wanted]
        match self.verb:
            case "releases" if self.what == "all":
                return "DELETE", own, None
            case "assigns" | "releases":
                method = "POST" if self.verb == "assigns" else "DELETE"
                return (method, one, None) if one else (method, own, {"ips": wanted})
            case "allocates":
                return "POST", own, {"quantity": int(self.what)}
            case "creates":
                return "PUT", "/v2/ips", new[0] if one else {"ips": new}
            case "drains":
                data = {"enabled": False, "reason": "proxy goes"}
                return "PATCH", "/v2/ips/hosts/h.example.com", data
        return self._of_pool(ids, wanted)

    def _of_pool(
        self, ids: Mapping[str, str], wanted: list[str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        if self.verb == "gives":
            accounts = {"from": ids[self.by], "to": ids[_OTHER[self.by]]}
            return "POST", "/v2/ips/transfer", {"ips": wanted, **accounts}
        address = f"/v2/ips/{quote(wanted[0], safe='')}"
        if self.verb == "moves":
            return "PATCH", address, {"host": "other.example.com"}
        assert self.verb == "deletes", self
        return "DELETE", f"{address}?force=true", None

    def _of_reservation(
        self, own: str, wanted: list[str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        reservation = reservation_id(self.by, self.what)
        if self.verb == "reserves":
            return "PUT", f"{own}/reservations", {"ips": wanted}
        if self.verb == "confirms":
            return "POST", own, {"reservation": reservation}
        return "DELETE", f"{own}/reservations/{reservation}", None

    def effects(
        self, pool: Pool, concurrent: frozenset[str] = frozenset()
    ) -> Iterator[tuple[frozenset[str], Pool]]:
        """Yield each possible effect on a pool: the changed addresses, and the pool afterwards.

        A drain yields the addresses that it leaves to the background work.

        :param concurrent: addresses that concurrent operations may change. A release of all may
            include or miss an address that is assigned to the account at the same time.
        """
        has = dict(pool)
        # The worker may not know the drain yet. Then the background work disables the address.
        put_down = (DISABLED, UNASSIGNED) if HOST in has else (UNASSIGNED,)
        if self.verb == "drains":
            free = {letter for letter, owner in has.items() if owner == UNASSIGNED}
            for left in _subsets(free):
                out = dict.fromkeys(free - left, DISABLED)
                yield frozenset(left), frozenset({**has, **out, HOST: DRAINED}.items())
            return
        for letters in self._possible(has, concurrent):
            if self._exceeds_limit(has, letters):
                continue
            left = {letter: owner for letter, owner in has.items() if letter not in letters}
            if self.verb == "deletes":
                yield letters, frozenset(left.items())
            elif self.verb == "moves":
                yield letters, pool
            else:
                owner = _OWNERS.get(self.verb, str)(self.by)
                for each in put_down if owner == UNASSIGNED else (owner,):
                    yield letters, frozenset({**left, **dict.fromkeys(letters, each)}.items())

    def _exceeds_limit(self, has: Mapping[str, str], letters: frozenset[str]) -> bool:
        if self.most is None or self.verb not in ("assigns", "allocates", "reserves", "gives"):
            return False
        gets = _OTHER[self.by] if self.verb == "gives" else self.by
        return sum(owner.upper() == gets for owner in has.values()) + len(letters) > self.most

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
            case "deletes" | "moves" if wanted <= has.keys():
                yield wanted
            case "assigns" | "reserves" | "confirms" | "cancels" | "releases" | "gives":
                owners = {_NEEDS.get(self.verb, str)(self.by)}
                if self.verb == "assigns":
                    owners.add(f"{RESTS}{self.by}")
                if all(has.get(letter) in owners for letter in wanted):
                    yield wanted

    def about(self, pool: Pool) -> frozenset[str]:
        """Return the addresses that the operation may read or write."""
        if self.verb in ("allocates", "drains", "repairs") or self.what == "all":
            return frozenset(letter for letter, _ in pool)
        return frozenset(self.what)


_RESERVATIONS = ("reserves", "confirms", "cancels")


def _nobody(by: str) -> str:
    return UNASSIGNED


_OTHER = {"X": "Y", "Y": "X"}
_OWNERS: Mapping[str, Callable[[str], str]] = {
    "reserves": str.lower,
    "gives": lambda by: _OTHER[by],
    "releases": _nobody,
    "cancels": _nobody,
    "creates": _nobody,
}
"""The owner of an address after an operation of an account, for operations that do not assign it
to the account."""
_NEEDS: Mapping[str, Callable[[str], str]] = {
    "assigns": _nobody,
    "reserves": _nobody,
    "confirms": str.lower,
    "cancels": str.lower,
}
"""The owner of an address before an operation of an account, for operations on addresses that the
account does not have."""


def reservation_id(by: str, letters: str) -> str:
    """Return the id of the reservation of these addresses at the start."""
    return hashlib.sha256(f"{by} {letters}".encode()).hexdigest()[:32]


def _subsets(letters: Collection[str]) -> Iterator[set[str]]:
    for count in range(len(letters) + 1):
        yield from map(set, combinations(sorted(letters), count))


def read_pool(text: str) -> Pool:
    """Parse a pool such as `a:X b:- c:Y`."""
    return frozenset((word[0], word[2:]) for word in text.split())


def kept(pool: Pool) -> Pool:
    """Return a pool after the background work: nothing on a drained host is available."""
    if (HOST, DRAINED) not in pool:
        return pool
    return frozenset((letter, DISABLED if o == UNASSIGNED else o) for letter, o in pool)


def show_pool(pool: Pool) -> str:
    """Return the text that `read_pool` parses."""
    return " ".join(f"{letter}:{owner}" for letter, owner in sorted(pool))
