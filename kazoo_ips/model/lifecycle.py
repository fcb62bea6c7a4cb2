"""The life of an address: its states, and the changes that lead from one to the next.

Each arrow is one method of `DedicatedIP`, and `TRANSITIONS` is the same as a table. No other code
changes a status, and `_design/guard` refuses other changes of documents.

                       create
                          │
      disable             ▼                        reserve
    ┌──────────────── available ──────────────────────────────────┐
    │   ┌───────────▶ ▲  │  ▲ ▲                                   │
    │   │    enable   │  │  │ └── cancel, expiry ─────────┐        │
    │   │             │  │  │                             │        │
    │   │ rest ended  │  │  │ release                     │        ▼
    │   │   ┌─────────┘  │  └───────────┐                 │     reserved ⟲ extend
    │   │   │            │ assign       │                 │      │  │
    │   │   │            ▼              │   assign by the │      │  │
    │   │   │        assigned ──────────┘ ◀── reservation ┴──────┘  │
    │   │   │         │  ▲  ⟲ transfer, disable, enable             │
    │   │   │ release │  │                                          │
    │   │   │         ▼  │ assign: the last account at once,        │
    │   │   └──────── aging  others when its time is over           │
    │   │              │                                            │
    ▼   │    disable   ▼                                  disable   │
    disabled ◀──────────────────────────────────────────────────────┘

* `aging` ends by time, and `reserved` too: by comparison with the clock, not by a timer. An
  address whose time is over can be assigned or reserved at once, like an available one.
* A cancelled reservation, and an enabled address, whose rest is not over yet go on resting.
* An assigned address that is disabled stays assigned. It is disabled instead of available when it
  is released. So is every address of a host or zone that is drained.
* An address that moves to a drained host or zone is disabled by its move, and enabled by its move
  away. One that was disabled on its own stays so, and one that is assigned stays assigned.
* Only an assigned address has an account. It is deleted after its release; a reserved one after
  its reservation has ended. All others are deleted as they are.
* Kazoo gives an address away only if its status is exactly `available`. Its release makes any
  address available, and keeps the other fields. From them, `DedicatedIP.corrected` sees what the
  state should be. All other methods act as if it were that state already.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kazoo_ips.model.history import NOBODY, Author
from kazoo_ips.model.trail import EventKind


class Status(StrEnum):
    """The states of a dedicated IP that this release knows.

    Any other status is that of a newer release. An address with such a status is shown and counted
    by the name of the status, and is not changed.
    """

    AVAILABLE = "available"
    """Any account may have it."""
    ASSIGNED = "assigned"
    """An account has it."""
    AGING = "aging"
    """It was released, and rests before another account gets it."""
    RESERVED = "reserved"
    """It is set aside for one account for some time."""
    DISABLED = "disabled"
    """The operator took it out of service."""


STATUSES = {status.value: status for status in Status}
"""Each `Status` by its name."""


def known_status(name: str) -> str:
    """Return the `Status` of a name, or the name itself if only a newer release knows it."""
    return STATUSES.get(name, name)


class Scope(StrEnum):
    """What the operator has disabled: one address, all of a host, or all of a zone."""

    IP = "ip"
    HOST = "host"
    ZONE = "zone"


@dataclass(frozen=True, slots=True)
class Disabled:
    """Why an address is disabled.

    :param at: the time in Gregorian seconds
    :param by: who disabled it
    """

    reason: str
    at: int
    by: Author = NOBODY
    scope: Scope = Scope.IP


class PlaceRules(NamedTuple):
    """What the settings of a zone and of a host say about an address there.

    :param aging_seconds: how long an address rests after its release
    :param takes_oldest: whether an allocation takes the addresses that have rested longest, if no
        others are left
    :param drained: why the zone or the host is drained; None if it is not
    """

    aging_seconds: int = 0
    takes_oldest: bool = False
    drained: Disabled | None = None


OPEN = PlaceRules()
"""The rules of a place without settings."""

_AVAILABLE, _ASSIGNED, _AGING, _RESERVED, _DISABLED = Status
_FREE = (_AVAILABLE, _AGING, _DISABLED)
_ALL: tuple[Status, ...] = (_AVAILABLE, _ASSIGNED, _AGING, _RESERVED, _DISABLED)

TRANSITIONS: dict[EventKind, frozenset[tuple[Status | None, Status | None]]] = {
    EventKind.CREATED: frozenset({(None, _AVAILABLE), (None, _DISABLED)}),
    EventKind.ASSIGNED: frozenset((each, _ASSIGNED) for each in (_AVAILABLE, _AGING, _RESERVED)),
    EventKind.RELEASED: frozenset((was, to) for was in (_ASSIGNED, _RESERVED) for to in _FREE),
    EventKind.TRANSFERRED: frozenset({(_ASSIGNED, _ASSIGNED)}),
    EventKind.RESERVED: frozenset((each, _RESERVED) for each in (_AVAILABLE, _AGING, _RESERVED)),
    EventKind.AGED: frozenset({(_AGING, _AVAILABLE), (_AVAILABLE, _AGING)}),
    EventKind.DISABLED: frozenset(
        {*((each, _DISABLED) for each in _ALL if each is not _ASSIGNED), (_ASSIGNED, _ASSIGNED)}
    ),
    EventKind.ENABLED: frozenset({*((_DISABLED, each) for each in _FREE), (_ASSIGNED, _ASSIGNED)}),
    EventKind.CHANGED: frozenset(
        {
            *((each, each) for each in _ALL),
            *((each, _DISABLED) for each in _ALL if each is not _ASSIGNED),
            *((_DISABLED, each) for each in _FREE),
        }
    ),
    EventKind.DELETED: frozenset((each, None) for each in _ALL if each is not _ASSIGNED),
}
"""The statuses before and after each event of this service. None is an address that the pool does
not have. A correction of what another program did can have any status before it."""
