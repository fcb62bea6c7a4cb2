"""`docs/api.md`: every command in it, pasted in its order."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Member

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def commands() -> list[str]:
    """The indented lines of the page after the first calls' variables, each command whole."""
    lines = re.findall(r"^ {4}(.*)$", PAGE.partition("## The pool")[2], re.MULTILINE)
    return [each for each in "\n".join(lines).replace("\\\n", " ").split("\n") if each]


def test_every_command_of_the_page_does_what_the_page_says(
    live: str, operator: Member, alice: Member, pool: Any, tmp_path: Path
) -> None:
    (tmp_path / ".curlrc").write_text('silent\nwrite-out = "\\nstatus %{http_code}\\n"\n')
    done = subprocess.run(
        ["bash", "-e"],
        input="\n".join(commands()),
        env={
            **os.environ,
            "CURL_HOME": str(tmp_path),
            "API": f"{live}/v2",
            "TOKEN": operator.token,
            "ACCOUNT": alice.id,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = re.findall(r"^status (\d+)$", done.stdout, re.MULTILINE)
    curls = [each for each in commands() if each.startswith("curl")]
    wanted = [
        "304" if "If-None-Match" in each
        else "400" if "192.0.2.300" in each
        else "201" if "PUT" in each
        else "200"
        for each in curls
    ]  # fmt: skip
    assert list(zip(told, curls, strict=True)) == list(zip(wanted, curls, strict=True))
