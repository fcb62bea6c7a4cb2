"""schemathesis checks that a live server conforms to its OpenAPI description."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kazoo_ips.model import DedicatedIP
from tests.conftest import Member


def test_the_live_service_conforms_to_its_description(
    live: str, environment: dict[str, str], operator: Member, alice: Member,
    add: Callable[..., DedicatedIP], tmp_path: Path,
) -> None:  # fmt: skip
    add("1.2.3.4")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", Path(__file__).with_name("schemathesis.toml"),
            "run", f"{live}/v2/openapi.json", "--seed=1", "--no-color",
        ],
        cwd=tmp_path,
        env={**environment, "TOKEN": operator.token, "ACCOUNT": alice.id},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
