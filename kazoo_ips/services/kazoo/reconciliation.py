"""Reconciliation of the services of accounts whose addresses changed, by Crossbar.

Crossbar reconciles an account after each assignment and release that it makes itself: it counts
the account's copies again, and calls the bookkeeper (`cb_ips.erl`, `kz_services:reconcile`). This
module asks Crossbar for the same after changes that this service made.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kazoo_ips.errors import AccountNotFound, InvalidCredentials, ReceiverUnavailable
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.authentication import AuthenticationService

log = logging.getLogger(__name__)

GATHER = 3
"""Seconds in which further changes of an account cause no further request."""
MAX_WAITING = 2000
"""Accounts that wait at most. All are in one document, with about 50 bytes each."""
STUCK_AFTER = 8
"""Refused requests for one account, in about 20 minutes, after which it counts as stuck."""
_FIRST_PAUSE, _MAX_PAUSE = 10, 3600
"""Seconds after the first refusal of an account, and at most between two requests."""
_AWAY_PAUSE = 30
"""Seconds until an account is tried again whose request got no response: others come first."""
_ROUND = 10.0
"""Seconds after which a round starts no further request."""
_UNAUTHORIZED = 401
_BUSY = (429, 502, 503, 504)
"""Statuses that say nothing about the account: the next account would get the same."""


class CrossbarClient(Protocol):
    """Sends the request."""

    def reconcile(self, account_id: str, token: str) -> int:
        """Return the status of the response; 200 if it is done.

        :raises ReceiverUnavailable: there is no complete response
        """


class Counts(Protocol):
    """The metrics."""

    def count_reconciliation(self, result: str) -> None:
        """Count a request by its result."""

    def stuck(self, accounts: int) -> None:
        """Set the number of accounts whose reconciliation Crossbar keeps refusing."""


@dataclass(slots=True)
class _Waiting:
    """A reconciliation that is not done.

    :param since: the time of the first change, in Gregorian seconds
    :param due: when the next request is sent
    :param tries: responses that have refused it
    """

    since: int
    due: int
    tries: int = 0


class Reconciliation:
    """The accounts that have to be reconciled, and the requests for them.

    :param now: returns the time in Gregorian seconds
    :param token_lifetime: seconds that a token is valid
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        crossbar: CrossbarClient,
        accounts: AccountService,
        auth: AuthenticationService,
        *,
        now: Callable[[], int],
        token_lifetime: int,
        counts: Counts,
    ) -> None:
        self._crossbar = crossbar
        self._accounts = accounts
        self._auth = auth
        self._now = now
        self._token_lifetime = token_lifetime
        self._counts = counts
        self._waiting: dict[str, _Waiting] = {}
        self._token = ""
        self._token_until = 0

    # The accounts that wait. They are stored in the checkpoint.

    def load(self, stored: Mapping[str, Any]) -> None:
        """Replace the accounts by those of a checkpoint. All are due at once."""
        now = self._now()
        self._waiting = {
            account_id: _Waiting(since, now, tries)
            for account_id, (since, tries) in stored.items()
        }

    def dump(self) -> Mapping[str, Any]:
        """Return the accounts as they are stored: since when they wait, and the refusals."""
        return {
            account_id: [waiting.since, waiting.tries]
            for account_id, waiting in sorted(self._waiting.items())
        }

    def take(self, events: Collection[HistoryEvent]) -> tuple[()]:
        """Note the accounts of events.

        :returns: nothing that has to be handled again
        :raises ReceiverUnavailable: too many accounts wait already
        """
        if len(self._waiting) >= MAX_WAITING:
            raise ReceiverUnavailable(
                f"Crossbar: {len(self._waiting)} accounts wait for a reconciliation"
            )
        for event in events:
            for account_id in _billed(event):
                due = self._now() + GATHER
                waiting = self._waiting.setdefault(account_id, _Waiting(event.at, due))
                waiting.due = min(waiting.due, due)
        return ()

    @property
    def oldest(self) -> int | None:
        """Since when an account waits that is not stuck, in Gregorian seconds; None if none."""
        return min(
            (o.since for o in self._waiting.values() if o.tries < STUCK_AFTER), default=None
        )

    # The requests.

    def work(self) -> int:
        """Send the requests that are due, and return how many accounts are done.

        An account that Crossbar refuses does not delay the others.

        :raises ReceiverUnavailable: Crossbar is unavailable or refuses the token; the remaining
            accounts wait
        :raises DatastoreError: CouchDB failed; the remaining accounts wait
        """
        now, end, done = self._now(), time.monotonic() + _ROUND, 0
        due = sorted(
            (waiting.due, a) for a, waiting in self._waiting.items() if waiting.due <= now
        )
        try:
            for _, account_id in due:
                if time.monotonic() > end:
                    break
                done += self._reconcile(account_id)
        finally:
            stuck = sum(waiting.tries >= STUCK_AFTER for waiting in self._waiting.values())
            self._counts.stuck(stuck)
        return done

    def forget(self) -> None:
        """Forget the accounts: they are in the checkpoint, and another process has it."""
        self._waiting = {}
        self._counts.stuck(0)

    def _reconcile(self, account_id: str) -> bool:
        """Send the request for one account; return whether the account waits no more."""
        waiting = self._waiting[account_id]
        try:
            self._accounts.fetch(account_id)
        except AccountNotFound:
            log.info("account %s is deleted: nothing is left to bill", account_id)
            return self._done(account_id, "gone")
        try:
            status = self._request(account_id)
        except ReceiverUnavailable:
            waiting.due = self._now() + _AWAY_PAUSE
            self._counts.count_reconciliation("away")
            raise
        if status == 200:
            return self._done(account_id, "done")
        if status == _UNAUTHORIZED or status in _BUSY:
            waiting.due = self._now() + _AWAY_PAUSE
            self._counts.count_reconciliation(
                "unauthorized" if status == _UNAUTHORIZED else "failed"
            )
            raise ReceiverUnavailable(f"Crossbar: status {status}")
        self._refused(account_id, waiting, status)
        return False

    def _done(self, account_id: str, result: str) -> bool:
        del self._waiting[account_id]
        self._counts.count_reconciliation(result)
        return True

    def _refused(self, account_id: str, waiting: _Waiting, status: int) -> None:
        self._counts.count_reconciliation("failed" if status >= 500 else "refused")
        waiting.tries += 1
        waiting.due = self._now() + min(_FIRST_PAUSE * 2 ** (waiting.tries - 1), _MAX_PAUSE)
        what = f"status {status}" if status else "a response that is not Crossbar's"
        if waiting.tries == STUCK_AFTER:
            log.error(
                "account %s: Crossbar keeps refusing the reconciliation with %s; it is asked again"
                " every hour", account_id, what,
            )  # fmt: skip
        elif waiting.tries == 1:
            log.warning("account %s: not reconciled yet: %s", account_id, what)

    def _request(self, account_id: str) -> int:
        status = self._crossbar.reconcile(account_id, self._current_token())
        if status == _UNAUTHORIZED:  # the secret of the account or of the cluster has changed
            self._token_until = 0
            status = self._crossbar.reconcile(account_id, self._current_token())
        return status

    def _current_token(self) -> str:
        """Return a token of the operator's account.

        :raises ReceiverUnavailable: there is no account whose token Crossbar would accept
        """
        now = self._now()
        if now >= self._token_until:
            try:
                account = self._accounts.master()
                if not account.operator:
                    text = f"the master account {account.id} is no superduper admin"
                    raise ReceiverUnavailable(f"no token for Crossbar: {text}")
                self._token = self._auth.open_session(account).token
            except (AccountNotFound, InvalidCredentials) as error:
                raise ReceiverUnavailable(
                    "no token for Crossbar: the master account is missing, disabled or expired"
                ) from error
            self._token_until = now + self._token_lifetime // 2
        return self._token


def _billed(event: HistoryEvent) -> tuple[str, ...]:
    """Return the accounts whose number of addresses an event may have changed."""
    known = event.before is not None and event.after is not None
    if known and event.account_before == event.account_after:
        return ()
    return event.accounts
