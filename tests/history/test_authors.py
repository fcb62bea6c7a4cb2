"""Each event names who made the change, also if another process completes it."""

from uuid import uuid4

from kazoo_ips import app as composition
from kazoo_ips.model import AssignIPs
from kazoo_ips.model.history import Author
from kazoo_ips.observability import request_context
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from tests.history.conftest import IP, World

IPS = (IP, "192.0.2.2")


def test_a_request_over_http_is_an_event_with_its_caller(world: World) -> None:
    app = composition.create_app(world.settings, clock=lambda: world.clock[0])
    services = app.extensions["kazoo_ips"]
    world.create()
    account = world.services.accounts.fetch(world.account_id)
    user = world.services.accounts.create_user(account.id, "admin", "secret")
    token = world.services.auth.open_session(account, user).token
    headers = {"X-Auth-Token": token, "X-Request-ID": "made-here"}
    reply = app.test_client().post(f"/v2/accounts/{account.id}/ips/{IP}", headers=headers)
    assert reply.status_code == 200
    world.archive(services)
    event = world.events()[-1]
    assert (event.event, event.request_id) == ("assigned", "made-here")
    assert event.by == Author(account.id, user.id)


def test_a_command_is_an_event_with_its_user(world: World) -> None:
    with request_context.command("create", "root"):
        world.create()
    world.archive()
    [event] = world.events()
    assert event.by == Author(command="create", system_user="root")


def test_a_release_that_another_process_completes_names_who_requested_it(world: World) -> None:
    for address in IPS:
        world.create(address)
    done = world.services.ips.assign_all(AssignIPs(world.account_id, IPS), uuid4().hex)
    world.services.background.work()
    by = Author(world.account_id, "user")
    log = TransactionLog(Records(world.couch))
    at = done[0].modified + 1
    transaction = log.begin(Action.RELEASE, world.account_id, "requested", at, IPS, None, by)
    for document in world.pool.get_all(IPS).values():
        number = int(document["_rev"].partition("-")[0]) + 1
        marks = {"pvt_transaction": transaction.id, "pvt_written_generation": number}
        world.pool.put({**document, **marks})
    log.commit(transaction, IPS)
    world.clock[0] += 1000
    with request_context.command("doctor", "root"):
        world.process().background.recover()
    world.archive()
    for address in IPS:
        assert world.kinds(address) == ["created", "assigned", "released"]
        event = world.events(address)[-1]
        assert (event.by, event.request_id) == (by, "requested")
