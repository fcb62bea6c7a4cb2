"""Edits of an address, and the guard's reason: old document, new document, reason."""

from typing import Any

from tests.api.couchdb import kazoo_document
from tests.strategies import UNUSABLE

ADDRESS = "192.0.2.1"
ALICE, BOB = "a" * 32, "b" * 32
FREE = kazoo_document(ADDRESS)
TAKEN = kazoo_document(ADDRESS, owner=ALICE)

Case = tuple[dict[str, Any] | None, dict[str, Any], str]


def without(document: dict[str, Any], *fields: str) -> dict[str, Any]:
    """Return a document without these fields."""
    return {k: v for k, v in document.items() if k not in fields}


TIME = "must be a time in Gregorian seconds"
STATUS = "pvt_status must be a word in lower case"
NO_OWNER = "an assigned address needs the id of an account in pvt_assigned_to"
OWNER = "an available address must not have pvt_assigned_to"
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
    "given a status of a newer release": (TAKEN, {**FREE, "pvt_status": "aging"}),
    "added with a status of a newer release": (None, {**FREE, "pvt_status": "reserved"}),
    "of another status and still an account's": (TAKEN, {**TAKEN, "pvt_status": "suspended"}),
    "back from a status of a newer release": ({**FREE, "pvt_status": "aging"}, FREE),
    "assigned from a status of a newer release": ({**FREE, "pvt_status": "reserved"}, TAKEN),
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
"""Documents from before there was a guard: whoever does not touch what is wrong may write them."""
