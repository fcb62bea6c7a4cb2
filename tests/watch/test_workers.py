"""Metrics summed over several workers, also after some are killed or replaced."""

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3
from prometheus_client.mmap_dict import MmapedDict

from kazoo_ips.observability import multiprocess_metrics
from kazoo_ips.processes import liveness
from tests.conftest import Member
from tests.servers import Gunicorn
from tests.timing import eventually
from tests.watch.exposition import Samples, counters, samples, value

REQUESTS, DURATION = "kazoo_ips_requests_total", "kazoo_ips_request_duration_seconds"


@pytest.fixture
def server(environment: dict[str, str], operator: Member, tmp_path: Path) -> Iterator[Gunicorn]:
    """A server with two workers, which creates its folders in the folder of the test."""
    own = {**environment, "TMPDIR": str(tmp_path)}
    with Gunicorn(own, tmp_path / "log", workers=2) as made:
        yield made
    assert list(tmp_path.glob("kazoo-ips-counts-*")) == [], "the files were not deleted at the end"


def send(server: Gunicorn, count: int) -> None:
    """Send requests from several threads, each over a new connection."""

    def send_one(_: int) -> int:
        headers = {"Connection": "close"}
        return urllib3.request("GET", f"{server.url}/healthz", headers=headers).status

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(send_one, range(count))) == [200] * count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has several heaps")
def test_the_threads_of_a_worker_share_one_heap(server: Gunicorn) -> None:
    send(server, 50)
    for pid in server.workers():
        maps = Path(f"/proc/{pid}/maps").read_text()
        # glibc reserves 64 MiB for each further heap, and makes it accessible as it grows.
        reserved = re.findall(r"^(\w+)-(\w+) ---p \w+ 00:00 0 *$", maps, re.MULTILINE)
        assert not [area for area in reserved if int(area[1], 16) - int(area[0], 16) > 2**25]


def scrape(server: Gunicorn) -> Samples:
    headers = {"Connection": "close"}
    reply = urllib3.request("GET", f"{server.url}/metrics", headers=headers)
    return samples(reply.data.decode())


def reply_counts(counts: Samples) -> tuple[float, float]:
    """Return the number of replies of `/healthz`, by the counter and by the histogram."""
    return (
        value(counts, REQUESTS, route="/healthz", method="GET", status="200"),
        value(counts, f"{DURATION}_count", route="/healthz"),
    )


def all_counted(server: Gunicorn, sent: int) -> bool:
    """Wait until all requests are counted. A worker counts a request just after its reply."""
    return eventually(lambda: reply_counts(scrape(server)) == (sent, sent))


def files_with_counts(folder: Path) -> int:
    return sum(
        any("/healthz" in key and count for key, count, *_ in values)
        for values in map(MmapedDict.read_all_values_from_file, map(str, folder.glob("counter_*")))
    )


def starts(server: Gunicorn) -> float:
    return value(scrape(server), "kazoo_ips_worker_starts_total")


def test_counters_are_summed_over_workers_and_outlive_them(
    server: Gunicorn, tmp_path: Path
) -> None:
    [folder] = tmp_path.glob("kazoo-ips-counts-*")
    send(server, 100)
    sent = 100
    while files_with_counts(folder) < 2 and sent < 2000:
        send(server, 50)
        sent += 50
    assert files_with_counts(folder) == 2
    assert all_counted(server, sent)
    first = scrape(server)
    files = sorted(path.name for path in folder.iterdir())
    sizes = sum(path.stat().st_size for path in folder.iterdir())

    for started in (3, 4, 5):
        server.kill_a_worker()
        assert eventually(lambda wanted=started: starts(server) == wanted, 30)  # type: ignore[misc]
    second = scrape(server)
    assert reply_counts(second) == (sent, sent)
    assert [key for key in counters(first) if second[key] < first[key]] == []
    send(server, 60)
    assert all_counted(server, sent + 60)
    assert sorted(path.name for path in folder.iterdir()) == files
    assert sum(path.stat().st_size for path in folder.iterdir()) == sizes


def test_counters_outlive_a_reload(server: Gunicorn, tmp_path: Path) -> None:
    before = server.workers()
    send(server, 30)
    server.reload()
    assert eventually(
        lambda: len(server.workers()) == 2 and not {*before} & {*server.workers()}, 30
    )
    send(server, 30)
    assert all_counted(server, 60)
    [folder] = tmp_path.glob("kazoo-ips-counts-*")
    server.reload()
    assert eventually(lambda: starts(server) == 6, 30)
    assert len(list(folder.glob("counter_*"))) <= 4


def test_the_directory_of_a_killed_master_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    dead, alive, strange = (tmp_path / f"kazoo-ips-counts-{n}" for n in range(3))
    with subprocess.Popen([sys.executable, "-c", ""]) as process_that_ends:
        ended_pid = process_that_ends.pid
    place = liveness.identity().rpartition("/")[0]
    owners: dict[Path, str] = {
        dead: f"{place}/{ended_pid}",
        alive: liveness.identity(),
        strange: "another-machine/1",
    }
    for folder, owner in owners.items():
        folder.mkdir()
        (folder / "owner").write_text(owner)
    made = multiprocess_metrics.make_folder()
    assert {*tmp_path.iterdir()} == {alive, strange, made}
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(made)
    multiprocess_metrics.remove_folder(made)
    assert not made.exists()


@pytest.mark.parametrize(("taken", "slot"), [((), 0), ((0, 1), 2), ((1, 2), 0), ((0, 2, 3), 1)])
def test_a_worker_takes_the_lowest_free_slot(taken: tuple[int, ...], slot: int) -> None:
    assert multiprocess_metrics.free_slot(taken) == slot
