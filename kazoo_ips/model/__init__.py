"""The models and the rules that they obey. Standard library only."""

from kazoo_ips.model.accounts import (
    Account,
    AccountPage,
    Caller,
    User,
)
from kazoo_ips.model.changes import MAX_LABELS, Changes, Labels
from kazoo_ips.model.commands import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    Attempt,
    ChangeIP,
    CreateIP,
    DeleteIP,
    DisableIP,
    EnableIP,
    EndRest,
    EvacuateHost,
    ListAccounts,
    Login,
    MoveHost,
    ReleaseIP,
    ReleaseIPs,
    TransferIPs,
)
from kazoo_ips.model.dedicated_ip import DedicatedIP
from kazoo_ips.model.lifecycle import (
    OPEN,
    Disabled,
    PlaceRules,
    Scope,
    Status,
)
from kazoo_ips.model.listings import (
    Listing,
    ListIPs,
    Page,
    Position,
)
from kazoo_ips.model.recorded_ip import Changed, replace
from kazoo_ips.model.revisions import (
    Branches,
    Leaves,
    Outcome,
    Withdrawal,
    Written,
)
from kazoo_ips.model.summaries import (
    Summary,
    SummaryPage,
)
from kazoo_ips.model.times import GREGORIAN_EPOCH
from kazoo_ips.model.trail import (
    KEY_SECONDS,
    TRAIL_LENGTH,
    Event,
    EventKind,
    Trail,
    generation,
)

__all__ = [
    "GREGORIAN_EPOCH",
    "KEY_SECONDS",
    "MAX_LABELS",
    "OPEN",
    "TRAIL_LENGTH",
    "Account",
    "AccountPage",
    "AllocateIPs",
    "AssignIP",
    "AssignIPs",
    "Attempt",
    "Branches",
    "Caller",
    "ChangeIP",
    "Changed",
    "Changes",
    "CreateIP",
    "DedicatedIP",
    "DeleteIP",
    "DisableIP",
    "Disabled",
    "EnableIP",
    "EndRest",
    "EvacuateHost",
    "Event",
    "EventKind",
    "Labels",
    "Leaves",
    "ListAccounts",
    "ListIPs",
    "Listing",
    "Login",
    "MoveHost",
    "Outcome",
    "Page",
    "PlaceRules",
    "Position",
    "ReleaseIP",
    "ReleaseIPs",
    "Scope",
    "Status",
    "Summary",
    "SummaryPage",
    "Trail",
    "TransferIPs",
    "User",
    "Withdrawal",
    "Written",
    "generation",
    "replace",
]
