"""All errors of the package, as one tree. They know neither HTTP status codes nor CouchDB.

KazooIPsError
├── ValidationFailed          the request breaks rules; `errors` lists each rule by its field
│   ├── WriteInDryRun         a dry run cannot continue without a write
│   └── TooManyLabels         an address would have more labels than it may have
├── InvalidCredentials        no token, an invalid one, or a failed login
├── TooManyRequests           a rate limit is reached; `seconds` is the time to wait
│   ├── TooManyAttempts       too many failed logins
│   └── TooManyKeys           too many new Idempotency-Keys
├── Forbidden                 the caller may not act on this account
│   └── TokenRestricted       the restrictions of the caller's token forbid it
├── BadIdentifier             nothing has the name `cause`
│   ├── AccountNotFound
│   ├── IPNotFound
│   ├── JobNotFound
│   ├── WebhookNotFound
│   └── ReservationNotFound
├── RuleBroken                an address is not in the state that the request needs
│   ├── AlreadyAssigned       it is assigned to the account already
│   ├── AssignedToAnother     it is assigned to another account
│   ├── NotAssigned           it is not assigned
│   ├── Resting               it was released, and rests until another account may have it
│   ├── Reserved              it is set aside for an account
│   ├── OutOfService          it is disabled, or its host or zone is drained
│   ├── NotResting            it does not rest
│   ├── NotReserved           the reservation does not hold it
│   ├── NotDisabled           it is not disabled
│   ├── Unusable              it is never assigned, whatever its status
│   └── UnknownStatus         only a newer release knows its status
├── Conflict                  another writer was faster
│   ├── IPExists              the address is in the pool already
│   ├── IPsExist              some addresses of a list are in the pool already
│   ├── IPAssigned            the address is assigned, so it stays in the pool
│   ├── IPReserved            the address is reserved, so it stays in the pool
│   └── IPStatusUnknown       only a newer release knows its status, so it stays in the pool
├── InsufficientIPs           fewer addresses are available than requested
├── LimitReached              the limits of an account permit fewer addresses
├── ReservationLimitReached   the account has as many open reservations as it may have
├── ReservationExpired        the reservation is over, so it assigns nothing
├── JobExists                 another job works on the same host
├── WebhookLimitReached       there are as many webhooks as there may be
├── IdempotencyMismatch       the Idempotency-Key was used before for another request
├── InProgress                the request with this Idempotency-Key is still running
├── PreconditionFailed        the revision differs from If-Match
├── PreconditionRequired      the request needs an If-Match
├── SinceGone                 the year of this position in the feed of events is deleted
├── ReceiverUnavailable       another system does not accept the messages of this service
├── RemoteFailure             the service at the URL of a command cannot be used
├── NotSecured                the service's CouchDB user cannot be given access
├── NotReady                  requests cannot be served now; `reasons` says why
└── DatastoreError            CouchDB failed
    ├── DatastoreUnreachable  no answer, or none in time
    │   ├── DatastoreForbidden  the service's user lacks the permission
    │   ├── DatastoreLoginRefused  the service's user or password is refused
    │   ├── DatastoreBadRequest  CouchDB refuses a parameter as malformed
    │   └── HistoryMissing    a year's database is missing, and the service may not create it
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


class TooManyLabels(ValidationFailed):
    """An address would have more labels than it may have.

    :param most: the maximum number
    :param wanted: the number after the change
    """

    def __init__(self, most: int, wanted: int) -> None:
        message = f"The object must have at most {most} properties"
        rule = {"message": message, "target": most, "value": wanted}
        super().__init__({"labels": {"maxProperties": rule}})


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


class JobNotFound(BadIdentifier):
    """No job has this id."""


class WebhookNotFound(BadIdentifier):
    """No webhook has this id."""


class ReservationNotFound(BadIdentifier):
    """The account has no open reservation with this id."""


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


class Resting(RuleBroken):
    """The address was released, and rests. Only the account that had it may have it back.

    :param until: when others may have it, in Gregorian seconds
    """

    rule = "forbidden"
    message = "ip is resting"

    def __init__(self, address: str, until: int = 0) -> None:
        super().__init__(address)
        self.until = until


class Reserved(RuleBroken):
    """The address is set aside for an account."""

    rule = "forbidden"
    message = "ip is reserved"


class OutOfService(RuleBroken):
    """The operator has disabled the address, or drains its host or zone."""

    rule = "forbidden"
    message = "ip is disabled"


class NotResting(RuleBroken):
    """The address does not rest, or still has to."""

    rule = "superfluous"
    message = "ip is not resting"


class NotReserved(RuleBroken):
    """The reservation does not hold the address, or not any more."""

    rule = "superfluous"
    message = "ip is not reserved"


class NotDisabled(RuleBroken):
    """The address is not disabled, or only because its host or zone is drained."""

    rule = "superfluous"
    message = "ip is not disabled"


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


class IPReserved(Conflict):
    """The address is reserved, so it stays in the pool."""

    reason = "reserved"


class IPStatusUnknown(Conflict):
    """Only a newer release knows the status, so the address stays in the pool."""

    reason = "unknown_status"


class InsufficientIPs(KazooIPsError):
    """Fewer addresses are available than requested.

    :param requested: the number of addresses requested
    :param available: the number of addresses available
    :param resting: the number of addresses that rest until another account may have them
    :param next_at: when the first of these has rested, in Gregorian seconds; None if none rests
    """

    def __init__(
        self, requested: int, available: int, resting: int = 0, next_at: int | None = None
    ) -> None:
        super().__init__(f"{requested} requested, {available} available")
        self.requested = requested
        self.available = available
        self.resting = resting
        self.next_at = next_at


class LimitReached(KazooIPsError):
    """The limits of an account permit fewer addresses than the request needs.

    :param which: the limit: `max`, `zones` or `descendants_max`
    :param limit: the maximum number of addresses
    :param used: the number of addresses that count already
    :param requested: the number of further addresses that the request needs
    :param account_id: the account that has the limit: that of the request, or one above it
    :param zone: the zone, if the limit is that of a zone
    """

    def __init__(  # noqa: PLR0913 - one for each part of the reply
        self,
        which: str,
        limit: int,
        used: int,
        requested: int,
        *,
        account_id: str,
        zone: str | None = None,
    ) -> None:
        super().__init__(f"{which} of {account_id}: {used} of {limit}, {requested} more requested")
        self.which = which
        self.limit = limit
        self.used = used
        self.requested = requested
        self.account_id = account_id
        self.zone = zone


class ReservationLimitReached(KazooIPsError):
    """The account has as many open reservations as it may have.

    :param limit: the maximum number
    :param used: the number that there are
    """

    def __init__(self, limit: int, used: int) -> None:
        super().__init__(f"{used} reservations of {limit}")
        self.limit = limit
        self.used = used


class ReservationExpired(KazooIPsError):
    """The account has no open reservation with this id, so nothing is assigned."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(reservation_id)


class JobExists(KazooIPsError):
    """Another job works on the same host.

    :param job_id: its id
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} works on the host")
        self.job_id = job_id


class WebhookLimitReached(KazooIPsError):
    """The account, or the operator, has as many webhooks as it may have.

    :param limit: the maximum number
    :param used: the number that there are
    """

    def __init__(self, limit: int, used: int) -> None:
        super().__init__(f"{used} webhooks of {limit}")
        self.limit = limit
        self.used = used


class IdempotencyMismatch(KazooIPsError):
    """The Idempotency-Key was used before for another request."""


class InProgress(KazooIPsError):
    """The request with this Idempotency-Key is still running."""


class PreconditionFailed(KazooIPsError):
    """The revision of the document differs from If-Match."""


class PreconditionRequired(KazooIPsError):
    """The request would move an assigned address, so it has to name the revision (If-Match)."""


class SinceGone(KazooIPsError):
    """The feed of events cannot continue at a position, because its year is deleted.

    The reader may have missed events. It can start again at `0`, the oldest event that is kept.
    """


class ReceiverUnavailable(KazooIPsError):
    """Another system, such as Kazoo's message bus, does not accept the messages of this service.

    Nothing is lost: the events are sent when it accepts them. The message contains no secret.
    """


class RemoteFailure(KazooIPsError):
    """The service at the URL of a command cannot be used. The message gives reason and remedy."""


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


class DatastoreBadRequest(DatastoreUnreachable):
    """CouchDB answered 400: a parameter of the request is malformed."""


class HistoryMissing(DatastoreUnreachable):
    """The database for a year of the history is missing, and the service may not create it."""


class DatastoreMissing(DatastoreError):
    """The database does not exist."""


class DatastoreMissingView(DatastoreError):
    """The design document does not exist, or lacks the view."""


class DocumentNotFound(DatastoreError):
    """The document does not exist."""


class RevisionConflict(DatastoreError):
    """The document has another revision, or exists although it should be new."""
