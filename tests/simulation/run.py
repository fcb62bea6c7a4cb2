"""One run: it executes the plan of a seed, ends all faults, and checks the result."""

import hashlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.assigning.recovery import LEASE
from tests.simulation import archive, history, limits, plan
from tests.simulation.cluster import Cluster
from tests.simulation.documents import Shard
from tests.simulation.history import Call, is_final
from tests.simulation.network import Network
from tests.simulation.plan import ACCOUNTS, Fault, OfReservation, Plan, Repair, Reserve, Task
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.standard_library import world
from tests.simulation.steps import ABSENT, AVAILABLE, DISABLED, HELD, RESTS
from tests.simulation.workers import POOL, Reply, Worker, application, base, pool_trees
from tests.stateful.commands import Command, Move, Transfer

KEYS_FINAL_WITHIN = 10.0
"""Seconds after the last fault within which every call with a key has a final reply."""
AGREED_WITHIN = 120.0
"""Seconds after the last fault within which replicas, copies and pool agree."""
CHECKED_AT = (35.0, 50.0, 80.0, AGREED_WITHIN)
"""Seconds after the last fault at which a run is checked. It ends if replicas, copies and pool
agree. Most runs end at the first check."""
FINAL_PAUSE_FACTOR = 4.0
"""The factor by which the service's pauses are longer once all faults have ended.
Otherwise half of a run's requests to CouchDB would be those of idle background work."""
FULL_RUN_EVERY = 20
"""One of this many runs continues until the last check, even if an earlier check succeeds."""
LEASE_EXPIRY = LEASE + 60.0
"""Additional seconds if workers cannot detect that another one was killed, until its lease
expires.
"""
_ATTEMPTS = 3
_RECORDS = "kazoo_ips"


@dataclass
class Result:
    """The result of a run.

    :param violations: one line each; empty if there is none
    :param trace: every request and every fault
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    history: list[Call] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A hash of the trace, the history and the violations."""
        text = "\n".join([*self.trace, *map(str, self.history), *self.violations])
        return hashlib.sha256(text.encode()).hexdigest()


def run(seed: int, *, is_traced: bool = True) -> Result:
    """Run a seed."""
    return Run(seed, plan.make(seed), is_traced=is_traced).result()


class Run:
    """A run in progress."""

    def __init__(self, seed: int, made: Plan, *, is_traced: bool = True) -> None:
        base()
        # Before the run, so that the first run of a process has the same random numbers as others.
        for slot, _ in enumerate(made.hosts):
            application(slot)
        self.plan = made = replace(
            made, delays=replace(made.delays), request_faults=replace(made.request_faults)
        )
        self.scheduler = Scheduler(seed, is_traced=is_traced)
        trees = pool_trees(made.owners, made.limits, made.setting)
        self.cluster = Cluster(self.scheduler, made.delays, trees)
        self.cluster.message_loss = made.message_loss
        self.network = Network(self.scheduler, self.cluster, made.request_faults)
        self.client_process = Process(0)
        self.workers: list[Worker] = []
        self.calls: list[Call] = []
        self.report = Result(seed, trace=self.scheduler.trace)
        self._number = 0
        self._healed = 0.0
        self._dead: set[int] = set()
        self._isolation: list[tuple[float, bool]] = []
        """Times, and whether from then on some node could not reach any other one."""

    def result(self) -> Result:
        """Execute the plan and check the result."""
        with world(self.scheduler, self.network.connect, self._has_died):
            self.workers = [
                Worker(self.scheduler, slot, host, self.plan.deaths_detectable)
                for slot, host in enumerate(self.plan.hosts)
            ]
            try:
                self._execute()
                self.report.history = self.calls = sorted(self.calls, key=lambda call: call.number)
                self.report.violations += self._final_violations()
            except Exception as error:  # an error of the service, or `Stuck`
                self.report.violations.append(
                    f"{type(error).__name__}: {error} {_location(error)}"
                )
            finally:
                for worker in self.workers:
                    self.scheduler.kill(worker.process)
                self.scheduler.kill(self.client_process)
        return self.report

    def _has_died(self, pid: int) -> bool:
        return pid in self._dead and self.plan.deaths_detectable

    # Execution.

    def _execute(self) -> None:
        tasks = [
            self.scheduler.spawn(self.client_process, partial(self._client, f"client {n}", each))
            for n, each in enumerate(self.plan.clients, 1)
        ]
        faults = self.plan.faults
        for fault in faults:
            self.scheduler.after(fault.at, self._cause, fault)
        faults_end = max((fault.at + fault.seconds for fault in faults), default=0.0)
        ended: list[bool] = []
        self.scheduler.after(faults_end, ended.append, True)
        # Requests can be delayed until all clients have finished, and at most until then.
        self.scheduler.after(max(faults_end, 20.0), self._end_request_faults)
        self.scheduler.run(lambda: bool(ended) and all(task.finished for task in tasks))
        self._end_request_faults()
        self.cluster.heal()
        self.scheduler.note("all faults have ended")
        self.scheduler.pause_factor = FINAL_PAUSE_FACTOR
        killed = any(fault.kind == "kill" for fault in faults)
        if killed and not self.plan.deaths_detectable:
            self.scheduler.run_for(LEASE_EXPIRY)
        self._healed = self.scheduler.now
        self.scheduler.run_for(KEYS_FINAL_WITHIN)
        self._repeat_keyed_calls()

    def _end_request_faults(self) -> None:
        self.plan.request_faults.clear()
        self.network.faults_end = min(self.network.faults_end, self.scheduler.now)

    def _cause(self, fault: Fault) -> None:
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
        self._record_isolation()
        self.scheduler.after(fault.seconds, self._record_isolation)

    def _record_isolation(self) -> None:
        up = [node for node in self.cluster.nodes if node.up]
        isolated = any(not any(self.cluster.can_reach(a, b) for b in up if a is not b) for a in up)
        self._isolation.append((self.scheduler.now, isolated))

    def _was_isolated(self, began: float, ended: float) -> bool:
        ends = [*(at for at, _ in self._isolation[1:]), history.UNFINISHED]
        spans = zip(self._isolation, ends, strict=False)
        return any(isolated and at <= ended and began <= end for (at, isolated), end in spans)

    def _was_lagging(self, began: float, ended: float) -> bool:
        away = [f for f in self.plan.faults if f.kind != "kill"]
        until = 2 * self.plan.delays.sync
        return any(f.at <= ended and began <= f.at + f.seconds + until for f in away)

    def _client(self, name: str, tasks: list[Task]) -> None:
        for task in tasks:
            self.scheduler.sleep(task.pause)
            command = task.command
            if isinstance(command, OfReservation):
                reserved = self._reservation(name)
                if reserved is None:
                    return
                command = _about(command, reserved)
            self._number += 1
            call = Call(self._number, name, command, task.key, ())
            attempts: list[tuple[float, float, Reply]] = []
            for attempt in range(_ATTEMPTS if task.key else 1):
                if attempt:
                    self.scheduler.sleep(self.scheduler.chance.choice([0.01, 0.2, 2.0]))
                worker = task.worker if not attempt else self.scheduler.chance.randrange(3)
                attempts.append(self._send(call, worker))
                if is_final(attempts[-1][2]):
                    break
            self._record(call, attempts)

    def _reservation(self, name: str) -> Call | None:
        """Return the call by which a client has reserved addresses; None if it has not."""
        made = (c for c in self.calls if c.client == name and isinstance(c.command, Reserve))
        return next((call for call in made if call.reply.status == 201), None)

    def _record(self, call: Call, attempts: list[tuple[float, float, Reply]]) -> None:
        others = [c for c in self.calls if c.number != call.number]
        self.calls = [
            *others,
            Call(call.number, call.client, call.command, call.key, tuple(attempts)),
        ]

    def _send(self, call: Call, number: int) -> tuple[float, float, Reply]:
        worker = self.workers[number]
        began = self.scheduler.now
        text = f"{call.client} to worker {worker.process.pid}: {call.command} {call.key}"
        self.scheduler.note(text)
        if isinstance(call.command, Repair):
            reply = worker.do(_repair) or Reply(0)
        else:
            method, path, data = _with_ids(call.command).request()
            account = getattr(call.command, "account", "operator")
            headers = {"X-Request-ID": archive.request_id(call)}
            if isinstance(call.command, Move):
                headers["If-Match"] = "*"
            if call.key:
                headers["Idempotency-Key"] = call.key
            reply = worker.request(
                call.command.by,
                method.upper(),
                path.format(account=base().ids[account]),
                data,
                headers,
            )
        self.scheduler.note(f"{call.client} gets {reply.status} {reply.message} {reply.data}")
        return began, self.scheduler.now, reply

    def _repeat_keyed_calls(self) -> None:
        """Repeat each call that has a key, at two workers."""
        keyed = [call for call in self.calls if call.key]

        def repeat(call: Call) -> None:
            attempts = list(call.attempts)
            for worker in self.scheduler.chance.sample(range(3), 2):
                attempts.append(self._send(call, worker))
            self._record(call, attempts)

        tasks = [
            self.scheduler.spawn(self.client_process, partial(repeat, call)) for call in keyed
        ]
        self.scheduler.run(lambda: all(task.finished for task in tasks))

    # Checks.

    def _final_violations(self) -> list[str]:
        # Background work should have finished by now. Some runs continue nevertheless, to check
        # that later background work changes nothing.
        found: list[str] = []
        for within in CHECKED_AT if self.report.seed % FULL_RUN_EVERY else CHECKED_AT[-1:]:
            self.scheduler.run_for(max(0.0, self._healed + within - self.scheduler.now))
            found = self._violations()
            if not found:
                break
        return found

    def _violations(self) -> list[str]:
        """Check the history and the documents at this moment."""
        differences = self._lasting_differences()
        violations: list[str] = []
        names = {account_id: name for name, account_id in base().ids.items()}
        pool = self._documents(POOL)
        unowned = DISABLED if self.plan.setting == "drained" else AVAILABLE
        begin = {a: owner or unowned for a, owner in self.plan.owners.items()}
        end = {a: _owner(pool[a], names) if a in pool else ABSENT for a in begin}
        violations += [
            f"unexpected address: {a}" for a in pool.keys() - begin.keys() if a[0] != "_"
        ]
        calls = [
            replace(
                _with_account_names(call, names),
                isolated=self._was_isolated(*call.decisive[:2]),
                lagging=self._was_lagging(*call.decisive[:2]),
                setting=self.plan.setting,
            )
            for call in self.calls
        ]
        violations += history.violations(calls, begin, end)
        violations += self._limit_violations(calls, end)
        violations += differences
        for account in ACCOUNTS:
            violations += self._copy_differences(account, pool)
        violations += [
            f"unfinished record: {i} {d}"
            for i, d in self._documents(_RECORDS).items()
            if d.get("type") == "transaction" and not d.get("finished")
        ]
        events = [
            {"_id": i, **d}
            for name in self._databases
            if name.startswith("kazoo_ips_history_")
            for i, d in self._documents(name).items()
        ]
        violations += archive.violations(events, self.calls, pool)
        return violations + [f"the doctor found {each}" for each in self._doctor_findings()]

    def _lasting_differences(self) -> list[str]:
        """Return the differences between nodes that last longer than a write needs to reach all
        nodes.

        Workers write now and then at any time, for example that they run.
        """
        found = set(self._differences())
        if not found:
            return []
        self.scheduler.run_for(2 * self.plan.delays.sync)
        return [each for each in self._differences() if each in found]

    def _differences(self) -> list[str]:
        shards = {n: [each.shards[n] for each in self.cluster.nodes] for n in self._databases}
        return [each for name, copies in shards.items() for each in _differences(name, copies)]

    @property
    def _databases(self) -> list[str]:
        return sorted(self.cluster.nodes[0].shards)

    def _limit_violations(self, calls: Sequence[Call], end: Mapping[str, str | None]) -> list[str]:
        """Return the accounts that had too many addresses, and addresses that are not counted."""
        wrong = []
        records = self._documents(_RECORDS)
        for name, limit in self.plan.limits.items():
            owned = {address for address, owner in end.items() if owner == name}
            most = limits.most_held(name, calls, self.plan.owners)
            if max(most, len(owned)) > limit:
                wrong.append(f"{name} had {most} addresses, and has {len(owned)}, of {limit}")
            ledger = records[f"limit-{base().ids[name]}"]
            counted = {address for named in ledger["own"].values() for address in named}
            wrong += [f"{a}: not in the ledger of {name}" for a in sorted(owned - counted)]
        return wrong

    def _documents(self, database: str) -> dict[str, dict[str, Any]]:
        shard = self.cluster.nodes[0].shards[database]
        return {i: winner.body or {} for i, _, winner in shard.live()}

    def _copy_differences(self, account: str, pool: dict[str, dict[str, Any]]) -> list[str]:
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

    def _doctor_findings(self) -> list[str]:
        found: list[str] = []

        def examine() -> None:
            for worker in self.workers[:1]:
                found.extend(str(f) for f in worker.do(lambda s: list(s.doctor.examine())) or ())

        task = self.scheduler.spawn(self.client_process, examine)
        self.scheduler.run(lambda: task.finished)
        return found


def _about(command: OfReservation, reserved: Call) -> OfReservation:
    """Return a command about the reservation that a call has made."""
    made = reserved.reply.data
    return replace(
        command, reservation=made["id"], addresses=tuple(made["ips"]), made_by=reserved.number
    )


def _with_ids(command: Command) -> Command:
    """Return a command with the ids of accounts in the place of their names."""
    if isinstance(command, Transfer):
        ids = base().ids
        return replace(command, from_id=ids[command.from_id], to_id=ids[command.to_id])
    return command


def _location(error: Exception) -> str:
    """Return where the error was raised."""
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
        return AVAILABLE
    if document.get("pvt_status") == "aging":
        return RESTS + names[document["pvt_last_assigned_to"]]
    if document.get("pvt_status") == "disabled":
        return DISABLED
    if document.get("pvt_status") == "reserved":
        return HELD + names[document["pvt_reserved_for"]]
    return names.get(document.get("pvt_assigned_to", ""), "an unknown account")


def _with_account_names(call: Call, names: dict[str, str]) -> Call:
    """Replace the account ids in the replies by names."""
    attempts = []
    for began, ended, reply in call.attempts:
        data = reply.data
        if isinstance(data, dict) and data.get("assigned_to") in names:
            data = {**data, "assigned_to": names[data["assigned_to"]]}
        attempts.append((began, ended, Reply(reply.status, data, reply.message)))
    return Call(call.number, call.client, call.command, call.key, tuple(attempts))


_KEPT = {"reply", "follower", "place_settings"}
"""Types of records that remain."""
_COMPARED = ("pvt_assigned_to", "pvt_request_id", "pvt_modified", "pvt_status")


def _same(copy: dict[str, Any] | None, document: dict[str, Any] | None) -> bool:
    if copy is None or document is None:
        return copy is document
    return all(copy.get(name) == document.get(name) for name in _COMPARED)


def _shown(document: dict[str, Any] | None) -> Any:
    return document and {name[4:]: document.get(name) for name in _COMPARED}


def _differences(name: str, shards: list[Shard]) -> list[str]:
    violations = []
    first, *others = [{i: sorted(t.leaves) for i, t in s.trees.items()} for s in shards]
    for other in others:
        for document_id in sorted(first.keys() | other.keys()):
            one, two = first.get(document_id), other.get(document_id)
            if one != two:
                violations.append(f"{name}/{document_id}: the nodes differ: {one}, {two}")
    for document_id, tree in sorted(shards[0].trees.items()):
        if tree.conflicts:
            violations.append(
                f"{name}/{document_id}: in conflict, {len(tree.conflicts) + 1} revisions"
            )
    return violations
