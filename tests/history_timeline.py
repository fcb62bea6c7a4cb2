"""A timeline in memory: events of the history, and the answers that are expected for them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, State
from kazoo_ips.model.timelines import position

NEW_YEAR = 63_965_980_800
"""The beginning of 2027, in Gregorian seconds."""
ALICE, BOB, RESELLER = "a" * 32, "b" * 32, "c" * 32
ZONES = ["us-east", "eu-central"]
KIND = HistoryEventKind


@dataclass
class Timeline:
    """The changes of addresses, in the order in which they happened.

    :param now: the time of the next change, in Gregorian seconds
    """

    now: int
    events: list[HistoryEvent] = field(default_factory=list)
    states: dict[str, State | None] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    truth: dict[str, list[tuple[int, State | None]]] = field(default_factory=dict)
    """For each address, the times of its changes and the state after each, without those that were
    retracted or that only a gap stands for."""

    def change(
        self,
        address: str,
        kind: str,
        after: State | None,
        account_id: str | None = None,
        by: Author | None = None,
    ) -> HistoryEvent:
        """Change the state of an address, and return the event."""
        number = self.generations[address] = self.generations.get(address, 0) + 1
        made = HistoryEvent(
            f"{number:06}-{number:08x}", address, kind, self.now, account_id,
            self.states.get(address), after, by or Author(account_id, "user"),
            f"request-{len(self.events)}", revision=f"{number}-{number:032x}",
        )  # fmt: skip
        self.events.append(made)
        self.states[address] = after
        self.truth.setdefault(address, []).append((self.now, after))
        return made

    def create(self, address: str, zone: str = "us-east") -> HistoryEvent:
        """Add an address to the pool."""
        return self.change(address, KIND.CREATED, free(zone))

    def assign(self, address: str, account_id: str, by: Author | None = None) -> HistoryEvent:
        """Assign an address."""
        before = self.states[address]
        assert before
        after = State("assigned", account_id, before.zone, before.host)
        return self.change(address, KIND.ASSIGNED, after, account_id, by)

    def release(self, address: str, by: Author | None = None) -> HistoryEvent:
        """Release an address."""
        before = self.states[address]
        assert before
        return self.change(address, KIND.RELEASED, free(before.zone), before.account_id, by)

    def move(self, address: str, zone: str) -> HistoryEvent:
        """Change the zone of an address."""
        before = self.states[address]
        assert before
        return self.change(address, KIND.CHANGED, before._replace(zone=zone), None, Author(BOB))

    def delete(self, address: str) -> HistoryEvent:
        """Delete an address from the pool."""
        return self.change(address, KIND.DELETED, None)

    def retract(self, event: HistoryEvent) -> HistoryEvent:
        """Retract an event. Its change no longer counts."""
        made = replace(
            event, id=f"{event.id}-r", event=KIND.RETRACTED, at=self.now, retracts=event.id,
            before=None, after=None,
        )  # fmt: skip
        self.events.append(made)
        self.truth[event.address].remove((event.at, event.after))
        return made

    def forget(self, address: str) -> HistoryEvent:
        """Let another program change the state. The history has only a gap for this change."""
        number = self.generations[address] = self.generations.get(address, 0) + 1
        known = self.states.get(address)
        made = HistoryEvent(
            f"{number:06}-{number:08x}", address, KIND.UNKNOWN, self.now,
            known.account_id if known else None, known, None, Author(), None, certain=False,
            revision=f"{number}-{number:032x}",
        )  # fmt: skip
        self.events.append(made)
        return made

    def listed(self) -> list[HistoryEvent]:
        """Return the events that lists have, the latest first."""
        retracted = {(e.address, e.retracts) for e in self.events if e.retracts}
        kept = [e for e in self.events if not e.retracts and (e.address, e.id) not in retracted]
        return kept[::-1]

    def state_at(self, address: str, at: int) -> tuple[int | None, State | None, int | None]:
        """Return the state of an address at a time, with its beginning and its end."""
        since, state, until = None, None, None
        for when, after in self.truth.get(address, ()):
            same = since is not None and (state and state[:2]) == (after and after[:2])
            if when <= at:
                since, state = (since if same else when), after
            elif not same:
                until = when
                break
        return since, state, until


def free(zone: str = "us-east") -> State:
    """Return the state of an available address."""
    return State("available", None, zone, f"proxy1.{zone}.example.com")


def random_timeline(seed: int, addresses: list[str], steps: int, start: int) -> Timeline:
    """Return a timeline of random changes. Some have the same second; they cross a new year."""
    mix, line = Random(seed), Timeline(start)
    for _ in range(steps):
        line.now += mix.choice([0, 0, 1, 60, 86_400])
        address = mix.choice(addresses)
        state = line.states.get(address)
        if state is None:
            line.create(address, mix.choice(ZONES))
        elif state.account_id:
            if mix.random() < 0.2:
                line.move(address, mix.choice([z for z in ZONES if z != state.zone]))
            else:
                line.release(address)
        elif mix.random() < 0.2:
            line.delete(address)
        else:
            line.assign(address, mix.choice([ALICE, BOB]))
    return line


def tenures(line: Timeline, account_id: str) -> Iterator[tuple[str, int, int | None]]:
    """Return the address, the beginning and the end of each tenure, the latest beginning first."""
    ends: dict[str, int] = {}
    for event in sorted(line.listed(), key=position, reverse=True):
        had = bool(event.before and event.before.account_id == account_id)
        has = bool(event.after and event.after.account_id == account_id)
        if had and not has:
            ends[event.address] = event.at
        elif has and not had:
            yield event.address, event.at, ends.pop(event.address, None)
