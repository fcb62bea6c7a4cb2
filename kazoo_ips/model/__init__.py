"""The models and the rules that they obey. Standard library only."""

from kazoo_ips.model.accounts import (
    Account,
    Caller,
    User,
)
from kazoo_ips.model.commands import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    Attempt,
    CreateIP,
    DeleteIP,
    ListIPs,
    Login,
    ReleaseIP,
    ReleaseIPs,
)
from kazoo_ips.model.dedicated_ip import (
    GREGORIAN_EPOCH,
    TRAIL_LENGTH,
    TRAIL_SECONDS,
    Changed,
    DedicatedIP,
    Event,
    EventKind,
    Status,
)
from kazoo_ips.model.listings import (
    Listing,
    Page,
    Position,
)
from kazoo_ips.model.revisions import (
    Leaves,
    Outcome,
    Withdrawal,
    Written,
    generation,
)

__all__ = [
    "GREGORIAN_EPOCH",
    "TRAIL_LENGTH",
    "TRAIL_SECONDS",
    "Account",
    "AllocateIPs",
    "AssignIP",
    "AssignIPs",
    "Attempt",
    "Caller",
    "Changed",
    "CreateIP",
    "DedicatedIP",
    "DeleteIP",
    "Event",
    "EventKind",
    "Leaves",
    "ListIPs",
    "Listing",
    "Login",
    "Outcome",
    "Page",
    "Position",
    "ReleaseIP",
    "ReleaseIPs",
    "Status",
    "User",
    "Withdrawal",
    "Written",
    "generation",
]
