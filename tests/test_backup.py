"""The script of docs/couchdb.md copies all databases of the service, with the history.

The test copies from one embedded server to another one, and from there to an empty third one.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from embedded import EmbeddedCouch
from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import AssignIP, CreateIP, DeleteIP, ReleaseIP
from kazoo_ips.repositories.history_documents import from_document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("bash", "curl", "jq"))), reason="bash, curl or jq is missing"
    ),
]

ROOT = Path(__file__).parents[1]
IP, DELETED = "192.0.2.1", "192.0.2.2"
START = 1_800_000_000.0


@dataclass
class Server:
    """A server, and the service that uses it.

    :param clock: returns the time, the same for all servers
    """

    url: str
    clock: list[float]

    def __post_init__(self) -> None:
        self.settings = Settings(couchdb_url=self.url)
        self.couch: Couch = composition.connect(self.settings)
        self.services = self.process()

    def process(self) -> Instance:
        """Return the services of another process."""
        return composition.build(self.settings, clock=lambda: self.clock[0])

    def archive(self) -> None:
        """Let the archiver of a new process archive all changes."""
        self.clock[0] += 60
        archiver = self.process()
        for _ in range(6):
            archiver.background.archive()
            self.clock[0] += 1

    def feed(self) -> dict[str, list[str]]:
        """Return the ids of the events of each address, in the order of the feed."""
        found: dict[str, list[str]] = {}
        for event in self.services.events.changed("0", 1000)[1]:
            found.setdefault(event.address, []).append(event.id)
        return found

    def databases(self) -> dict[str, list[Any]]:
        """Return the documents of each database, with their revisions."""
        return {
            name: sorted(
                (row["id"], sorted(change["rev"] for change in row["changes"]))
                for row in self.couch.database(name).changes(since="0", style="all_docs")[
                    "results"
                ]
            )
            for name in self.couch.databases()
        }


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Three servers: one for the service, one for the backup, and an empty one."""
    clock = [START]
    with ExitStack() as stack:
        yield [Server(stack.enter_context(EmbeddedCouch(None)).url, clock) for _ in range(3)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script as the page has it, and the file with the password."""
    page = (ROOT / "docs" / "couchdb.md").read_text()
    [text] = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    made = tmp_path / "copy-databases"
    made.write_text(text)
    (tmp_path / "couchdb.login").write_text("admin secret\n")
    return made


def copy(script: Path, source: Server, target: Server) -> dict[str, int]:
    """Run the script; return how many documents it wrote to each database."""
    command = ["bash", str(script), source.url, target.url]
    done = subprocess.run(
        command, cwd=script.parent, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = (line.rsplit(" ", 1) for line in done.stdout.splitlines())
    return {name: int(count) for name, count in lines}


def change(services: Instance, account_id: str) -> None:
    """Make changes of each kind."""
    for address in (IP, DELETED):
        services.pool.create(CreateIP(address, "z", "h"), uuid4().hex)
        services.ips.assign(AssignIP(account_id, address), uuid4().hex)
    services.ips.release(ReleaseIP(account_id, IP), uuid4().hex)
    services.pool.delete(DeleteIP(DELETED, force=True), uuid4().hex)
    services.ips.assign(AssignIP(account_id, IP), uuid4().hex)


def test_a_restored_backup_has_the_whole_history_and_it_goes_on(
    servers: list[Server], script: Path
) -> None:
    first, backup, restored = servers
    composition.databases(first.settings).create()
    account = first.services.accounts.create("Operator", "operator.example.com")
    token = first.services.auth.open_session(account).token
    change(first.services, account.id)
    first.archive()
    assert {address: len(ids) for address, ids in first.feed().items()} == {IP: 4, DELETED: 4}
    written = copy(script, first, backup)
    assert sum(written.values()) > len(written)
    assert backup.databases() == first.databases()
    assert set(copy(script, first, backup).values()) == {0}

    first.services.ips.release(ReleaseIP(account.id, IP), uuid4().hex)
    first.archive()
    again = copy(script, first, backup)
    assert {name for name, count in again.items() if count and "history" in name}
    copy(script, backup, restored)
    assert restored.databases() == first.databases()
    assert restored.feed() == first.feed()

    before = restored.databases()
    composition.databases(restored.settings).create()
    assert restored.databases() == before, "setup had something to create"
    assert list(restored.process().doctor.examine()) == []
    assert restored.process().auth.authenticate(token).account.id == account.id
    restored.services.ips.assign(AssignIP(account.id, IP), uuid4().hex)
    restored.archive()
    after = restored.feed()
    assert after[DELETED] == first.feed()[DELETED]
    assert after[IP][:-1] == first.feed()[IP]


def test_a_restored_history_is_append_only(servers: list[Server], script: Path) -> None:
    first, backup, _ = servers
    composition.databases(first.settings).create()
    account = first.services.accounts.create("Operator", "operator.example.com")
    change(first.services, account.id)
    first.archive()
    copy(script, first, backup)
    [name] = [n for n in backup.couch.databases() if any_event(backup, n)]
    database = backup.couch.database(name)
    event = next(iter(database.range("4", "7")))
    assert from_document(event).address in (IP, DELETED)
    refused = database.put_all([{**event, "at": 1}, {**event, "_deleted": True}])
    assert [each.revision for each in refused] == [None, None]
    assert database.get(event["_id"]) == event


def any_event(server: Server, name: str) -> bool:
    """Whether a database has an event."""
    return name.startswith("kazoo_ips_history_") and bool(
        [*server.couch.database(name).range("4", "7")]
    )
