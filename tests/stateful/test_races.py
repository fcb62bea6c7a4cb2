"""Races with a fixed order: another request runs just before a request to the database."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.repositories.accounts import account_database
from tests.openapi_check import CheckedApp
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Client,
    Command,
    Create,
    Release,
    ReleaseAll,
    Reply,
)
from tests.stateful.conftest import World

FIRST, SECOND, THIRD = "192.0.2.2", "192.0.2.10", "198.51.100.1"
Act = Callable[[], object]
Meanwhile = Callable[..., Reply]


@pytest.fixture
def meanwhile(settings: Settings, world: World) -> Meanwhile:
    """Return a function that sends a command, and calls other functions before given requests.

    Each interruption is a method, a part of the URL, and the function to call.
    """

    def send(command: Command, *interruptions: tuple[str, str, Act]) -> Reply:
        left = list(interruptions)

        def trace(method: str, url: str) -> None:
            if left and left[0][0] == method and left[0][1] in url:
                left.pop(0)[2]()

        wsgi = composition.create_app(replace(settings, identity_cache=4.0), trace=trace)
        client = world.client()
        reply = Client(CheckedApp(wsgi), client.tokens, client.ids).send(command)
        assert not left, "the service did not send the expected request"
        return reply

    return send


@pytest.fixture
def send(world: World) -> Callable[[Command], Reply]:
    """Return a function that sends a command; two addresses are in the pool."""
    client = world.client()
    for database in world.copies.values():
        for document in world.documents(database).values():
            database.remove(document["_id"], document["_rev"])
    for address in (FIRST, SECOND):
        client.send(Create("operator", address, "us-east", "proxy1.example.com"))
    return client.send


def in_database_of(world: World, name: str) -> str:
    """Return the part of a URL that names an account's database."""
    return account_database(world.ids[name]).replace("/", "%2F")


def owners(world: World) -> dict[str, str | None]:
    return {a: d.get("pvt_assigned_to") for a, d in world.documents(world.pool).items()}


def test_a_request_that_loses_a_race_gets_409(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    reply = meanwhile(
        Assign("alice", "alice", FIRST), ("PUT", FIRST, lambda: send(Assign("bob", "bob", FIRST)))
    )
    assert reply.code == 409
    assert reply.data == {"ips": {FIRST: "conflict"}, "message": "conflicting documents"}
    assert owners(world)[FIRST] == world.ids["bob"]
    assert not world.documents(world.copies["alice"])


def test_addresses_assigned_before_a_lost_one_are_made_available_again(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    many = AssignMany("alice", "alice", (FIRST, SECOND))
    reply = meanwhile(many, ("POST", "_bulk_docs", lambda: send(Assign("bob", "bob", SECOND))))
    assert reply.code == 409
    assert reply.data["ips"] == {SECOND: "conflict"}
    assert owners(world) == {FIRST: None, SECOND: world.ids["bob"]}
    assert not world.documents(world.copies["alice"])


def test_a_release_leaves_the_copy_of_the_next_assignment(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    assert send(Assign("alice", "alice", FIRST)).code == 200
    again: list[Reply] = []
    reply = meanwhile(
        Release("alice", "alice", FIRST),
        (
            "GET",
            f"{in_database_of(world, 'alice')}/{FIRST}",
            lambda: again.append(send(Assign("alice", "alice", FIRST))),
        ),
    )
    assert (reply.code, again[0].code) == (200, 200)
    assert owners(world)[FIRST] == world.ids["alice"]
    assert set(world.documents(world.copies["alice"])) == {FIRST}


def test_an_assignment_survives_the_removal_of_its_copy_by_the_last_release(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    # The copy still exists, as if the release had not finished yet.
    assert send(Assign("alice", "alice", FIRST)).code == 200
    database = world.copies["alice"]
    copy = world.documents(database)[FIRST]
    assert send(Release("alice", "alice", FIRST)).code == 200
    left = {k: v for k, v in copy.items() if k != "_rev"}
    revision = database.put(left).revision

    def remove() -> None:
        assert revision
        database.remove(FIRST, revision)

    put = f"{in_database_of(world, 'alice')}/{FIRST}"
    reply = meanwhile(
        Assign("alice", "alice", FIRST), ("PUT", put, lambda: None), ("PUT", put, remove)
    )
    assert reply.code == 200
    assert set(world.documents(database)) == {FIRST}


def test_every_item_that_cannot_be_assigned_is_reported(
    send: Callable[[Command], Reply],
) -> None:
    assert send(Assign("bob", "bob", SECOND)).code == 200
    reply = send(AssignMany("alice", "alice", (THIRD, SECOND)))
    assert reply.code == 400
    assert {path: set(rules) for path, rules in reply.data.items()} == {
        "ips.0": {"not_found"},
        "ips.1": {"forbidden"},
    }


def test_releasing_all_releases_and_names_each_address_once(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    assert send(AssignMany("alice", "alice", (FIRST, SECOND))).code == 200

    def assign_again() -> None:
        assert send(Assign("alice", "alice", FIRST)).code == 200

    copies = f"{in_database_of(world, 'alice')}/_bulk_get"
    reply = meanwhile(ReleaseAll("alice", "alice"), ("POST", copies, assign_again))
    assert reply.code == 200
    assert sorted(reply.data["ips"]) == sorted([FIRST, SECOND])
    assert owners(world) == {FIRST: world.ids["alice"], SECOND: None}
    assert set(world.documents(world.copies["alice"])) == {FIRST}


def test_a_release_of_all_that_loses_a_race_releases_nothing(
    world: World, meanwhile: Meanwhile, send: Callable[[Command], Reply]
) -> None:
    assert send(AssignMany("alice", "alice", (FIRST, SECOND))).code == 200

    def release_one() -> None:
        assert send(Release("alice", "alice", SECOND)).code == 200

    reply = meanwhile(ReleaseAll("alice", "alice"), ("POST", "_bulk_docs", release_one))
    assert reply.code == 409
    assert owners(world) == {FIRST: world.ids["alice"], SECOND: None}
    assert set(world.documents(world.copies["alice"])) == {FIRST}
