"""One run: what a seed decides is let happen, then everything heals, then it is judged."""

import hashlib
import traceback
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.assigning.recovery import LEASE
from tests.simulation import history, plan
from tests.simulation.cluster import Cluster
from tests.simulation.documents import Shard
from tests.simulation.history import FREE, GONE, Done, is_final
from tests.simulation.network import Network
from tests.simulation.plan import ACCOUNTS, Fault, Plan, Repair, Task
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.standard_library import world
from tests.simulation.workers import POOL, Reply, Worker, base, pool_trees

SETTLED_KEYS = 10.0
"""Seconds after the last fault in which every request with a key comes to a final reply."""
SETTLED = 120.0
"""Seconds after the last fault in which everything agrees."""
WHOLE = 10
"""One run of so many goes on for all of that time, whatever is right before."""
UNTOLD = LEASE + 60.0
"""Seconds more, where nobody can tell that a worker of another machine has died."""
_ATTEMPTS = 3
_JOURNAL = "kazoo_ips"


@dataclass
class Result:
    """What a run came to.

    :param wrong: what is wrong, a line each; empty when nothing is
    :param trace: every request and every fault
    """

    seed: int
    wrong: list[str] = field(default_factory=list)
    history: list[Done] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Of everything that happened."""
        text = "\n".join([*self.trace, *map(str, self.history), *self.wrong])
        return hashlib.sha256(text.encode()).hexdigest()


def run(seed: int) -> Result:
    """The run of a seed."""
    return Run(seed, plan.make(seed)).result()


class Run:
    """A run that is going on."""

    def __init__(self, seed: int, made: Plan) -> None:
        base()
        self.plan = made = replace(
            made, delays=replace(made.delays), weather=replace(made.weather)
        )
        self.scheduler = Scheduler(seed)
        self.cluster = Cluster(self.scheduler, made.delays, pool_trees(made.owners))
        self.cluster.silence = made.silence
        self.network = Network(self.scheduler, self.cluster, made.weather)
        self.outside = Process(0)
        self.workers: list[Worker] = []
        self.done: list[Done] = []
        self.report = Result(seed, trace=self.scheduler.trace)
        self._number = 0
        self._dead: set[int] = set()
        self._alone: list[tuple[float, bool]] = []
        """From when on a node heard no other one, and from when on all did again."""

    def result(self) -> Result:
        """Let everything happen, and judge it."""
        with world(self.scheduler, self.network.connect, self._died):
            self.workers = [
                Worker(self.scheduler, slot, host, self.plan.tellable)
                for slot, host in enumerate(self.plan.hosts)
            ]
            try:
                self._happen()
                self.report.history = self.done = sorted(self.done, key=lambda done: done.number)
                self.report.wrong += self._wrong_in_the_end()
            except Exception as error:  # of the service, or nothing happens any more
                self.report.wrong.append(f"{type(error).__name__}: {error} {_place(error)}")
            finally:
                for worker in self.workers:
                    self.scheduler.kill(worker.process)
                self.scheduler.kill(self.outside)
        return self.report

    def _died(self, pid: int) -> bool:
        return pid in self._dead and self.plan.tellable

    # What happens.

    def _happen(self) -> None:
        tasks = [
            self.scheduler.spawn(self.outside, partial(self._client, f"client {n}", each))
            for n, each in enumerate(self.plan.clients, 1)
        ]
        faults = self.plan.faults
        for fault in faults:
            self.scheduler.after(fault.at, self._begin, fault)
        faults_end = max((fault.at + fault.seconds for fault in faults), default=0.0)
        ended: list[bool] = []
        self.scheduler.after(faults_end, ended.append, True)
        # What is late comes late until everybody is done, but not for ever.
        self.scheduler.after(max(faults_end, 20.0), self._calm)
        self.scheduler.run(lambda: bool(ended) and all(task.finished for task in tasks))
        self._calm()
        self.cluster.heal()
        self.scheduler.note("all is well again")
        killed = any(fault.kind == "kill" for fault in faults)
        if killed and not self.plan.tellable:
            self.scheduler.run_for(UNTOLD)
        healed = self.scheduler.now
        self.scheduler.run_for(SETTLED_KEYS)
        self._settle_keys()
        self.scheduler.run_for(max(0.0, healed + SETTLED / 2 - self.scheduler.now))

    def _calm(self) -> None:
        self.plan.weather.calm()
        self.network.over = min(self.network.over, self.scheduler.now)

    def _begin(self, fault: Fault) -> None:
        self.scheduler.note(f"{fault.kind} {fault.which + 1} for {fault.seconds} s")
        node = self.cluster.nodes[fault.which]
        if fault.kind == "kill":
            worker = self.workers[fault.which]
            if worker.process.alive:
                self._dead.add(worker.process.pid)
                worker.kill()
                self.scheduler.after(min(fault.seconds, 1.0), worker.start)
        elif fault.kind == "pause":
            self.cluster.pause(node, fault.seconds)
        elif fault.kind == "crash" and node.up:
            self.cluster.crash(node)
            self.scheduler.after(fault.seconds, self.cluster.start, node)
        elif fault.kind == "cut":
            for other in self.cluster.nodes:
                if other is not node:
                    self.cluster.cut.add(frozenset((node.name, other.name)))
                    self.scheduler.after(fault.seconds, self.cluster.join, node, other)
        self._look_for_lonely()
        self.scheduler.after(fault.seconds, self._look_for_lonely)

    def _look_for_lonely(self) -> None:
        up = [node for node in self.cluster.nodes if node.up]
        lonely = any(not any(self.cluster.hears(a, b) for b in up if a is not b) for a in up)
        self._alone.append((self.scheduler.now, lonely))

    def _was_alone(self, began: float, ended: float) -> bool:
        ends = [*(at for at, _ in self._alone[1:]), history.NEVER]
        spans = zip(self._alone, ends, strict=False)
        return any(lonely and at <= ended and began <= end for (at, lonely), end in spans)

    def _was_lagging(self, began: float, ended: float) -> bool:
        away = [f for f in self.plan.faults if f.kind != "kill"]
        until = 2 * self.plan.delays.sync
        return any(f.at <= ended and began <= f.at + f.seconds + until for f in away)

    def _client(self, name: str, tasks: list[Task]) -> None:
        for task in tasks:
            self.scheduler.sleep(task.pause)
            self._number += 1
            done = Done(self._number, name, task.command, task.key, ())
            attempts: list[tuple[float, float, Reply]] = []
            for attempt in range(_ATTEMPTS if task.key else 1):
                if attempt:
                    self.scheduler.sleep(self.scheduler.chance.choice([0.01, 0.2, 2.0]))
                worker = task.worker if not attempt else self.scheduler.chance.randrange(3)
                attempts.append(self._ask(done, worker))
                if is_final(attempts[-1][2]):
                    break
            self._keep(done, attempts)

    def _keep(self, done: Done, attempts: list[tuple[float, float, Reply]]) -> None:
        known = [d for d in self.done if d.number != done.number]
        self.done = [
            *known,
            Done(done.number, done.client, done.command, done.key, tuple(attempts)),
        ]

    def _ask(self, done: Done, number: int) -> tuple[float, float, Reply]:
        worker = self.workers[number]
        began = self.scheduler.now
        self.scheduler.note(f"{done.client} asks {worker.process.pid}: {done.command} {done.key}")
        if isinstance(done.command, Repair):
            reply = worker.do(_repair) or Reply(0)
        else:
            method, path, data = done.command.request()
            account = getattr(done.command, "account", "operator")
            headers = {"Idempotency-Key": done.key} if done.key else {}
            reply = worker.request(
                done.command.by,
                method.upper(),
                path.format(account=base().ids[account]),
                data,
                headers,
            )
        self.scheduler.note(f"{done.client} is told {reply.status} {reply.message} {reply.data}")
        return began, self.scheduler.now, reply

    def _settle_keys(self) -> None:
        """Whoever has a key asks once more, twice, each time another worker."""
        keyed = [done for done in self.done if done.key]

        def ask(done: Done) -> None:
            attempts = list(done.attempts)
            for worker in self.scheduler.chance.sample(range(3), 2):
                attempts.append(self._ask(done, worker))
            self._keep(done, attempts)

        tasks = [self.scheduler.spawn(self.outside, partial(ask, done)) for done in keyed]
        self.scheduler.run(lambda: all(task.finished for task in tasks))

    # What is there in the end.

    def _wrong_in_the_end(self) -> list[str]:
        # Background work has looked at everything by now, and has no more to do. It could still
        # spoil what agrees, so some runs go on.
        if self.report.seed % WHOLE and not self._wrong():
            return []
        self.scheduler.run_for(SETTLED / 2)
        return self._wrong()

    def _wrong(self) -> list[str]:
        """What is wrong as it is now."""
        wrong: list[str] = []
        names = {account_id: name for name, account_id in base().ids.items()}
        pool = self._documents(POOL)
        begin = {a: owner or FREE for a, owner in self.plan.owners.items()}
        end = {a: _owner(pool[a], names) if a in pool else GONE for a in begin}
        wrong += [
            f"an address from nowhere: {a}" for a in pool.keys() - begin.keys() if a[0] != "_"
        ]
        translated = [
            replace(
                _translated(done, names),
                alone=self._was_alone(*done.counting[:2]),
                lagging=self._was_lagging(*done.counting[:2]),
            )
            for done in self.done
        ]
        wrong += history.judge(translated, begin, end)
        for name in sorted(self.cluster.nodes[0].shards):
            wrong += _differences(name, [n.shards[name] for n in self.cluster.nodes])
        for account in ACCOUNTS:
            wrong += self._wrong_copies(account, pool)
        wrong += [
            f"left in the journal: {i} {d}"
            for i, d in self._documents(_JOURNAL).items()
            if d.get("type") not in {"reply", "follower"} and not d.get("finished")
        ]
        return wrong + [f"the doctor finds {each}" for each in self._examined()]

    def _documents(self, database: str) -> dict[str, dict[str, Any]]:
        shard = self.cluster.nodes[0].shards[database]
        return {i: winner.body or {} for i, _, winner in shard.live()}

    def _wrong_copies(self, account: str, pool: dict[str, dict[str, Any]]) -> list[str]:
        account_id = base().ids[account]
        documents = self._documents(account_database(account_id))
        copies = {i: d for i, d in documents.items() if d.get("pvt_type") == "dedicated_ip"}
        owned = {i: d for i, d in pool.items() if d.get("pvt_assigned_to") == account_id}
        differ = [
            i for i in copies.keys() | owned.keys() if not _same(copies.get(i), owned.get(i))
        ]
        return [
            f"{i}: copy of {account}: {_shown(copies.get(i))}, pool: {_shown(owned.get(i))}"
            for i in sorted(differ)
        ]

    def _examined(self) -> list[str]:
        found: list[str] = []

        def examine() -> None:
            for worker in self.workers[:1]:
                found.extend(str(f) for f in worker.do(lambda s: list(s.doctor.examine())) or ())

        task = self.scheduler.spawn(self.outside, examine)
        self.scheduler.run(lambda: task.finished)
        return found


def _place(error: Exception) -> str:
    """Where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {last.name}, {Path(last.filename).name}:{last.lineno}"


def _repair(services: Any) -> Reply:
    from kazoo_ips.errors import KazooIPsError  # noqa: PLC0415

    try:
        found = list(services.doctor.examine(repair=True))
    except KazooIPsError as error:
        return Reply(503, str(error))
    return Reply(200, [str(each) for each in found])


def _owner(document: dict[str, Any], names: dict[str, str]) -> str:
    if document.get("pvt_status") == "available":
        return FREE
    return names.get(document.get("pvt_assigned_to", ""), "somebody unknown")


def _translated(done: Done, names: dict[str, str]) -> Done:
    """With the names of accounts where the replies have ids."""
    attempts = []
    for began, ended, reply in done.attempts:
        data = reply.data
        if isinstance(data, dict) and data.get("assigned_to") in names:
            data = {**data, "assigned_to": names[data["assigned_to"]]}
        attempts.append((began, ended, Reply(reply.status, data, reply.message)))
    return Done(done.number, done.client, done.command, done.key, tuple(attempts))


_COMPARED = ("pvt_assigned_to", "pvt_request_id", "pvt_modified", "pvt_status")


def _same(copy: dict[str, Any] | None, document: dict[str, Any] | None) -> bool:
    if copy is None or document is None:
        return copy is document
    return all(copy.get(name) == document.get(name) for name in _COMPARED)


def _shown(document: dict[str, Any] | None) -> Any:
    return document and {name[4:]: document.get(name) for name in _COMPARED}


def _differences(name: str, shards: list[Shard]) -> list[str]:
    wrong = []
    first, *others = [{i: sorted(t.leaves) for i, t in s.trees.items()} for s in shards]
    for other in others:
        for document_id in sorted(first.keys() | other.keys()):
            one, two = first.get(document_id), other.get(document_id)
            if one != two:
                wrong.append(f"{name}/{document_id}: the nodes differ: {one}, {two}")
    for document_id, tree in sorted(shards[0].trees.items()):
        if tree.conflicts:
            wrong.append(f"{name}/{document_id}: in conflict, {len(tree.conflicts) + 1} revisions")
    return wrong
