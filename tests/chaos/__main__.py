"""`python -m tests.chaos` runs the clients and prints the result, or checks a saved history.

Options are environment variables, which `make chaos` sets: NODES, CLUSTER, SECONDS, SEED, CLIENTS,
ADDRESSES and HISTORY. `docs/chaos.md` explains them.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from tests.chaos import archive
from tests.chaos.agreement import disagreements, pool, remove
from tests.chaos.clients import Client, World, log_in
from tests.chaos.faults import ByteProxy, Faults
from tests.chaos.history import STALE, History, counted
from tests.chaos.linearizability import ABSENT, AVAILABLE
from tests.servers import Gunicorn

AGREED_WITHIN = 120.0
"""Seconds after the last fault within which nodes, copies and lists must agree."""
DOCTOR_DELAY = 35.0
"""Seconds between the last call and the doctor, which ignores younger writes."""
ACCOUNTS = 6


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    nodes: list[str]
    cluster: str | None
    seconds: float
    seed: int
    clients: int
    addresses: int
    history: Path

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the options from environment variables; a missing one has its default."""
        seed = int(environ.get("SEED") or 1)
        return cls(
            environ.get("NODES", "").split(),
            environ.get("CLUSTER") or None,
            float(environ.get("SECONDS_EACH") or 600),
            seed,
            int(environ.get("CLIENTS") or 24),
            int(environ.get("ADDRESSES") or 60),
            Path(environ.get("HISTORY") or f"build/chaos-{seed}.jsonl"),
        )


def main(arguments: list[str]) -> int:
    """Run, or check a saved history.

    :returns: the exit status: 0, 1 for a violation, 2 for wrong usage
    """
    if arguments:
        history = History.load(Path(arguments[0]))
        for address in arguments[1:]:
            print("\n".join(history.about(address)))
        return check(history)
    options = Options.load(os.environ)
    if not options.nodes:
        print("NODES: name the cluster's nodes by URL", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        return Run(options, stack).run()


def check(history: History) -> int:
    """Print the counts and the violations of a history; return 1 if there is a violation."""
    found = list(history.violations())
    counts = counted(found)
    statuses = Counter(attempt.status for call in history.calls for attempt in call.attempts)
    keyed = sum(call.key is not None for call in history.calls)
    requests = sum(statuses.values())
    print(f"{len(history.calls)} operations, {keyed} of them with a key; {requests} requests")
    print("  by kind:", dict(Counter(call.action for call in history.calls)))
    print("  by status, 0 is no reply:", dict(sorted(statuses.items())))
    print("  " + ", ".join(f"{kind}s: {counts.pop(kind, 0)}" for kind in STALE))
    print(f"violations: {sum(counts.values())}", counts or "")
    for violation in found:
        if violation.kind not in STALE:
            print(f"  {violation.kind}: {violation.address} {violation.text}"[:300])
    return int(bool(counts))


class Run:
    """One run, in databases of its own, which it deletes unless there was a violation."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self._options = options
        self._prefix = f"chaos-{uuid4().hex[:8]}-"
        self._environment = {
            **{name: value for name, value in os.environ.items() if "KAZOO_IPS" not in name},
            "COUCHDB_URL": options.nodes[0],
            "KAZOO_IPS_PREFIX": self._prefix,
            "KAZOO_IPS_TOKEN_LIFETIME": "86400",
            "KAZOO_IPS_LOGIN_LIMIT": "0",
            "KAZOO_IPS_ACCOUNT_LIMIT": "0",
            "KAZOO_IPS_CLIENT_LIMIT": "0",
            "KAZOO_IPS_KEY_LIMIT": "0",
        }
        self._logs = options.history.with_suffix(".logs")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._links = [stack.enter_context(ByteProxy(node)) for node in options.nodes]
        self._command("kazoo-ips", "setup")
        self._realms = [f"account{number}.example.com" for number in range(ACCOUNTS + 1)]
        for realm in self._realms:
            self._command("sup", "crossbar_maintenance", "create_account", realm, realm, "u", "p")
        self._servers = [
            stack.enter_context(
                Gunicorn(
                    {**self._environment, "COUCHDB_URL": link.url}, self._logs / str(number), 2
                )
            )
            for number, link in enumerate(self._links)
        ]
        self._world = self._made()

    def _made(self) -> World:
        urls = [server.url for server in self._servers]
        members = [log_in(urls[0], realm, "u", "p") for realm in self._realms]
        addresses = [f"198.51.100.{number}" for number in range(self._options.addresses)]
        states = dict.fromkeys(addresses, AVAILABLE)
        self._command("kazoo-ips", "add", f"{addresses[0]}-{addresses[-1]}", "zone", "host")
        operator, *accounts = [account for account, _ in members]
        return World(urls, accounts, operator, History(states), dict(states), tokens=dict(members))

    def run(self) -> int:
        """Run clients and faults, then check; return 1 if there is a violation."""
        options, world = self._options, self._world
        clients = [Client(world, options.seed, number) for number in range(options.clients)]
        faults = Faults(
            options.seed, self._links, self._servers, options.cluster, len(options.nodes)
        )
        for client in clients:
            client.start()
        faults.start()
        time.sleep(options.seconds)
        world.stop.set()
        world.retry_until = time.monotonic() + AGREED_WITHIN
        faults.stop()
        last_fault = time.monotonic()
        for client in clients:
            client.join(AGREED_WITHIN + 60)
        finished = time.monotonic() - last_fault
        disagreed = self._agree(last_fault)
        history = world.history
        last_call = max(attempt.end for call in history.calls for attempt in call.attempts)
        time.sleep(max(0, DOCTOR_DELAY - (time.monotonic() - last_call)))
        states = pool(options.nodes[0], self._prefix)
        history.final = {address: states.get(address, ABSENT) for address in history.states}
        history.save(options.history)
        print("faults:", dict(faults.counts))
        print(f"the last call ended {finished:.1f} s after the last fault")
        failed = check(history) | disagreed | self._doctor(last_fault)
        failed |= self._check_archive(last_fault)
        if failed:
            print(f"history: {options.history}")
            print(f"logs of the service: {self._logs}")
            print(f"databases: {self._prefix}…")
        else:
            remove(options.nodes[0], self._prefix)
            options.history.unlink()
            shutil.rmtree(self._logs)
        return failed

    def _agree(self, since: float) -> int:
        """Wait until nodes, copies and lists agree; return 1 if they do not in time."""
        world, nodes = self._world, self._options.nodes
        token, accounts = world.tokens[world.operator], [world.operator, *world.accounts]
        for _ in itertools.count():
            different = list(disagreements(nodes, self._prefix, world.servers, accounts, token))
            after = time.monotonic() - since
            if not different:
                print(f"nodes, copies and lists agreed {after:.1f} s after the last fault")
                return 0
            if after > AGREED_WITHIN:
                print(
                    f"{after:.0f} s after the last fault there are {len(different)} differences:"
                )
                print("".join(f"  {line}\n" for line in different[:20]), end="")
                return 1
            time.sleep(1)
        raise AssertionError

    def _check_archive(self, since: float) -> int:
        """Wait until the archive agrees with the replies and the pool; return 1 if it does not."""
        while True:
            calls = self._world.history.calls
            found = archive.violations(self._options.nodes[0], self._prefix, calls)
            after = time.monotonic() - since
            if not found:
                print(f"the history agreed at most {after:.0f} s after the last fault")
                return 0
            if after > 2 * AGREED_WITHIN:
                print(f"history: {len(found)} violations")
                print("".join(f"  {line}\n" for line in found[:20]), end="")
                return 1
            time.sleep(1)

    def _doctor(self, since: float) -> int:
        """Run the doctor until it finds nothing; return its exit status, 1 after a timeout."""
        while True:
            result = self._command("kazoo-ips", "doctor")
            after = time.monotonic() - since
            if result.returncode == 0 or after > AGREED_WITHIN:
                print(f"doctor, {after:.0f} s after the last fault:", result.stdout.strip())
                return result.returncode
            time.sleep(5)

    def _command(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        path = Path(sys.executable).with_name(program)
        return subprocess.run(
            [path, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
