"""The state machine of an address: its statuses and the transitions between them.

Each arrow of the diagram is one method of `DedicatedIP`. `TRANSITIONS` is the same as a table. No
other code changes a status, and `_design/guard` refuses other changes of documents.

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

* `aging` and `reserved` end at a time, which is compared with the clock; there is no timer. After
  that time, any account can get the address at once, as if it were available.
* If the rest of an address is not over when its reservation is cancelled, or when it is enabled,
  the rest goes on.
* An assigned address that is disabled stays assigned. Its release makes it disabled instead of
  available. The same applies to every assigned address of a drained host or zone.
* An address that moves to a drained host or zone is disabled by the move, and a move away enables
  it. An address that was disabled on its own stays disabled, and an assigned one stays assigned.
* Only an assigned address has an account. A deletion by force releases it first. Without force, an
  assigned or a reserved address is not deleted.
* Kazoo assigns an address only if its status is exactly `available`. Kazoo's release makes any
  address available and keeps the fields of the other statuses. `DedicatedIP.corrected` derives the
  correct status from these fields. All other methods act as if the address had it already.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kazoo_ips.model.history import NOBODY, Author
from kazoo_ips.model.trail import EventKind


class Status(StrEnum):
    """The statuses of a dedicated IP that this release knows.

    Any other status is one of a newer release. The service shows and counts an address with such a
    status by the name of the status, and does not change the address.
    """

    AVAILABLE = "available"
    """Any account may have it."""
    ASSIGNED = "assigned"
    """An account has it."""
    AGING = "aging"
    """It was released, and rests until another account may have it."""
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
    """What the operator has disabled: one address, or all addresses of a host or zone."""

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
    """The rules for an address that follow from the settings of its zone and host.

    :param aging_seconds: how long an address rests after its release; 0 if it does not rest
    :param takes_oldest: whether an allocation takes the addresses that have rested longest, if no
        available ones are left
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
"""For each kind of event of this service, the statuses before and after it. None stands for an
address that the pool does not have. Before a correction of another program's write, the address
can have any status."""
