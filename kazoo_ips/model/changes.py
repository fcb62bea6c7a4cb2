"""Changes of the zone, the host and the operator's notes of an address. Its account keeps it.

Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kazoo_ips.errors import TooManyLabels

Labels = tuple[tuple[str, str], ...]
"""Labels of an address: pairs of a key and a value, sorted by key."""
MAX_LABELS = 16
"""Maximum number of labels of one address."""


class Replacement(NamedTuple):
    """The address that an account got in an evacuation to replace another one.

    :param address: the new address
    :param account_id: the account. If another account has the old address by now, there is no
        replacement any more
    """

    address: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Changes:
    """A change of an address. Fields that are None do not change.

    :param description: the new description; an empty one removes it
    :param labels: the new value of each label that changes; None removes the label
    :param clear_labels: whether to remove all labels, before those in `labels` are added
    :param replaced_by: the address that the account has got to replace this one
    """

    zone: str | None = None
    host: str | None = None
    description: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    clear_labels: bool = False
    replaced_by: str | None = None

    def new_description(self, current: str | None) -> str | None:
        """Return the description after the change; None if there is none.

        :param current: the description before it
        """
        return current if self.description is None else self.description or None

    def new_labels(self, current: Labels) -> Labels:
        """Return the labels after the change, sorted by key.

        :param current: the labels before it
        :raises TooManyLabels: there would be more than `MAX_LABELS`
        """
        merged = {**({} if self.clear_labels else dict(current)), **self.labels}
        left = tuple(sorted((key, value) for key, value in merged.items() if value is not None))
        if len(left) > MAX_LABELS:
            raise TooManyLabels(MAX_LABELS, len(left))
        return left


NO_CHANGES = Changes()
"""A change of nothing."""
