"""Everything that can go wrong, as one tree. Knows neither HTTP codes nor CouchDB.

KazooIPsError
├── ValidationFailed          what was sent breaks a rule; `errors` says where and which
│   └── WriteInDryRun         a dry run cannot say more without a write
├── InvalidCredentials        no token, a bad one, or a login that does not fit
├── TooManyAttempts           too many logins went wrong; `seconds` says when to come again
├── Forbidden                 the caller may not act on this account
├── BadIdentifier             nothing known by the name `cause`
│   ├── AccountNotFound
│   └── IPNotFound
├── RuleBroken                one address is not in the state the request needs
│   ├── AlreadyAssigned       it is the account's already
│   ├── AssignedToAnother     it is another account's
│   ├── NotAssigned           it is nobody's
│   └── UnknownStatus         only a newer release knows its status
├── Conflict                  somebody else's write came first
│   ├── IPExists              the address is in the pool already
│   ├── IPsExist              some addresses of a list are in the pool already
│   ├── IPAssigned            the address is assigned, so it stays in the pool
│   └── IPStatusUnknown       only a newer release knows its status, so it stays in the pool
├── InsufficientIPs           not as many available as were asked for
├── IdempotencyMismatch       the Idempotency-Key came before, with another request
├── InProgress                the request with this Idempotency-Key is still under way
├── PreconditionFailed        If-Match no longer holds
├── NotSecured                the service's CouchDB user cannot be let in
├── NotReady                  requests cannot be served now; `reasons` says why
└── DatastoreError            CouchDB could not do it
    ├── DatastoreUnreachable  no answer, or none in time
    │   ├── DatastoreForbidden  it does not let the service's user do that
    │   └── DatastoreLoginRefused  it refuses the service's user or password
    ├── DatastoreMissing      the database is not there
    ├── DatastoreMissingView  the design document is not there
    ├── DocumentNotFound      the document is not there
    └── RevisionConflict      the document has another revision by now
"""

from collections.abc import Mapping
from typing import Any


class KazooIPsError(Exception):
    """The root: catching it catches whatever this package raises on purpose."""


class ValidationFailed(KazooIPsError):
    """What was sent breaks a rule; every broken rule is listed, not the first.

    :param errors: `{path: {rule: {"message": text, …}}}`, Crossbar's shape
    """

    def __init__(self, errors: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        super().__init__(", ".join(errors))
        self.errors = errors


class WriteInDryRun(ValidationFailed):
    """A dry run has come to where it would have to write, and wrote nothing.

    :param database: where to
    """

    def __init__(self, database: str) -> None:
        message = "something has to be written first, which a dry run does not"
        super().__init__({"dry_run": {"forbidden": {"message": message, "value": True}}})
        self.database = database


class InvalidCredentials(KazooIPsError):
    """No token, a bad or expired one, or a login that does not fit."""


class TooManyAttempts(KazooIPsError):
    """Too many logins went wrong, of this client or at this account.

    :param seconds: until the next one is let through
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"not for {seconds} s")
        self.seconds = seconds


class Forbidden(KazooIPsError):
    """The caller may not act on this account, whether it exists or not."""


class BadIdentifier(KazooIPsError):
    """Nothing is known by that name.

    :param cause: the name as the caller wrote it
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"nothing known as {cause!r}")
        self.cause = cause


class AccountNotFound(BadIdentifier):
    """No account has that id."""


class IPNotFound(BadIdentifier):
    """The pool has no such address, or it is not an address at all."""


class RuleBroken(KazooIPsError):
    """One address is not in the state the request needs.

    `rule` and `message` are Crossbar's words for it (`cb_ips`).
    """

    rule = ""
    message = ""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address}: {self.message}")
        self.address = address


class AlreadyAssigned(RuleBroken):
    """The address is the account's already."""

    rule = "superfluous"
    message = "ip already assigned"


class AssignedToAnother(RuleBroken):
    """The address is another account's."""

    rule = "forbidden"
    message = "ip assigned to another account"


class NotAssigned(RuleBroken):
    """The address is nobody's."""

    rule = "superfluous"
    message = "ip not assigned"


class UnknownStatus(RuleBroken):
    """Only a newer release knows the address's status, so it is neither assigned nor released.

    :param status: as the document has it
    """

    rule = "forbidden"
    message = "ip has a status that this release does not know"

    def __init__(self, address: str, status: str = "") -> None:
        self.message = f"{self.message}: {status}" if status else self.message
        super().__init__(address)


class Conflict(KazooIPsError):
    """Somebody else's write came first; nothing of this request is left.

    :param addresses: the addresses it was lost for
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
    """Only a newer release knows the address's status, so it stays in the pool."""

    reason = "unknown_status"


class InsufficientIPs(KazooIPsError):
    """There are not as many available addresses as were asked for.

    :param requested: how many were asked for
    :param available: how many there were
    """

    def __init__(self, requested: int, available: int) -> None:
        super().__init__(f"{requested} requested, {available} available")
        self.requested = requested
        self.available = available


class IdempotencyMismatch(KazooIPsError):
    """The Idempotency-Key came before, with another request."""


class InProgress(KazooIPsError):
    """The request with this Idempotency-Key is still under way."""


class PreconditionFailed(KazooIPsError):
    """If-Match no longer holds."""


class NotSecured(KazooIPsError):
    """The service's CouchDB user cannot be let in; the message says why and what helps."""


class NotReady(KazooIPsError):
    """Requests cannot be served now.

    :param reasons: what is missing
    """

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons


class DatastoreError(KazooIPsError):
    """CouchDB could not do it."""


class DatastoreUnreachable(DatastoreError):
    """No answer from CouchDB, or none in time, or one that says it cannot now."""


class DatastoreForbidden(DatastoreUnreachable):
    """CouchDB does not let the service's user do that: nothing was done."""


class DatastoreLoginRefused(DatastoreUnreachable):
    """CouchDB refuses the service's user or password, or did a moment ago: nothing was done.

    :param locked: whether it was for the passwords of others, and this one may be right
    """

    def __init__(self, text: str = "", *, locked: bool = False) -> None:
        super().__init__(text)
        self.locked = locked


class DatastoreMissing(DatastoreError):
    """The database is not there."""


class DatastoreMissingView(DatastoreError):
    """The design document, or this view of it, is not there."""


class DocumentNotFound(DatastoreError):
    """The document is not there."""


class RevisionConflict(DatastoreError):
    """The document has another revision by now, or exists where none should."""
