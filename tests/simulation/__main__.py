"""Runs seeds: `python -m tests.simulation 0-999`; one alone with its trace: `--trace 17`."""

import argparse
import os
import sys
import time
from collections import Counter


def main() -> int:
    """Run seeds, and say which went wrong and how to repeat each."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a number, or first-last")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--most", type=int, default=10, help="end after so many failures")
    parser.add_argument("--digest", action="store_true", help="print a digest of each run")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts shall have one order
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
                  environment)  # fmt: skip
    from tests.simulation.run import run  # noqa: PLC0415

    first, _, last = arguments.seeds.partition("-")
    kinds: Counter[str] = Counter()
    failed, began, count = [], time.perf_counter(), 0
    for seed in range(int(first), int(last or first) + 1):
        result = run(seed)
        count += 1
        if arguments.trace:
            print(*result.trace, sep="\n")
        if arguments.digest:
            print(seed, result.digest)
        if result.wrong:
            failed.append(seed)
            kinds.update({line.split(":")[0] for line in result.wrong})
            print(f"seed {seed}:", *result.wrong, sep="\n  ")
            print("  history:", *result.history, sep="\n    ")
            print(f"  again: make simulate SEED={seed}", flush=True)
        if len(failed) >= arguments.most:
            break
    seconds = time.perf_counter() - began
    print(f"{count} runs in {seconds:.1f} s, {len(failed)} of them wrong: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
