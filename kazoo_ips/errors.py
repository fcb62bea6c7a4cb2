"""All errors of the package, as one tree. They know neither HTTP status codes nor CouchDB.

KazooIPsError
├── ValidationFailed          the request breaks rules; `errors` lists each rule by its field
│   └── WriteInDryRun         a dry run cannot continue without a write
├── InvalidCredentials        no token, an invalid one, or a failed login
├── TooManyRequests           a rate limit is reached; `seconds` is the time to wait
│   ├── TooManyAttempts       too many failed logins
│   └── TooManyKeys           too many new Idempotency-Keys
├── Forbidden                 the caller may not act on this account
│   └── TokenRestricted       the restrictions of the caller's token forbid it
├── BadIdentifier             nothing has the name `cause`
│   ├── AccountNotFound
│   └── IPNotFound
├── RuleBroken                an address is not in the state that the request needs
│   ├── AlreadyAssigned       it is assigned to the account already
│   ├── AssignedToAnother     it is assigned to another account
│   ├── NotAssigned           it is not assigned
│   ├── Unusable              it is never assigned, whatever its status
│   └── UnknownStatus         only a newer release knows its status
├── Conflict                  another writer was faster
│   ├── IPExists              the address is in the pool already
│   ├── IPsExist              some addresses of a list are in the pool already
│   ├── IPAssigned            the address is assigned, so it stays in the pool
│   └── IPStatusUnknown       only a newer release knows its status, so it stays in the pool
├── InsufficientIPs           fewer addresses are available than requested
├── IdempotencyMismatch       the Idempotency-Key was used before for another request
├── InProgress                the request with this Idempotency-Key is still running
├── PreconditionFailed        the revision differs from If-Match
├── NotSecured                the service's CouchDB user cannot be given access
├── NotReady                  requests cannot be served now; `reasons` says why
└── DatastoreError            CouchDB failed
    ├── DatastoreUnreachable  no answer, or none in time
    │   ├── DatastoreForbidden  the service's user lacks the permission
    │   └── DatastoreLoginRefused  the service's user or password is refused
    ├── DatastoreMissing      the database does not exist
    ├── DatastoreMissingView  the design document or the view does not exist
    ├── DocumentNotFound      the document does not exist
    └── RevisionConflict      the document has another revision
"""

from collections.abc import Mapping
from typing import Any


class KazooIPsError(Exception):
    """The base class of all errors that this package raises on purpose."""


class ValidationFailed(KazooIPsError):
    """The request breaks one or more rules; every broken rule is listed.

    :param errors: `{path: {rule: {"message": text, …}}}`, as Crossbar reports them
    """

    def __init__(self, errors: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        super().__init__(", ".join(errors))
        self.errors = errors


class WriteInDryRun(ValidationFailed):
    """A dry run has reached a step that needs a write. Nothing was written.

    :param database: the database that would be written to
    """

    def __init__(self, database: str) -> None:
        message = "a dry run cannot continue, because another write has to come first"
        super().__init__({"dry_run": {"forbidden": {"message": message, "value": True}}})
        self.database = database


class InvalidCredentials(KazooIPsError):
    """The request has no token or an invalid or expired one, or a login failed."""


class TooManyRequests(KazooIPsError):
    """The account or the client has sent too many requests.

    :param seconds: the time until the next request is accepted
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the next request is accepted in {seconds} s")
        self.seconds = seconds


class TooManyAttempts(TooManyRequests):
    """Too many logins of this client or at this account have failed."""


class TooManyKeys(TooManyRequests):
    """The account has used too many new Idempotency-Keys. Nothing was done."""


class Forbidden(KazooIPsError):
    """The caller may not act on this account, whether it exists or not."""


class TokenRestricted(Forbidden):
    """The restrictions of the caller's token do not permit this request."""


class BadIdentifier(KazooIPsError):
    """Nothing has this name.

    :param cause: the name as the client wrote it
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"unknown name {cause!r}")
        self.cause = cause


class AccountNotFound(BadIdentifier):
    """No account has this id."""


class IPNotFound(BadIdentifier):
    """The pool does not have this address, or it is not a valid address."""


class RuleBroken(KazooIPsError):
    """One address is not in the state that the request needs.

    `rule` and `message` are the texts that Crossbar uses (`cb_ips`).
    """

    rule = ""
    message = ""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address}: {self.message}")
        self.address = address


class AlreadyAssigned(RuleBroken):
    """The address is assigned to the account already."""

    rule = "superfluous"
    message = "ip already assigned"


class AssignedToAnother(RuleBroken):
    """The address is assigned to another account."""

    rule = "forbidden"
    message = "ip assigned to another account"


class NotAssigned(RuleBroken):
    """The address is not assigned."""

    rule = "superfluous"
    message = "ip not assigned"


class Unusable(RuleBroken):
    """The address is never assigned, whatever its status.

    :param reason: why, as a clause
    """

    rule = "forbidden"
    message = "ip cannot be assigned"

    def __init__(self, address: str, reason: str = "") -> None:
        self.message = f"{self.message}: {reason}" if reason else self.message
        super().__init__(address)


class UnknownStatus(RuleBroken):
    """Only a newer release knows the status, so the address can be neither assigned nor released.

    :param status: the status in the document
    """

    rule = "forbidden"
    message = "ip has a status that this release does not know"

    def __init__(self, address: str, status: str = "") -> None:
        self.message = f"{self.message}: {status}" if status else self.message
        super().__init__(address)


class Conflict(KazooIPsError):
    """Another writer was faster. This request has changed nothing, or its changes are undone.

    :param addresses: the addresses that the other writer has changed
    """

    reason = "conflict"

    def __init__(self, *addresses: str) -> None:
        super().__init__(f"{self.reason}: {', '.join(addresses)}")
        self.addresses = addresses


class IPExists(Conflict):
    """The address is in the pool already."""

    reason = "exists"


class IPsExist(Conflict):
    """Some addresses of a list are in the pool already; none of the list was added."""

    reason = "exists"


class IPAssigned(Conflict):
    """The address is assigned, so it stays in the pool."""

    reason = "assigned"


class IPStatusUnknown(Conflict):
    """Only a newer release knows the status, so the address stays in the pool."""

    reason = "unknown_status"


class InsufficientIPs(KazooIPsError):
    """Fewer addresses are available than requested.

    :param requested: the number of addresses requested
    :param available: the number of addresses available
    """

    def __init__(self, requested: int, available: int) -> None:
        super().__init__(f"{requested} requested, {available} available")
        self.requested = requested
        self.available = available


class IdempotencyMismatch(KazooIPsError):
    """The Idempotency-Key was used before for another request."""


class InProgress(KazooIPsError):
    """The request with this Idempotency-Key is still running."""


class PreconditionFailed(KazooIPsError):
    """The revision of the document differs from If-Match."""


class NotSecured(KazooIPsError):
    """The service's CouchDB user cannot be given access. The message gives reason and remedy."""


class NotReady(KazooIPsError):
    """The service cannot serve requests now.

    :param reasons: what is missing
    """

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons


class DatastoreError(KazooIPsError):
    """CouchDB failed."""


class DatastoreUnreachable(DatastoreError):
    """CouchDB did not answer in time, or answered that it cannot serve the request now."""


class DatastoreForbidden(DatastoreUnreachable):
    """The service's CouchDB user lacks the permission for this; nothing was done."""


class DatastoreLoginRefused(DatastoreUnreachable):
    """CouchDB refuses the service's user or password, or has refused it recently.

    Nothing was done.

    :param locked: whether failed logins of other clients have locked the user, so that the
        password may be right
    """

    def __init__(self, text: str = "", *, locked: bool = False) -> None:
        super().__init__(text)
        self.locked = locked


class DatastoreMissing(DatastoreError):
    """The database does not exist."""


class DatastoreMissingView(DatastoreError):
    """The design document does not exist, or lacks the view."""


class DocumentNotFound(DatastoreError):
    """The document does not exist."""


class RevisionConflict(DatastoreError):
    """The document has another revision, or exists although it should be new."""
