"""Runs seeds, and prints each one that fails with the command that repeats it."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context

from tests.simulation import processes


def main(given: Sequence[str]) -> int:
    """Run seeds; return 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, a range (first-last), or several with commas")
    parser.add_argument("--trace", action="store_true", help="print every request and fault")
    parser.add_argument("--digest", action="store_true", help="print a digest of each run")
    parser.add_argument("--most", type=int, default=10, help="stop after this number of failures")
    parser.add_argument(
        "--shrink", action="store_true", help="search for a shorter run that fails in the same way"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    arguments = parser.parse_args(given)
    if (
        os.environ.get("PYTHONHASHSEED") != "0"
    ):  # so that a set of texts has the same order in every process
        os.environ["PYTHONHASHSEED"] = "0"
        command = [sys.executable, "-m", "tests.simulation", *given]
        os.execv(sys.executable, command)
    work = partial(
        processes.run, trace=arguments.trace, shrink=arguments.shrink, digest=arguments.digest
    )
    failed, count, began = [], 0, time.perf_counter()
    # Each run allocates shared memory that is freed only when the process ends.
    with get_context("spawn").Pool(arguments.jobs, maxtasksperchild=50) as pool:
        for result in pool.imap(work, seeds(arguments.seeds), chunksize=10):
            count += 1
            if arguments.trace:
                print(*result.trace, sep="\n")
            if arguments.digest:
                print(result.seed, result.digest)
            if result.violations:
                failed.append(result.seed)
                print(f"seed {result.seed}:", *result.violations, sep="\n  ")
                print("  history:", *result.history, sep="\n    ")
                shorter = " SHRINK=1" if arguments.shrink else ""
                print(f"  to repeat it: make simulate SEED={result.seed}{shorter}", flush=True)
            if len(failed) >= arguments.most:
                break
    seconds = time.perf_counter() - began
    print(f"{count} runs in {seconds:.1f} s, {len(failed)} failed: {failed}")
    return bool(failed)


def seeds(text: str) -> list[int]:
    """Parse a list of seeds and ranges.

    >>> seeds("7,10-12")
    [7, 10, 11, 12]
    """
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
