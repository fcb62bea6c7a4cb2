"""A single client without faults: its requests are valid, and no violation is found."""

from collections import Counter
from collections.abc import Callable

from kazoo_ips.config import Settings
from kazoo_ips.model import DedicatedIP
from tests.chaos.agreement import pool
from tests.chaos.clients import ACTIONS, Client, World
from tests.chaos.history import History
from tests.chaos.linearizability import ABSENT, AVAILABLE
from tests.conftest import Member
from tests.timing import eventually


def test_a_client_sends_every_kind_of_request_without_an_error(
    settings: Settings,
    add: Callable[..., DedicatedIP],
    live: str,
    operator: Member,
    alice: Member,
    bob: Member,
) -> None:
    states = {add(f"192.0.2.{n}").address: AVAILABLE for n in range(8)}
    history = History(states)
    tokens = {member.id: member.token for member in (operator, alice, bob)}
    world = World([live], [alice.id, bob.id], operator.id, history, dict(states), 0, tokens=tokens)
    client = Client(world, seed=1, number=0)
    client.start()
    finals: Counter[int] = Counter()

    def all_is_done() -> bool:
        finals.update(call.final.status for call in history.calls if call.final)
        done = {call.action for call in history.calls}
        return done == set(ACTIONS) and {200, 201, 400, 403, 404, 409} <= set(finals)

    assert eventually(all_is_done, seconds=120)
    world.stop.set()
    client.join(60)
    states = pool(settings.as_administrator().couchdb_url, settings.prefix)
    history.final = {address: states.get(address, ABSENT) for address in states}
    assert list(history.violations()) == []
