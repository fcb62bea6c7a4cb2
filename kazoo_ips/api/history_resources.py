"""Holders and tenures as JSON resources (`services/history/json_objects.py`)."""

from marshmallow import fields

from kazoo_ips.api import examples
from kazoo_ips.api.event_resources import AT, AuthorSchema, iso_time, member, optional
from kazoo_ips.api.resources import ReplySchema


class HolderSchema(ReplySchema):
    """Who had an address at a time."""

    ip = fields.String(**member("IP address, in its canonical form", examples.ASSIGNED[0]))
    status = fields.String(
        **optional(
            "Status at that time; `deleted` if the address had been deleted; missing if it is not "
            "known, as before the address was created",
            "assigned",
        )
    )
    account_id = fields.String(**optional("Account that had the address", examples.ACCOUNT_ID))
    account_name = fields.String(**optional("Present name of this account"))
    since = fields.Integer(**optional("When this state began, in Gregorian seconds", AT))
    since_iso_8601 = fields.String(**iso_time())
    until = fields.Integer(**optional("When this state ended, in Gregorian seconds", AT))
    until_iso_8601 = fields.String(**iso_time())
    certain = fields.Boolean(**member("Whether status and account are known, and not inferred"))
    by = fields.Nested(
        AuthorSchema, **member("Who made the change that began it; empty if unknown")
    )
    request_id = fields.String(**optional("Request that made the change that began it"))


class TenureAuthorSchema(ReplySchema):
    """The author of an assignment or a release, if the account itself is the author."""

    account_id = fields.String(**member("The account", examples.ACCOUNT_ID))
    user_id = fields.String(**optional("User of the account"))
    request_id = fields.String(**optional("The request"))


class TenureListItemSchema(ReplySchema):
    """The time in which an account had an address."""

    ip = fields.String(**member("IP address, in its canonical form", examples.ASSIGNED[0]))
    zone = fields.String(**member("Zone of the address", examples.ZONE))
    host = fields.String(**member("Host of the address", examples.HOST))
    since = fields.Integer(**optional("When the account got it; missing if unknown", AT))
    since_iso_8601 = fields.String(**iso_time())
    until = fields.Integer(
        **optional("When the account lost it; missing if the account still has it", AT)
    )
    until_iso_8601 = fields.String(**iso_time())
    certain = fields.Boolean(**member("Whether both times are known, and not inferred"))
    assigned_by = fields.Nested(
        TenureAuthorSchema, **optional("Who assigned it; missing unless the account itself did")
    )
    released_by = fields.Nested(
        TenureAuthorSchema, **optional("Who released it; missing unless the account itself did")
    )


TENURES = TenureListItemSchema(many=True)
YEARS = fields.List(
    fields.Integer(), metadata={"title": "YearList", "examples": [[int(examples.YEAR)]]}
)
"""Years in ascending order."""
