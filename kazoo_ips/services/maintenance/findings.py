"""What the doctor finds: the problems, each with its meaning and its repair."""

from dataclasses import dataclass

PROBLEMS = {
    "orphaned_transaction": "a worker died during a transaction; it is committed or rolled back",
    "conflict": "conflicting revisions; the acknowledged one is kept",
    "withdrawn": "all writers withdrew their writes, so the address is missing; it is restored",
    "copy_missing": "the account has no copy of its address; the copy is written",
    "copy_stale": "the account's copy differs from the pool; the copy is written again",
    "copy_extra": "the account has a copy of an address not assigned to it; the copy is deleted",
    "no_owner": "assigned, but to no account; it is made available",
    "held_back": "available, but resting, reserved, disabled or drained; its status is corrected",
    "unknown_owner": "assigned to an account that does not exist; see `release --account`",
    "no_access": "CouchDB refuses access to this account; see `kazoo-ips secure`",
    "duplicate": "one address has two documents; only one can be assigned; delete one by hand",
    "not_counted": "the ledger of the account's limits lacks this address; it is added",
    "limit_exceeded": "the account has more addresses than its limits permit; it keeps them",
    "unusable": "no proxy can have this address; it is never assigned, and can be deleted",
    "not_an_address": "the id is not an address; delete the document by hand",
}
"""The problems that are found, each with its meaning and its repair."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, and whether it was repaired."""

    problem: str
    address: str
    account_id: str | None = None
    repaired: bool = False
