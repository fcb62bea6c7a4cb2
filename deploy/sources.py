"""The digest of all files that a deployment installs: `python -m deploy.sources` prints it.

`make deploy` compares it with that of the release that serves, before it builds a wheel.
"""

import hashlib
from pathlib import Path

FOLDERS = ("kazoo_ips", "couch_views", "deploy")
FILES = ("setup.py", "setup.cfg", "README.md", "LICENSE")


def digest(root: Path) -> str:
    """Return the digest of the files below a work tree, without what Python has compiled."""
    paths = [root / name for name in FILES]
    for folder in FOLDERS:
        found = (root / folder).rglob("*")
        paths += (path for path in found if path.is_file() and "__pycache__" not in path.parts)
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


if __name__ == "__main__":
    print(digest(Path(__file__).parents[1]))
