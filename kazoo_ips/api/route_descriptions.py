"""What a route tells of itself, beside its handler, for the description in `openapi.py`.

It is read once, when somebody asks for the description, and by tests; no request looks at it.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from marshmallow import Schema, fields

JSON, CSV = "application/json", "text/csv"
ANY = "*/*"
"""Of what every caller gets, whatever it accepts."""

Shape = Schema | fields.Field[Any] | tuple[Schema, ...]
"""The form of a reply's `data`: a resource, many of them, one field's, or one of several."""


class Who(Enum):
    """Who may call a route."""

    ANYONE = "anyone"
    OPERATOR = "the operator"
    ACCOUNT = "the account in the path, those above it, and the operator"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    :param replies: the form of a success's `data`; None: the reply is a file, in no envelope
    :param status: of a success
    :param media: of a success
    :param csv: whether the reply can be CSV as well
    :param query: the schema of the query
    :param body: the schemas of the body's `data`, one of which it fits; empty: it is ignored
    :param optional_body: whether the body may be missing
    :param if_match: whether If-Match is looked at
    :param dry_run: of what is no GET: whether it can be asked what it would do
    :param raises: what goes wrong here and not in every route
    """

    method: str
    who: Who
    summary: str
    replies: Shape | None
    status: int = 200
    media: str = JSON
    csv: bool = False
    query: type[Schema] | None = None
    body: tuple[type[Schema], ...] = ()
    optional_body: bool = False
    if_match: bool = False
    dry_run: bool = False
    raises: tuple[type[Exception], ...] = ()

    @cached_property
    def offered(self) -> tuple[str, ...]:
        """The media types that a success can have."""
        return (self.media, CSV) if self.csv else (self.media,)

    @property
    def is_write(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return self.method != "GET" and self.who is not Who.ANYONE
