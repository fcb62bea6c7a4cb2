"""The threads of the sender, of which an account gets only a share, and the sender's lease."""

import threading
from collections.abc import Callable

import pytest

from kazoo_ips.background.lanes import Lane
from kazoo_ips.background.lease import CHECK, LEASE, RENEW, Lease
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from tests.timing import eventually


def test_a_group_takes_its_share_and_no_more_and_others_the_rest() -> None:
    lane, go = Lane("test", threads=4, share=2), threading.Event()
    running: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def hold() -> None:
            running.append(name)
            go.wait(10)

        return hold

    assert [lane.offer("a", work("a")) for _ in range(3)] == [True, True, False]
    assert [lane.offer("b", work("b")) for _ in range(2)] == [True, True]
    assert not lane.offer("c", work("c"))  # all threads are taken
    assert eventually(lambda: len(running) == 4)
    go.set()
    assert eventually(lambda: lane.offer("c", work("c")))
    assert eventually(lambda: running[4:] == ["c"])


def test_an_error_does_not_end_a_thread() -> None:
    lane, done = Lane("test", threads=1, share=1), threading.Event()

    def fail() -> None:
        raise ValueError

    assert lane.offer("a", fail)
    assert eventually(lambda: lane.offer("a", done.set))
    assert done.wait(10)


class Store(Checkpoints):
    """One checkpoint in memory."""

    def __init__(self) -> None:
        self.stored: Checkpoint | None = None
        self.lose = False

    def find(self, name: str) -> Checkpoint | None:
        """The checkpoint."""
        return self.stored

    def put(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Write it, unless another process has written it."""
        if self.lose:
            return None
        self.stored = checkpoint
        return checkpoint


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two leases in this process count as those of two processes, both alive."""
    monkeypatch.setattr(Checkpoint, "is_held_by_another", lambda self, now: now < self.until)


@pytest.mark.usefixtures("others")
def test_a_lease_is_held_by_one_until_it_is_silent() -> None:
    store, now = Store(), [1000]
    one, two = (Lease("x", store, lambda: now[0]) for _ in range(2))
    assert one.hold()
    assert not two.hold()
    for _ in range(20):
        now[0] += LEASE - RENEW  # renewed in time
        assert one.hold()
        assert not two.hold()
    now[0] += LEASE + 1
    assert two.hold()
    store.lose = True  # the write of the first one is refused from now on
    assert not one.hold()


def test_the_lease_of_a_dead_process_is_taken_at_the_next_check() -> None:
    store, now = Store(), [1000]
    namespace = liveness.identity().rpartition("/")[0]
    store.stored = Checkpoint("x", f"{namespace}/{2**22 + 7}", 1000 + LEASE, "", "")
    assert Lease("x", store, lambda: now[0]).hold()


@pytest.mark.usefixtures("others")
def test_a_clock_that_is_set_back_does_not_stop_the_checks() -> None:
    store, now = Store(), [100_000]
    two = Lease("x", store, lambda: now[0])
    assert Lease("x", store, lambda: now[0]).hold()
    assert not two.hold()
    now[0] = 50  # the lease seems to be valid for a long time, so its holder keeps it
    assert not two.hold()
    store.stored = None
    now[0] += CHECK
    assert two.hold()


@pytest.mark.usefixtures("others")
def test_a_holder_whose_clock_is_hours_ahead_is_followed_when_it_is_silent() -> None:
    store, now = Store(), [1000]
    ahead, two = Lease("x", store, lambda: now[0] + 18_000), Lease("x", store, lambda: now[0])
    assert ahead.hold()
    for _ in range(20):
        now[0] += CHECK
        assert ahead.hold()
        assert not two.hold()
    silent = 0  # the holder dies
    while not two.hold() and silent < 1000:
        now[0] += CHECK
        silent += CHECK
    assert LEASE - RENEW < silent <= LEASE + 2 * CHECK
