"""A list of events costs no request for each document that waits for the archiver."""

from kazoo_ips import app as composition
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.timelines import ListEvents
from tests.history.conftest import START, World

NOW = int(START) + GREGORIAN_EPOCH
COUNT = 30


def test_addresses_of_kazoo_that_wait_are_looked_up_together(world: World) -> None:
    documents = [
        {
            "_id": f"192.0.2.{n}", "pvt_type": "dedicated_ip", "pvt_status": "available",
            "pvt_zone": "z", "pvt_host": "h", "pvt_created": NOW, "pvt_modified": NOW,
        }
        for n in range(COUNT)
    ]  # fmt: skip
    world.pool.put_all(documents)
    for n in range(COUNT):  # Kazoo assigns each
        world.write(f"192.0.2.{n}", status="assigned", assigned_to=world.account_id)
    sent: list[str] = []
    services = composition.build(
        world.settings,
        clock=lambda: world.clock[0],
        trace=lambda method, url: sent.append(f"{method} {url}"),
    )
    assert len(services.history.events(ListEvents(limit=2 * COUNT)).items) == 2 * COUNT
    assert len(sent) < COUNT, sent[-3:]
