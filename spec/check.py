"""Runs Spin on every model of the protocol. A model must hold, and must fail without any guard.

python spec/check.py [model]    prints a table; the exit status is 1 if a verdict is unexpected
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).parent
LIMIT = 300
"""Maximum seconds of one run."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario of a model.

    :param name: the flags that select the scenario and its limits, or empty
    :param guards: flags, each of which removes a guard, so that the model must fail
    """

    model: str
    name: str
    guards: tuple[str, ...] = ()


SCENARIOS = (
    Scenario(
        "transactions",
        "RELEASE",
        (
            "IGNORE_MARKS",
            "COMMIT_WITHOUT_CAS",
            "ABORT_WITHOUT_CAS",
            "FREE_BEFORE_COMMIT",
            "FORGET_BEFORE_FINISH",
            "WRITE_WITHOUT_REVISION",
        ),
    ),
    Scenario("transactions", "ASSIGN", ("NO_FENCE", "COMMIT_UNPREPARED", "RECORD_AFTER_WRITES")),
    Scenario("transactions", "ALLOCATE", ("EXTEND_AFTER_WRITE", "ANY_MARK")),
    Scenario("transactions", "BOTH"),
    Scenario("transactions", "KAZOO", ("TRUST_MARKS",)),
    Scenario("keys", "ASSIGN", ("NO_CONFIRM", "LOOK_APART", "LOOK_ONCE")),
    Scenario("keys", "ALLOCATE", ("NO_SETTLING", "NO_FENCE", "FORGET_OF_OTHERS")),
    Scenario("keys", "RELEASE", ("NO_SETTLING", "FORGET_OF_OTHERS")),
    Scenario("decisions", "", ("NOT_FINAL", "NO_DROP", "IGNORE_COMMIT")),
    Scenario("replicas", "", ("ACCEPTED_IS_DONE", "MINORITY_READS", "NO_CONFIRM")),
    Scenario(
        "replicas", "REFUSALS", ("NO_WITHDRAWAL", "REFUSED_IS_WITHDRAWN", "UNSEEN_IS_UNDONE")
    ),
    Scenario("replicas", "REFUSALS WRITERS=1", ("NO_FENCE", "OWN_IS_RIVAL")),
    Scenario("replicas", "REFUSALS WRITERS=1 LAGGING", ("ABSENT_IS_LOST", "REFUSED_IS_LOST")),
    Scenario(
        "replicas",
        "WITHDRAWN LATECOMER LOSSES=1",
        ("RESTORE_BLINDLY", "CONFIRM_RESTORED"),
    ),
)
BY_HAND = {"WORKERS", "LOSSES", "COPIES"}
"""Limits of `decisions.pml` that this script does not change: larger searches take too long."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one run.

    :param holds: whether the model holds; None if the search was not completed
    """

    holds: bool | None
    states: str
    seconds: float


def check(compiler: str, model: str, flags: tuple[str, ...]) -> RunResult:
    """Run Spin on a model with these preprocessor flags."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        defines = [f"-D{flag}" for flag in flags]
        source = str(SPEC / f"{model}.pml")
        for command in (
            ["spin", "-a", *defines, source],
            [compiler, "-O1", "-w", "-DSAFETY", "-DMEMLIM=2000", "-o", "pan", "pan.c"],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{model} {' '.join(flags)}: {done.stdout}{done.stderr}")
        try:
            out = subprocess.run(
                ["./pan", "-m1000000"],
                cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False,
            ).stdout  # fmt: skip
        except subprocess.TimeoutExpired:
            out = ""
    errors = re.search(r"errors: (\d+)", out)
    states = re.search(r"(\d+) states, stored", out)
    whole = errors and (errors[1] != "0" or "Search not completed" not in out)
    return RunResult(
        errors[1] == "0" if errors and whole else None,
        states[1] if states else "?",
        time.monotonic() - began,
    )


def compiler() -> str:
    """Return the C compiler to use. Exit if there is none, or no Spin."""
    # For all but the largest models, compiling takes longest, and tcc is the fastest compiler.
    found = [c for c in (os.environ.get("CC"), "tcc", "gcc", "cc") if c and shutil.which(c)]
    if not shutil.which("spin") or not found:
        missing = "a C compiler" if shutil.which("spin") else "spin"
        sys.exit(f"{missing} is missing: on Debian, apt-get install spin tcc")
    return found[0]


def main(models: list[str]) -> int:
    """Check all models, or those named.

    :returns: the number of unexpected verdicts
    """
    cc = compiler()
    runs = [
        (scenario, guard)
        for scenario in SCENARIOS
        if not models or scenario.model in models
        for guard in ("", *scenario.guards)
    ]

    def run(scenario: Scenario, guard: str) -> RunResult:
        return check(cc, scenario.model, (*scenario.name.split(), *filter(None, [guard])))

    print(f"{'model':40}{'without':24}{'states':>10}{'seconds':>9}  verdict")
    wrong = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = pool.map(run, *zip(*runs, strict=True))
        for (scenario, guard), verdict in zip(runs, verdicts, strict=True):
            says = {True: "holds", False: "fails", None: "no end"}[verdict.holds]
            right = verdict.holds is (not guard)
            wrong += not right
            told = says if right else f"{says}: NOT AS EXPECTED"
            name = f"{scenario.model} {scenario.name}"
            row = f"{name:40}{guard or '-':24}{verdict.states:>10}{verdict.seconds:>9.1f}  {told}"
            print(row, flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
