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
    account_name = fields.String(**optional("Name that this account has now"))
    since = fields.Integer(**optional("When that began, in Gregorian seconds", AT))
    since_iso_8601 = fields.String(**iso_time())
    until = fields.Integer(**optional("When that ended, in Gregorian seconds", AT))
    until_iso_8601 = fields.String(**iso_time())
    certain = fields.Boolean(**member("Whether status and account are known, and not inferred"))
    by = fields.Nested(AuthorSchema, **member("Who has made that change; empty if not known"))
    request_id = fields.String(**optional("Request that has made that change"))


class TenureAuthorSchema(ReplySchema):
    """Who of the account itself has assigned or released an address."""

    account_id = fields.String(**member("The account", examples.ACCOUNT_ID))
    user_id = fields.String(**optional("User of the account"))
    request_id = fields.String(**optional("The request"))


class TenureListItemSchema(ReplySchema):
    """The time in which an account had an address."""

    ip = fields.String(**member("IP address, in its canonical form", examples.ASSIGNED[0]))
    zone = fields.String(**member("Zone of the address", examples.ZONE))
    host = fields.String(**member("Host of the address", examples.HOST))
    since = fields.Integer(**optional("When it began; missing if that is not known", AT))
    since_iso_8601 = fields.String(**iso_time())
    until = fields.Integer(**optional("When it ended; missing if it has not", AT))
    until_iso_8601 = fields.String(**iso_time())
    certain = fields.Boolean(**member("Whether both times are known, and not inferred"))
    assigned_by = fields.Nested(
        TenureAuthorSchema, **optional("Missing unless the account itself has assigned it")
    )
    released_by = fields.Nested(
        TenureAuthorSchema, **optional("Missing unless the account itself has released it")
    )


TENURES = TenureListItemSchema(many=True)
YEARS = fields.List(
    fields.Integer(), metadata={"title": "YearList", "examples": [[int(examples.YEAR)]]}
)
"""Years in ascending order."""
