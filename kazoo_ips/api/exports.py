"""The export of the whole pool with its history, and its import."""

from typing import Any

import marshmallow
from flask import Response, g

from kazoo_ips.api import envelope, fields, lists, queries, schemas
from kazoo_ips.api.event_resources import member
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import CSV, NDJSON, Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import BadIdentifier, HistoryMissing
from kazoo_ips.services.pool import export_files
from kazoo_ips.services.pool.exports import Line, is_storable

routes = Routes("exports", __name__, url_prefix="/v2/ips")


@routes.on(
    "GET",
    "/export",
    who=Who.OPERATOR,
    replies=None,
    media=NDJSON,
    media_types=(NDJSON, CSV),
    csv=True,
    query=queries.ExportSchema,
    operation_id="export_pool",
)
def export() -> Response:
    """Everything: the addresses with all their fields, the events of the history, and settings.

    Each line is a JSON object; the last one says how many there are. `kazoo-ips import` stores
    them in an empty database. The reply is a stream of any length.
    """
    lines = services().exports.lines(history=g.query.get("history", True))
    if g.media == CSV:
        return lists.csv_reply(export_files.COLUMNS, map(export_files.to_csv, lines))
    return lists.ndjson_reply(lines, export_files.to_json)


class _Lines(fields.Items):
    """A list of lines of an export: all of the same type and the same year."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        line = {"type": "object", "required": ["type", "document"]}
        return {**super().json_schema(), "items": line}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Line]:
        lines = super()._deserialize(value, *args, **kwargs)
        for index, line in enumerate(lines):
            if not is_storable(line):
                text = f"the line with the index {index} is not a line of an export"
                raise fields.broken("not_one_schema_valid", text)
            if (line["type"], line.get("year")) != (lines[0]["type"], lines[0].get("year")):
                text = "all lines must have the same type and the same year"
                raise fields.broken("not_one_schema_valid", text)
        return lines


class RestoreSchema(schemas.RequestSchema):
    """`data` of an import: lines of an export."""

    lines = _Lines(
        required=True,
        metadata={
            "description": "Lines of an export, unchanged: all of the same type and year",
            "examples": [[{"type": "settings", "document": {"_id": "low_zones", "zones": {}}}]],
        },
    )


class RestoredSchema(ReplySchema):
    """The result of storing lines of an export."""

    counts = marshmallow.fields.Dict(
        keys=marshmallow.fields.String(),
        values=marshmallow.fields.Integer(),
        **member("Number of documents by outcome: `added`, `unchanged`, `different`, `failed`"),
    )
    different = marshmallow.fields.List(
        marshmallow.fields.String(),
        **member("Ids of documents that the database has with other content, and keeps"),
    )
    accounts_without_database = marshmallow.fields.List(
        marshmallow.fields.String(),
        **member("Accounts that have no database, so that their copies could not be written"),
    )


_RESTORE = RestoreSchema()


@routes.on(
    "POST",
    "/restore",
    who=Who.OPERATOR,
    replies=RestoredSchema(),
    body=(RestoreSchema,),
    dry_run=True,
    operation_id="restore_pool",
    raises=(BadIdentifier,),
)
def restore() -> Response:
    """Store lines of an export. Documents that the database has already are not changed.

    An address keeps the revision that it had. `kazoo-ips import` sends a whole export by requests
    of this kind. If the year has no database, and the service may not create one, the reply is a
    404 that names the year.
    """
    lines = schemas.load_strictly(_RESTORE, g.envelope.data(), g.envelope.other_members)["lines"]
    try:
        found = services().line_storage.store(lines, dry_run=write()["dry_run"])
    except HistoryMissing as error:
        raise BadIdentifier(str(lines[0]["year"])) from error
    return envelope.success(
        {
            "counts": dict(found.counts),
            "different": list(found.different),
            "accounts_without_database": list(found.without_copies),
        }
    )
