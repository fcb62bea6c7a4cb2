"""The plan of a run, which a seed determines: the pool, the workers, the requests, the faults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from tests.simulation.cluster import Delays
from tests.simulation.network import RequestFaults
from tests.stateful.commands import (
    OWN,
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    Move,
    OfAccount,
    Release,
    ReleaseAll,
    ReleaseMany,
    Request,
    Transfer,
)

ACCOUNTS = ("X", "Y", "Z")


@dataclass(frozen=True)
class Allocate(OfAccount):
    """Assign a number of addresses that the service chooses."""

    quantity: int

    def request(self) -> Request:
        """Return method, path and data."""
        return "post", OWN, {"quantity": self.quantity}


@dataclass(frozen=True)
class Reserve(OfAccount):
    """Set addresses aside: those that are named, or a number of addresses.

    :param seconds: for how long
    """

    addresses: tuple[str, ...]
    quantity: int
    seconds: int

    def request(self) -> Request:
        """Return method, path and data."""
        wanted = {"ips": list(self.addresses)} if self.addresses else {"quantity": self.quantity}
        return "put", f"{OWN}/reservations", {**wanted, "seconds": self.seconds}


@dataclass(frozen=True)
class OfReservation(OfAccount):
    """A request about the latest reservation of the same client, which the run fills in.

    :param made_by: the number of the call that has made it
    """

    reservation: str = ""
    addresses: tuple[str, ...] = ()
    made_by: int = 0


@dataclass(frozen=True)
class Confirm(OfReservation):
    """Assign the addresses of a reservation."""

    def request(self) -> Request:
        """Return method, path and data."""
        return "post", OWN, {"reservation": self.reservation}


@dataclass(frozen=True)
class Cancel(OfReservation):
    """End a reservation."""

    def request(self) -> Request:
        """Return method, path and data."""
        return "delete", f"{OWN}/reservations/{self.reservation}", None


@dataclass(frozen=True)
class Repair(Command):
    """`kazoo-ips doctor --repair` on a worker's machine."""


@dataclass(frozen=True)
class Task:
    """One call of a client.

    :param key: the Idempotency-Key, or None
    :param pause: seconds before the call
    :param worker: the number of the worker that gets the first attempt
    """

    command: Command
    key: str | None
    pause: float
    worker: int


@dataclass(frozen=True)
class Fault:
    """A fault.

    :param at: seconds after the start of the run
    :param kind: `crash`, `pause` or `cut` (no connection to the other nodes) of a node, or `kill`
        of a worker
    :param which: the number of the node or worker
    :param seconds: how long it lasts
    """

    at: float
    kind: str
    which: int
    seconds: float


@dataclass
class Plan:
    """Everything about a run that is decided before it starts.

    :param owners: the account of each address at the start, or None
    :param hosts: the host of CouchDB for each worker: a node, or a load balancer
    :param deaths_detectable: whether a worker can detect that another one was killed
    :param message_loss: how often a message between nodes is lost
    :param limits: the maximum number of addresses of each account that has a limit
    :param setting: of all zones: `aging` if addresses rest after their release, for longer than
        the run; `drained`; or empty
    """

    owners: dict[str, str | None]
    hosts: list[str]
    deaths_detectable: bool
    clients: list[list[Task]]
    delays: Delays
    request_faults: RequestFaults
    message_loss: float = 0.0
    setting: str = ""
    faults: list[Fault] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)


def make(seed: int) -> Plan:
    """Return the plan of a seed."""
    chance = Random(f"plan {seed}")
    addresses = [f"192.0.2.{n}" for n in range(1, chance.randint(3, 5) + 1)]
    owners = {a: chance.choice([None, None, "X", "X", "Y", "Z"]) for a in addresses}
    clients = _clients(chance, addresses)
    if chance.random() < 0.3:
        owners |= dict.fromkeys(addresses[:2], "X")
        clients = _contended(chance, addresses[0], addresses[1])
    shared = chance.random() < 0.4
    hosts = ["balancer" if shared else f"node{n}" for n in (1, 2, 3)]
    made = Plan(owners, hosts, chance.random() < 0.8, clients, Delays(), RequestFaults())
    made.setting = Random(f"setting {seed}").choice(["", "", "aging", "drained"])
    if chance.random() < 0.7:
        _add_faults(chance, made)
    # These have their own random numbers, so that the rest of a plan does not depend on them.
    made.clients += _operators(Random(f"operators {seed}"), owners)
    made.clients += _reserving(Random(f"reservations {seed}"), owners)
    limited = Random(f"limits {seed}")
    for account in ACCOUNTS:
        if limited.random() < 0.2:
            has = sum(owner == account for owner in owners.values())
            made.limits[account] = has + limited.choice([0, 1, 1, 2])
    return made


def _clients(chance: Random, addresses: list[str]) -> list[list[Task]]:
    clients, left = [], chance.randint(8, 15)
    busy = [chance.choice(ACCOUNTS), "X"]
    while left > 0:
        account = chance.choice([*ACCOUNTS, *busy, "operator"])
        count = min(left, chance.randint(1, 4))
        left -= count
        home = chance.randrange(3)
        tasks = []
        for number in range(count):
            command = _command(chance, account, addresses)
            takes_key = not isinstance(command, Fetch | Repair) and chance.random() < 0.4
            key = f"key-{len(clients)}-{number}" if takes_key else None
            pause = chance.choice([0.0, chance.expovariate(100), chance.expovariate(3)])
            worker = home if chance.random() < 0.6 else chance.randrange(3)
            tasks.append(Task(command, key, pause if number else pause / 10, worker))
        clients.append(tasks)
    return clients


def _operators(chance: Random, owners: Mapping[str, str | None]) -> list[list[Task]]:
    """Return operators who transfer and move addresses; in most plans there is none."""
    clients = []
    for number in range(chance.choice([0, 0, 0, 1, 2])):
        tasks = []
        for task in range(chance.randint(1, 3)):
            key = f"key-operator-{number}-{task}" if chance.random() < 0.4 else None
            command = _operator_command(chance, owners)
            tasks.append(Task(command, key, chance.expovariate(100), chance.randrange(3)))
        clients.append(tasks)
    return clients


def _reserving(chance: Random, owners: Mapping[str, str | None]) -> list[list[Task]]:
    """Return clients who reserve addresses and then take them or not; in most plans none."""
    clients = []
    for number in range(chance.choice([0, 0, 0, 1, 2])):
        account = chance.choice(ACCOUNTS)
        unowned = [address for address, owner in owners.items() if owner is None]
        usable = unowned if unowned and chance.random() < 0.8 else list(owners)
        named = tuple(chance.sample(usable, min(len(usable), chance.choice([1, 2, 2]))))
        wanted = chance.choice([named, ()])
        first = Reserve(
            account, account, wanted, chance.choice([1, 1, 2]), chance.choice([9, 3600])
        )
        commands: list[Command] = [
            first,
            chance.choice([Confirm, Confirm, Cancel])(account, account),
        ]
        if chance.random() < 0.4:
            commands.append(chance.choice([Confirm, Cancel])(account, account))
        tasks = []
        for task, command in enumerate(commands):
            key = f"key-reservation-{number}-{task}" if chance.random() < 0.4 else None
            pause = chance.choice([chance.expovariate(100), chance.expovariate(3), 8.0])
            tasks.append(Task(command, key, pause if task else pause / 10, chance.randrange(3)))
        clients.append(tasks)
    return clients


def _operator_command(chance: Random, owners: Mapping[str, str | None]) -> Command:
    addresses = list(owners)
    if chance.random() < 0.4:
        zone, host = chance.choice(["zone1", "zone2"]), chance.choice(["proxy8", "proxy9"])
        return Move("operator", chance.choice(addresses), zone, f"{host}.example.com")
    from_id, to_id = chance.sample(ACCOUNTS, 2)
    owned = [address for address, owner in owners.items() if owner == from_id]
    usable = owned if owned and chance.random() < 0.8 else addresses
    some = tuple(chance.sample(usable, min(len(usable), chance.choice([1, 2, 2]))))
    return Transfer("operator", some, from_id, to_id)


def _contended(chance: Random, a: str, b: str) -> list[list[Task]]:
    """Return clients that use the same two addresses of one account at the same time."""
    menu: list[Command] = [
        ReleaseMany("X", "X", (a, b)),
        Release("X", "X", chance.choice([a, b])),
        Assign("Y", "Y", a),
        Assign("Y", "Y", b),
        Assign("Z", "Z", chance.choice([a, b])),
        AssignMany("Z", "Z", (b, a)),
        Allocate("Y", "Y", chance.choice([1, 2])),
        ReleaseAll("X", "X"),
        ReleaseMany("X", "X", (b, a)),
    ]
    clients = []
    for number, command in enumerate(menu[:1] + chance.sample(menu[1:], chance.randint(3, 7))):
        key = f"key-{number}" if chance.random() < 0.3 else None
        pause = chance.expovariate(200)
        again = Task(command, None, chance.expovariate(200), chance.randrange(3))
        tasks = [Task(command, key, pause, chance.randrange(3)), again]
        clients.append(tasks[: chance.choice([1, 1, 2])])
    return clients


def _command(chance: Random, account: str, addresses: list[str]) -> Command:
    def some() -> tuple[str, ...]:
        return tuple(chance.sample(addresses, chance.choice([2, 2, min(3, len(addresses))])))

    def one() -> str:
        return chance.choice(addresses)

    if account == "operator":
        kinds: list[Callable[[], Command]] = [
            lambda: Delete("operator", one(), force=True),
            lambda: Delete("operator", one(), force=chance.random() < 0.5),
            lambda: Create("operator", one(), "zone1", "proxy1.example.com"),
            lambda: Create("operator", one(), "zone1", "proxy1.example.com"),
            lambda: Repair("operator"),
        ]
        return chance.choice(kinds)()
    weights = {
        lambda: Assign(account, account, one()): 5,
        lambda: Release(account, account, one()): 5,
        lambda: AssignMany(account, account, some()): 4,
        lambda: ReleaseMany(account, account, some()): 4,
        lambda: ReleaseAll(account, account): 3,
        lambda: Allocate(account, account, chance.choice([1, 1, 2, 2, 3])): 5,
        lambda: Fetch(account, account, one()): 2,
    }
    return chance.choices(list(weights), list(weights.values()))[0]()


def _add_faults(chance: Random, made: Plan) -> None:
    """Add some kinds of faults to a plan."""
    pick, request_faults = chance.choice, made.request_faults
    if chance.random() < 0.4:
        made.delays.slow, made.delays.extra = pick([0.05, 0.3]), pick([0.01, 0.1, 1.0])
    if chance.random() < 0.4:
        request_faults.refused, request_faults.lost = pick([0, 0.05]), pick([0, 0.02, 0.08])
        request_faults.late, request_faults.cut = pick([0, 0.03, 0.1]), pick([0, 0.03, 0.1])
    if chance.random() < 0.3:
        request_faults.twice = pick([0.1, 0.5])
    if chance.random() < 0.1:
        made.message_loss = 0.02
    for kind, likely in (("crash", 0.35), ("pause", 0.2), ("cut", 0.3), ("kill", 0.35)):
        if chance.random() < likely:
            made.faults += [_fault(chance, kind) for _ in range(chance.randint(1, 3))]


def _fault(chance: Random, kind: str) -> Fault:
    at = chance.uniform(0, chance.choice([0.02, 0.1, 1.0]))
    return Fault(at, kind, chance.randrange(3), chance.choice([0.02, 0.2, 2.0, 6.0]))
