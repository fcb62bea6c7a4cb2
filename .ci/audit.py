"""Whether the packages installed here fit together, and have known vulnerabilities.

The first is `pip check`, which needs nothing from outside. The second asks PyPI for the advisories
on each installed version (`https://pypi.org/pypi/<name>/<version>/json`); where that does not
answer, as behind a mirror that has packages only, it says so and is no failure.
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.metadata import distributions

SOURCE = "https://pypi.org/pypi"
OURS = "kazoo_ips"


def advisories(source: str, name: str, version: str) -> Iterator[str]:
    """What is known against one version, a line each."""
    with urllib.request.urlopen(f"{source}/{name}/{version}/json", timeout=10) as answer:
        known = json.load(answer)["vulnerabilities"]
    for each in known:
        if not each.get("withdrawn"):
            fixed = ", ".join(each.get("fixed_in") or []) or "nothing yet"
            yield f"{name} {version}: {each['id']}, fixed in {fixed}"


def audit(source: str) -> int:
    """Print what is known against what is installed; the exit status."""
    installed = sorted({(each.name, each.version) for each in distributions()})
    installed = [(name, version) for name, version in installed if name != OURS]
    found: list[str] = []
    for name, version in installed:
        try:
            found += advisories(source, name, version)
        except (OSError, ValueError, KeyError) as error:
            print(f"audit: NOT DONE, no advisories from {source}: {error}")
            return 0
    summary = f"audit: {len(installed)} packages, {len(found)} known vulnerabilities"
    print(summary, *found, sep="\n  ")
    return 1 if found else 0


if __name__ == "__main__":
    fit = subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode
    sys.exit(fit or audit(sys.argv[1] if len(sys.argv) > 1 else SOURCE))
