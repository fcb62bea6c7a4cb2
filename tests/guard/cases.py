"""Edits of an address, and the guard's reason: old document, new document, reason."""

from typing import Any

from tests.api.couchdb import kazoo_document
from tests.strategies import UNUSABLE

ADDRESS = "192.0.2.1"
ALICE, BOB = "a" * 32, "b" * 32
FREE = kazoo_document(ADDRESS)
TAKEN = kazoo_document(ADDRESS, owner=ALICE)

LATER = 99_000_000_000
AGING = {**FREE, "pvt_status": "aging", "pvt_available_at": LATER, "pvt_last_assigned_to": ALICE}
HELD = {
    **FREE, "pvt_status": "reserved",
    "pvt_reserved_for": ALICE, "pvt_reserved_until": LATER, "pvt_reservation": "one",
}  # fmt: skip
DISABLED = {**FREE, "pvt_status": "disabled", "pvt_disabled": {"reason": "x", "scope": "ip"}}
BOBS = kazoo_document(ADDRESS, owner=BOB)
MADE_OVER = {"event": "transferred", "account_id": BOB, "origin": {"account_id": ALICE}}
TRANSFERRED = [{**MADE_OVER, "account_id": ALICE, "origin": {"account_id": BOB}}]

Case = tuple[dict[str, Any] | None, dict[str, Any], str]


def without(document: dict[str, Any], *fields: str) -> dict[str, Any]:
    """Return a document without these fields."""
    return {k: v for k, v in document.items() if k not in fields}


TIME = "must be a time in Gregorian seconds"
STATUS = "pvt_status must be a word in lower case"
NO_OWNER = "an assigned address needs the id of an account in pvt_assigned_to"
OWNER = "pvt_assigned_to is only for an assigned address"
ANOTHERS = "it is assigned to another account, and must be released first"
TYPE = "pvt_type must stay dedicated_ip"
CREATED = "pvt_created must not change"
ID = "the id is not an address"

REFUSED: dict[str, Case] = {
    "a status of several words": (FREE, {**FREE, "pvt_status": "in use"}, STATUS),
    "an empty status": (FREE, {**FREE, "pvt_status": ""}, STATUS),
    "a status beyond measure": (FREE, {**FREE, "pvt_status": "x" * 33}, STATUS),
    "a status that is no text": (FREE, {**FREE, "pvt_status": ["aging"]}, STATUS),
    "another status with an owner that is no id": (
        FREE,
        {**FREE, "pvt_status": "suspended", "pvt_assigned_to": "Alice"},
        "pvt_assigned_to must be the id of an account",
    ),
    **{
        f"{status} without its fields": (FREE, {**FREE, "pvt_status": status}, why)
        for status, why in {
            "aging": "an aging address needs a time",
            "reserved": "a reserved address needs pvt_reserved_for",
            "disabled": "a disabled address needs a reason",
        }.items()
    },
    "aging with an owner": (TAKEN, {**AGING, "pvt_assigned_to": ALICE}, OWNER),
    "disabled and assigned": (DISABLED, TAKEN, "it is disabled, and must be enabled first"),
    "disabled and reserved": (DISABLED, HELD, "it is disabled, and must be enabled first"),
    "assigned and reserved": (TAKEN, HELD, "it is assigned, and must be released first"),
    "resting and assigned to another": (AGING, BOBS, "it is resting"),
    "reserved and assigned to another": (HELD, BOBS, "it is reserved for another account"),
    "another account's, with the trail of an earlier transfer": (
        {**TAKEN, "pvt_trail": TRANSFERRED},
        {**BOBS, "pvt_trail": TRANSFERRED},
        ANOTHERS,
    ),
    "another status and another account": (
        TAKEN,
        {**TAKEN, "pvt_status": "suspended", "pvt_assigned_to": BOB},
        ANOTHERS,
    ),
    "a status in another case": (FREE, {**FREE, "pvt_status": "Available"}, STATUS),
    "no status": (FREE, without(FREE, "pvt_status"), STATUS),
    "a new one without a status": (None, without(FREE, "pvt_status"), STATUS),
    "assigned to nobody": (FREE, {**FREE, "pvt_status": "assigned"}, NO_OWNER),
    "a new one assigned to nobody": (None, {**FREE, "pvt_status": "assigned"}, NO_OWNER),
    "the owner taken away": (TAKEN, without(TAKEN, "pvt_assigned_to"), NO_OWNER),
    "an owner that is no id": (TAKEN, {**TAKEN, "pvt_assigned_to": "Alice"}, NO_OWNER),
    "an owner that is no text": (TAKEN, {**TAKEN, "pvt_assigned_to": [ALICE]}, NO_OWNER),
    "an owner in capitals": (FREE, {**TAKEN, "pvt_assigned_to": "A" * 32}, NO_OWNER),
    "available with an owner": (TAKEN, {**TAKEN, "pvt_status": "available"}, OWNER),
    "an owner without assigned": (FREE, {**FREE, "pvt_assigned_to": ALICE}, OWNER),
    "another account's": (TAKEN, {**TAKEN, "pvt_assigned_to": BOB}, ANOTHERS),
    "another type": (FREE, {**FREE, "pvt_type": "device"}, TYPE),
    "no type": (TAKEN, without(TAKEN, "pvt_type"), TYPE),
    "another creation": (FREE, {**FREE, "pvt_created": FREE["pvt_created"] + 1}, CREATED),
    "the creation taken away": (FREE, without(FREE, "pvt_created"), CREATED),
    "a creation at no time": (None, {**FREE, "pvt_created": "x"}, f"pvt_created {TIME}"),
    "a change at no time": (FREE, {**FREE, "pvt_modified": "now"}, f"pvt_modified {TIME}"),
    "a change at half a second": (FREE, {**FREE, "pvt_modified": 1.5}, f"pvt_modified {TIME}"),
    "a zone that is no text": (FREE, {**FREE, "pvt_zone": 7}, "pvt_zone must be a text"),
    "a zone in a list": (FREE, {**FREE, "pvt_zone": ["us-east"]}, "pvt_zone must be a text"),
    "an empty zone": (FREE, {**FREE, "pvt_zone": ""}, "pvt_zone must be a text"),
    "a new one without a zone": (None, without(FREE, "pvt_zone"), "pvt_zone must be a text"),
    "a host that is no text": (FREE, {**FREE, "pvt_host": None}, "pvt_host must be a text"),
    "a new one without a host": (None, without(FREE, "pvt_host"), "pvt_host must be a text"),
    **{
        f"an id that is no address: {bad}": (None, kazoo_document(bad), ID)
        for bad in (
            "junk", "192.0.2.01", "192.0.2.256", "192.0.2", "192.0.2.0/24", "1::2::3", "12345::",
            "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::192.0.2.300", "a" * 32,
        )
    },
    **{
        f"no proxy can have it: {bad}": (None, kazoo_document(bad), f"no proxy can have {what}")
        for bad, what in {**UNUSABLE, "fe80::1%eth0": "a link-local address"}.items()
    },
}  # fmt: skip

PASSED: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "added by Kazoo": (None, FREE),
    "added as assigned": (None, TAKEN),
    "assigned by Kazoo": (FREE, {**TAKEN, "pvt_modified": FREE["pvt_modified"] + 9}),
    "released by Kazoo": (TAKEN, FREE),
    "written as it was": (TAKEN, TAKEN),
    "given a status of a newer release": (TAKEN, {**FREE, "pvt_status": "parked"}),
    "added with a status of a newer release": (None, {**FREE, "pvt_status": "parked"}),
    "of another status and still an account's": (TAKEN, {**TAKEN, "pvt_status": "suspended"}),
    "back from a status of a newer release": ({**FREE, "pvt_status": "parked"}, FREE),
    "assigned from a status of a newer release": ({**FREE, "pvt_status": "parked"}, TAKEN),
    "taken back by the last account": (AGING, TAKEN),
    "assigned after its rest": ({**AGING, "pvt_available_at": 1}, BOBS),
    "assigned by its reservation": (HELD, TAKEN),
    "assigned after its reservation": ({**HELD, "pvt_reserved_until": 1}, BOBS),
    "transferred": (TAKEN, {**BOBS, "pvt_trail": [MADE_OVER]}),
    "transferred back": (
        {**BOBS, "pvt_trail": [MADE_OVER]},
        {**TAKEN, "pvt_trail": [{**MADE_OVER, "event": "undone", "was": "transferred"}]},
    ),
    "assigned and disabled": (TAKEN, {**TAKEN, "pvt_disabled": DISABLED["pvt_disabled"]}),
    **{
        f"{old['pvt_status']} and {new['pvt_status']}": (old, new)
        for old, new in [
            (FREE, HELD), (FREE, AGING), (FREE, DISABLED), (TAKEN, AGING), (TAKEN, DISABLED),
            (AGING, HELD), (AGING, DISABLED), (HELD, AGING), (HELD, DISABLED), (DISABLED, AGING),
        ]
    },
    **{f"made available by Kazoo: {old['pvt_status']}": (old, {**old, "pvt_status": "available"})
       for old in (AGING, HELD, DISABLED)},
    "moved to another zone and host": (TAKEN, {**TAKEN, "pvt_zone": "z", "pvt_host": "h"}),
    "given other fields": (FREE, {**FREE, "note": 1, "pvt_request_id": "x", "pvt_vsn": "2"}),
    "deleted": (FREE, {"_id": ADDRESS, "_deleted": True}),
    "deleted while assigned, which Kazoo does": (TAKEN, {"_id": ADDRESS, "_deleted": True}),
    "deleted softly": (FREE, {**FREE, "pvt_deleted": True}),
    "begun anew": ({"_id": ADDRESS, "_deleted": True}, {**FREE, "pvt_created": 1}),
    "something else": (None, {"_id": "note", "text": "no address"}),
    "changed back in time, as when a claim is given back": (FREE, {**FREE, "pvt_modified": 5}),
    "withdrawn": (
        TAKEN,
        {"_id": ADDRESS, "_deleted": True, "pvt_withdrawn": {"base": "1-a", "document": FREE}},
    ),
    "brought back": (
        {"_id": ADDRESS, "_deleted": True, "pvt_withdrawn": {"base": "1-a", "document": FREE}},
        FREE,
    ),
    **{
        f"an address: {good}": (None, kazoo_document(good))
        for good in (
            "192.0.2.1", "2001:db8::", "2001:DB8::A", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8%eth0",
            "::ffff:192.0.2.1", "::ffff:c000:201", "1:2:3:4:5:6:192.0.2.1", "10.0.0.1",
            "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "fec0::1", "223.255.255.255",
            "::1:0:0", "64:ff9b::192.0.2.1",
        )
    },
}  # fmt: skip

BROKEN: dict[str, dict[str, Any]] = {
    "assigned to nobody": {**FREE, "pvt_status": "assigned"},
    "a status in another case": {**FREE, "pvt_status": "Reserved"},
    "no zone": without(FREE, "pvt_zone"),
    "no times": without(FREE, "pvt_created", "pvt_modified"),
    "a zone in a list": {**FREE, "pvt_zone": ["us-east"]},
    "no address": kazoo_document("junk"),
    "an address that no proxy can have": kazoo_document("127.0.0.1"),
}
"""Documents that were invalid before the guard was installed. A client may write them if it does
not change the invalid fields."""
