"""Accounts, users and callers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kazoo_ips.model.token_restrictions import Access


@dataclass(frozen=True, slots=True)
class Account:
    """One node of the account tree.

    :param tree: the ids of its ancestors, the root first, the parent last
    :param enabled: whether its tokens and logins work (`pvt_enabled`)
    :param expires: the end of its trial in Gregorian seconds (`pvt_trial_expires`); None if it is
        not a trial
    :param operator: whether it is the operator's (`pvt_superduper_admin`)
    :param api_key: the key for logins by `api_auth`
    :param signature_secret: signs the tokens of the account that name no user
    """

    id: str
    name: str
    realm: str
    tree: tuple[str, ...]
    enabled: bool = True
    expires: int | None = None
    operator: bool = False
    reseller_id: str | None = None
    is_reseller: bool = False
    api_key: str | None = None
    language: str | None = None
    signature_secret: str | None = field(default=None, repr=False)

    def is_active(self, now: int) -> bool:
        """Return whether the account's tokens and logins work: it is enabled and has not expired.

        :param now: the time in Gregorian seconds
        """
        return self.enabled and (self.expires is None or self.expires > now)

    def is_within(self, ancestor_id: str) -> bool:
        """Return whether the account is the given one or one of its descendants."""
        return self.id == ancestor_id or ancestor_id in self.tree


@dataclass(frozen=True, slots=True)
class AccountPage:
    """A part of the list of accounts.

    :param next: the position where the next part starts; None at the end
    """

    items: Sequence[Account]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A user who logs in to an account.

    :param level: the privilege level, `admin` or `user` (`priv_level`)
    :param signature_secret: signs the tokens of the user
    """

    id: str
    account_id: str
    username: str
    enabled: bool = True
    level: str = "user"
    signature_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: the account of its token, and the user if the token names one.

    :param restrictions: the rules of the token by endpoint; None if it is not restricted. The
        operator's tokens are never restricted
    """

    account: Account
    user_id: str | None = None
    restrictions: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def is_operator(self) -> bool:
        """Whether the account is the operator's: in Kazoo's words, a superduper admin."""
        return self.account.operator

    def may_see(self, account: Account) -> bool:
        """Return whether the caller may see an account.

        A caller sees its own account and those below it; the operator sees all.
        """
        return self.is_operator or account.is_within(self.account.id)

    def may_request(
        self, account: Account, endpoint: str, arguments: Sequence[str], verb: str
    ) -> bool:
        """Return whether the restrictions of the caller's token permit a request.

        :param account: the account of the request
        :param endpoint: the resource, for example `ips`
        :param arguments: the path segments after the endpoint
        :param verb: the HTTP method
        """
        if self.restrictions is None:
            return True
        descendant = account.is_within(self.account.id)
        access = Access(self.account.id, account.id, descendant, endpoint, tuple(arguments), verb)
        return access.is_permitted(self.restrictions)
