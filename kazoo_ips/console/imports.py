"""Adding addresses: one, a block, or a list in a file, with a preview of what would be added."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from typing import Any

from flask import g, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services, write
from kazoo_ips.console.pages import done, page, pages
from kazoo_ips.services.pool.address_lists import NoList, import_row, read_list
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome
from kazoo_ips.services.pool.imports import GOOD, ImportResult, ImportRow

MAX_BYTES = 1_000_000
"""Maximum length of a list. The page of the preview contains it."""
MAX_ADDRESSES = 20_000
"""Maximum number of addresses of a list. A longer one would take more than some seconds."""
_SHOWN = 200
"""Maximum number of addresses that the preview shows; those with a problem come first."""


@pages.on("GET", "/import", who=Who.OPERATOR)
def show_import() -> str:
    """The form to add addresses."""
    return page("import.html", given={}, zones=services().lists.zones())


@pages.on("POST", "/import", who=Who.OPERATOR)
def import_addresses() -> Any:
    """Show what adding these addresses would do; with confirmation, add them."""
    try:
        content = _content()
        results = _results(content)
    except NoList as error:
        given, zones = request.form, services().lists.zones()
        return page("import.html", given=given, zones=zones, problem=str(error)), 400
    counts = Counter(result.outcome for result in results)
    if not write()["dry_run"] and counts.keys() <= GOOD:
        return done(url_for("console.overview"), "imported")
    problems = [result for result in results if result.outcome not in GOOD]
    others = (result for result in results if result.outcome in GOOD)
    shown = list(islice((each for part in (problems, others) for each in part), _SHOWN))
    return page(
        "import_preview.html" if write()["dry_run"] else "import_result.html",
        counts=counts,
        to_add=counts[AdditionOutcome.WOULD_BE_ADDED],
        results=shown,
        more=len(results) - len(shown),
        problems=len(problems),
        content=base64.b64encode(content).decode(),
    )


def _content() -> bytes:
    """Return the list: of the preview, of the file, of the text, or of the fields for one block.

    :raises RequestEntityTooLarge: it is too long
    :raises NoList: the fields are incomplete
    """
    request.max_form_memory_size = 2 * MAX_BYTES
    form = request.form
    file = request.files.get("file")
    if form.get("content"):
        content = _decoded(form["content"])
    elif file and file.filename:
        content = file.read(MAX_BYTES + 1)
    else:
        content = form.get("text", "").encode()
    if len(content) > MAX_BYTES:
        raise RequestEntityTooLarge
    return content


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise NoList("the list of the preview is damaged; send it again") from error


def _results(content: bytes) -> list[ImportResult]:
    """Add the addresses of a list, or in a dry run find out what would be added.

    :raises NoList: it is no list, or has too many addresses
    """
    rows = list(_limited(_rows(content)))
    added = services().imports.add(rows, g.request_id, dry_run=write()["dry_run"])
    return [result for batch in added for result in batch]


def _rows(content: bytes) -> Iterable[ImportRow]:
    if content:
        return read_list(BytesIO(content))
    form = request.form
    given = [form.get(name, "").strip() for name in ("ip", "zone", "host")]
    return [import_row(given[0], given[1], given[2])]


def _limited(rows: Iterable[ImportRow]) -> Iterator[ImportRow]:
    count = 0
    for row in rows:
        count += len(row.block) if row.block else 1
        if count > MAX_ADDRESSES:
            text = f"more than {MAX_ADDRESSES} addresses; use the command kazoo-ips add"
            raise NoList(text)
        yield row
