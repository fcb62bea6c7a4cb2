"""Accounts, users and callers."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Account:
    """One node of the account tree. `tree` is its ancestors, root first, parent last."""

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
        """Whether its tokens and logins work.

        :param now: Gregorian seconds
        """
        return self.enabled and (self.expires is None or self.expires > now)

    def is_within(self, ancestor_id: str) -> bool:
        """Whether this is that account or one below it."""
        return self.id == ancestor_id or ancestor_id in self.tree


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who logs in to an account."""

    id: str
    account_id: str
    username: str
    enabled: bool = True
    signature_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is acting: the account of the token, and the user if it names one."""

    account: Account
    user_id: str | None = None

    @property
    def is_operator(self) -> bool:
        """Kazoo's superduper admin: a property of the account, not of the user."""
        return self.account.operator

    def may_see(self, account: Account) -> bool:
        """Itself, what is below it, and for the operator everything."""
        return self.is_operator or account.is_within(self.account.id)
