"""How many addresses an account certainly had at once, by the replies of a run."""

from collections.abc import Iterator, Mapping, Sequence

from tests.simulation.history import UNFINISHED, Call, addresses_of, is_final
from tests.simulation.plan import Allocate, Confirm
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Delete,
    Release,
    ReleaseAll,
    ReleaseMany,
    Transfer,
)

_TAKES = (Assign, AssignMany, Allocate, Confirm, Transfer)
_GIVES = (Release, ReleaseMany, ReleaseAll, Delete, Transfer)


def most_held(account: str, calls: Sequence[Call], owners: Mapping[str, str | None]) -> int:
    """Return the largest number of addresses that an account certainly had at one time.

    It has an address from the end of the request that assigns it until the beginning of the first
    later request that may end that.

    :param owners: the account of each address at the start
    """
    held = [*_tenures(account, calls, owners)]
    return max(
        (
            len({address for address, began, ended in held if began <= at < ended})
            for _, at, _ in held
        ),
        default=0,
    )


def _tenures(
    account: str, calls: Sequence[Call], owners: Mapping[str, str | None]
) -> Iterator[tuple[str, float, float]]:
    addresses = list(owners)
    for address, owner in owners.items():
        if owner == account:
            yield address, 0.0, _end(address, 0.0, calls, addresses)
    for call in calls:
        if not isinstance(call.command, _TAKES) or _taker(call.command) != account:
            continue
        if is_final(call.reply) and call.reply.status < 300:
            taken = call.reply.data.get("ips") or addresses_of(call.command, addresses)
            for address in taken:
                yield address, call.ended, _end(address, call.began, calls, addresses)


def _taker(command: Assign | AssignMany | Allocate | Confirm | Transfer) -> str:
    return command.to_id if isinstance(command, Transfer) else command.account


def _end(address: str, since: float, calls: Sequence[Call], addresses: Sequence[str]) -> float:
    """Return when the first request began that may end the tenure of an address."""
    began = (
        call.began
        for call in calls
        if isinstance(call.command, _GIVES)
        and call.ended >= since
        and address in addresses_of(call.command, addresses)
    )
    return min(began, default=UNFINISHED)
