"""How many addresses the pool, a zone, a host or an account has. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kazoo_ips.model.lifecycle import Status
from kazoo_ips.model.usage import Forecast


@dataclass(frozen=True, slots=True)
class Summary:
    """The number of addresses of one group: the pool, a zone, a host or an account.

    :param counts: the number of addresses by status, for each status that occurs
    :param name: the name of the zone or host, or the id of the account; empty for the whole pool
    :param low: whether the zone, or any zone of the pool, is low; None for other groups
    :param forecast: when the zone or the pool runs out; None if no such day is known
    """

    counts: Mapping[str, int]
    name: str = ""
    low: bool | None = None
    forecast: Forecast | None = None

    @property
    def total(self) -> int:
        """The number of all addresses."""
        return sum(self.counts.values())

    @property
    def available(self) -> int:
        """The number of available addresses."""
        return self.counts.get(Status.AVAILABLE, 0)

    @property
    def used(self) -> float:
        """The share of the addresses that are assigned, from 0 to 1; 0 for an empty group."""
        return self.counts.get(Status.ASSIGNED, 0) / self.total if self.total else 0.0


class SummaryPage(NamedTuple):
    """A part of a list of summaries.

    :param after: the name after which the next part starts; None at the end
    """

    items: tuple[Summary, ...]
    after: str | None = None
