"""How many files and functions of the package one request enters: `python -m bench.call_path`.

It serves three requests with WebTest on the embedded database, or on that of COUCHDB_URL: a list
of an account, an allocation of two with an Idempotency-Key, and a release of two without a body.
Each is sent once before it is counted, so that imports and caches are warm. Calls in other threads
count as well. With `--calls` it prints each call, indented by depth.
"""

import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from webtest import TestApp

from embedded.server import EmbeddedCouch
from kazoo_ips import app
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, CreateIP

PACKAGE = str(Path(app.__file__).parent) + os.sep


@dataclass
class Calls:
    """The calls of one request into the package.

    :param calls: file, function and depth of each, in order
    """

    calls: list[tuple[str, str, int]] = field(default_factory=list)
    _depth: dict[int, int] = field(default_factory=dict)

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Record a call; installed with `sys.setprofile`."""
        name = frame.f_code.co_filename
        if event not in ("call", "return") or not name.startswith(PACKAGE):
            return
        thread = threading.get_ident()
        depth = self._depth.get(thread, 0)
        if event == "call":
            self.calls.append((name.removeprefix(PACKAGE), frame.f_code.co_qualname, depth))
        self._depth[thread] = depth + (1 if event == "call" else -1)

    def __str__(self) -> str:
        files = [file for file, _, _ in self.calls]
        functions = {(file, function) for file, function, _ in self.calls}
        changes = sum(a != b for a, b in pairwise(files))
        return (
            f"{len(set(files))} files, {len(functions)} functions, {len(files)} calls, "
            f"{changes} changes of file"
        )


def counted(request: Callable[[], Any]) -> Calls:
    """Send a request and count its calls, those in other threads too."""
    path = Calls()
    # Otherwise Python could collect garbage of an earlier test in the middle of the request.
    gc.collect()
    gc.disable()
    threading.setprofile(path.profile)
    sys.setprofile(path.profile)
    try:
        request()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()
    return path


def main(arguments: list[str]) -> None:
    """Print the figures of the three requests."""
    with ExitStack() as stack:
        url = os.environ.get("COUCHDB_URL")
        if not url:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(EmbeddedCouch(Path(folder))).url
        settings = Settings(couchdb_url=url, prefix=f"path-{uuid4().hex[:8]}-")
        app.databases(settings).create()
        for name, path in paths(settings).items():
            print(f"{name}: {path}")
            for file, function, depth in path.calls if "--calls" in arguments else ():
                print(f"  {'  ' * depth}{file} {function}")


def paths(settings: Settings) -> dict[str, Calls]:
    """The three requests and their calls."""
    # The identity of the caller stays in the cache, however slow the requests are.
    flask_app = app.create_app(replace(settings, identity_cache=3600.0))
    services = flask_app.extensions["kazoo_ips"]
    services.auth.ensure_key()
    account = services.accounts.create("account", "account.example.com")
    user = services.accounts.create_user(account.id, "user", "password")
    token = services.auth.open_session(account, user).token
    for n in range(1, 11):
        services.pool.create(CreateIP(f"192.0.2.{n}", "zone", f"proxy{n}.example.com"), "setup")
    services.ips.assign(AssignIP(account.id, "192.0.2.1"), "setup")
    client, ips = TestApp(flask_app), f"/v2/accounts/{account.id}/ips"

    def allocate() -> None:
        headers = {"X-Auth-Token": token, "Idempotency-Key": uuid4().hex}
        client.post_json(ips, {"data": {"quantity": 2}}, headers=headers)

    def send(method: str, path: str) -> Callable[[], Any]:
        return lambda: client.request(path, method=method, headers={"X-Auth-Token": token})

    requests = {
        "GET assigned": send("GET", f"{ips}/assigned"),
        "POST allocate": allocate,
        "DELETE of two": send("DELETE", ips),
    }
    found = {}
    for name, request in requests.items():
        if name == "DELETE of two":
            request()
            allocate()
        else:
            request()
        found[name] = counted(request)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
