"""Wheels of this work tree, and changed ones in place of a newer or a broken version."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(folder: Path) -> Path:
    """This tree's wheel, built from a copy."""
    source = folder / "source"
    source.mkdir()
    for name in ("kazoo_ips", "couch_views"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(command, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def changed(wheel: Path, version: str, more: Mapping[str, str] | None = None) -> Path:
    """The wheel as another version.

    :param more: texts that are added to the end of files
    """
    _, old, rest = wheel.name.split("-", 2)
    made = wheel.with_name(f"kazoo_ips-{version}-{rest}")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if ".dist-info/" in name:
                text = text.replace(f"-{old}.dist".encode(), f"-{version}.dist".encode())
                text = text.replace(f"\nVersion: {old}".encode(), f"\nVersion: {version}".encode())
            text += (more or {}).get(name, "").encode()
            target.writestr(name.replace(f"-{old}.dist", f"-{version}.dist"), text)
    return made
