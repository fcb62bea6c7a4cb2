"""Runs Spin on every model of the protocol: as it is it must hold, without any one guard it must not.

python spec/check.py [model]    prints a table; fails when a verdict is not the expected one
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
"""Seconds that one run may take."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to run a model.

    :param guards: what must not be left out, by the flags that leave it out
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
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Spin says of one run.

    :param holds: None when it came to no end
    """

    holds: bool | None
    states: str
    seconds: float


def check(compiler: str, model: str, flags: tuple[str, ...]) -> Verdict:
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
    return Verdict(
        errors[1] == "0" if errors and whole else None,
        states[1] if states else "?",
        time.monotonic() - began,
    )


def main(models: list[str]) -> int:
    """Check everything, or the models named; how many verdicts are not as expected."""
    # tcc compiles in no time, which is most of it for all but the largest.
    compiler = next((c for c in (os.environ.get("CC"), "tcc", "gcc", "cc") if c and shutil.which(c)), None)
    if not shutil.which("spin") or compiler is None:
        missing = "a C compiler" if shutil.which("spin") else "spin"
        sys.exit(f"{missing} is missing: on Debian, apt-get install spin tcc")
    runs = [
        (scenario, guard)
        for scenario in SCENARIOS
        if not models or scenario.model in models
        for guard in ("", *scenario.guards)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = pool.map(
            lambda run: check(compiler, run[0].model, (run[0].name, *filter(None, run[1:]))), runs
        )
        print(f"{'model':26}{'without':26}{'states':>10}{'seconds':>9}  verdict")
        wrong = 0
        for (scenario, guard), verdict in zip(runs, verdicts, strict=True):
            says = {True: "holds", False: "fails", None: "no end"}[verdict.holds]
            right = verdict.holds is (not guard)
            wrong += not right
            name = f"{scenario.model} {scenario.name}"
            told = says if right else f"{says}: NOT AS EXPECTED"
            print(f"{name:26}{guard or '-':26}{verdict.states:>10}{verdict.seconds:>9.1f}  {told}")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
