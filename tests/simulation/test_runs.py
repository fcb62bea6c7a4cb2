"""Two thousand runs of the service on a simulated cluster have no violations.

They run in their own processes, because they replace parts of the standard library. A run that
fails is printed with the command that repeats it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNS, PARTS = 2000, 4


def simulate(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """Run seeds in another process."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("part", range(PARTS))
def test_every_reply_is_consistent_and_all_documents_agree_at_the_end(part: int) -> None:
    size = RUNS // PARTS
    seeds = range(part * size, (part + 1) * size)
    done = simulate(f"{seeds[0]}-{seeds[-1]}")
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith(f"{size} runs in "), done.stdout[-20_000:] + done.stderr[-5_000:]
    assert last.endswith(", 0 failed: []"), done.stdout[-20_000:]


def test_a_seed_repeats_its_run_exactly() -> None:
    seeds = "0-19"
    first = simulate(seeds, "--digest", "--most", "100", hash_seed="1")
    again = simulate(seeds, "--digest", "--most", "100", "--jobs", "2", hash_seed="2")
    digests = [_digests(done.stdout) for done in (first, again)]
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == 20


def test_a_run_does_not_depend_on_earlier_runs() -> None:
    single = _digests(simulate("19", "--digest", "--most", "100").stdout)
    assert (
        single.items() <= _digests(simulate("15-19", "--digest", "--most", "100").stdout).items()
    )


def _digests(printed: str) -> dict[str, str]:
    lines = (line.split(" ") for line in printed.splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2 and len(words[1]) == 64}
