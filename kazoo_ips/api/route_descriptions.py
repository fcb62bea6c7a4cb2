"""The description of a route, from which `openapi.py` generates the OpenAPI description."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from marshmallow import Schema, fields

from kazoo_ips.api.schemas import DryRunSchema

JSON, CSV, HTML = "application/json", "text/csv", "text/html"
NDJSON = "application/x-ndjson"
"""One JSON object a line."""
ANY = "*/*"
"""The media type of a reply that does not depend on the Accept header."""

Shape = Schema | fields.Field[Any] | tuple[Schema, ...]
"""The form of a reply's `data`: a schema (one resource or many), a field, or one of several
schemas."""


class Who(Enum):
    """Who may call a route."""

    ANYONE = "anyone"
    OPERATOR = "the operator"
    BETWEEN = "the operator, and an account above `from` and `to`, or one of them above the other"
    ACCOUNT = "the account in the path, those above it, and the operator"
    ABOVE = "the accounts above the account in the path, and the operator"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    :param replies: the form of `data` in a successful reply; None for a reply without an envelope
    :param status: the HTTP status of a successful reply
    :param media: the media type of a successful reply
    :param media_types: the media types of a reply whose `media` is `ANY`
    :param csv: whether the reply can also be CSV
    :param page: whether the reply can also be a page for a browser
    :param more_media: further media types of the reply
    :param more_members: JSON schemas of further members of the envelope of the reply
    :param query: the schema of the query, without `dry_run`
    :param body: the schemas of which `data` in the body must match one; empty if the route needs
        no data
    :param ignores_body: whether members of a body that the route does not need are ignored, as in
        Crossbar; otherwise unknown ones are refused
    :param body_name: the name of the body in generated clients; empty for the joined names of its
        schemas. It keeps the name when another schema is added
    :param optional_body: whether the body may be missing
    :param if_match: whether the route reads If-Match
    :param dry_run: whether the route, a write, supports dry runs
    :param operation_id: the name of its method in generated clients; empty for the handler's name
    :param examples: examples of its path parameters, if they differ between routes
    :param links: the `operation_id` of each operation whose path parameters the reply contains
    :param raises: the errors that this route can raise, without those that every route can raise
    """

    method: str
    who: Who
    summary: str
    replies: Shape | None
    status: int = 200
    media: str = JSON
    media_types: tuple[str, ...] = ()
    csv: bool = False
    page: bool = False
    more_media: tuple[str, ...] = ()
    more_members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    query: type[Schema] | None = None
    body: tuple[type[Schema], ...] = ()
    ignores_body: bool = False
    body_name: str = ""
    optional_body: bool = False
    if_match: bool = False
    dry_run: bool = False
    operation_id: str = ""
    examples: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    raises: tuple[type[Exception], ...] = ()

    @property
    def parameters(self) -> tuple[type[Schema], ...]:
        """The schemas of the parameters that the route knows.

        The OpenAPI description shows them, and a request with other parameters is refused.
        """
        return (*([self.query] if self.query else []), *([DryRunSchema] if self.dry_run else []))

    @cached_property
    def offered(self) -> tuple[str, ...]:
        """The media types that a successful reply can have."""
        csv, page = [CSV] if self.csv else [], [HTML] if self.page else []
        return (self.media, *csv, *page, *self.more_media)

    @property
    def is_write(self) -> bool:
        """Whether the route accepts an Idempotency-Key."""
        return self.method != "GET" and self.who is not Who.ANYONE
