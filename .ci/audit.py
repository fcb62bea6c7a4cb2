"""Checks whether the installed packages are compatible, and have known vulnerabilities.

`pip check` compares their requirements, without the network. Then PyPI is queried for advisories
on each installed version (`https://pypi.org/pypi/<name>/<version>/json`). If PyPI cannot be
reached, for example behind a mirror with packages only, a line says so; that is not a failure.
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
    """Yield a line for each known vulnerability of a version."""
    with urllib.request.urlopen(f"{source}/{name}/{version}/json", timeout=10) as response:
        vulnerabilities = json.load(response)["vulnerabilities"]
    for each in vulnerabilities:
        if not each.get("withdrawn"):
            fixed = ", ".join(each.get("fixed_in") or []) or "nothing yet"
            yield f"{name} {version}: {each['id']}, fixed in {fixed}"


def audit(source: str) -> int:
    """Print the known vulnerabilities of all installed packages; return the exit status."""
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
    incompatible = subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode
    sys.exit(incompatible or audit(sys.argv[1] if len(sys.argv) > 1 else SOURCE))
