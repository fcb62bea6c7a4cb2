"""Kazoo's design document of the pool, `_design/dedicated_ips`, for comparison.

It has views with the behaviour of those of Kazoo 4.3 (`core/kazoo_ips`): five views that skip
documents of other types. Two of them, which list names, have a reduce function in JavaScript.
"""


def _map(condition: str, emit: str) -> str:
    return (
        "function (doc) { "
        f"if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted{condition}) return; {emit}; }}"
    )


_IP_AND_ZONE = "{ip: doc._id, zone: doc.pvt_zone}"
_SUMMARY = (
    "{ip: doc._id, zone: doc.pvt_zone, host: doc.pvt_host, status: doc.pvt_status, "
    "assigned_to: doc.pvt_assigned_to || ''}"
)
_NAMES_ONLY = "function (keys, values) { return true; }"

DESIGN = {
    "_id": "_design/dedicated_ips",
    "language": "javascript",
    "views": {
        "available_listing": {
            "map": _map(
                " || doc.pvt_status !== 'available'", f"emit(doc.pvt_zone, {_IP_AND_ZONE})"
            )
        },
        "assigned_to_listing": {
            "map": _map(
                " || doc.pvt_status !== 'assigned'", f"emit(doc.pvt_assigned_to, {_IP_AND_ZONE})"
            )
        },
        "zone_listing": {"map": _map("", "emit(doc.pvt_zone, null)"), "reduce": _NAMES_ONLY},
        "host_listing": {"map": _map("", "emit(doc.pvt_host, null)"), "reduce": _NAMES_ONLY},
        "summary_listing": {"map": _map("", f"emit(doc.pvt_host, {_SUMMARY})")},
    },
}
