"""Names of zones and hosts, and notes: validation, and escaping for output."""

import re
import unicodedata
from functools import lru_cache

MAX_LENGTH = 255
"""Maximum number of characters of a name."""

_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format, half of a surrogate pair, line and paragraph separator."""

_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""Characters of other categories that are invisible: those with Unicode's property
Default_Ignorable_Code_Point, and the blank of Braille. Two names that differ only in such
characters look the same."""

_FORBIDDEN_RANGES = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    r"\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
"""The characters of these categories, and those of `_INVISIBLE`, up to U+FFFF, for regular
expressions."""

PATTERN = rf"^[^\s{_FORBIDDEN_RANGES}]([^{_FORBIDDEN_RANGES}]*[^\s{_FORBIDDEN_RANGES}])?$"
"""The pattern of a name, for JSON Schema. `problem` checks characters beyond U+FFFF as well."""


@lru_cache(maxsize=1024)
def problem(name: str) -> str | None:
    """Return why the name of a zone or host is invalid, as a clause; None if it is valid.

    >>> problem("us-east")
    >>> problem("us\\u202eeast")
    'has the control or format character U+202E'
    """
    if not name:
        return "is empty"
    for character in name:
        if unicodedata.category(character) in _FORBIDDEN:
            return f"has the control or format character U+{ord(character):04X}"
        if character in _INVISIBLE:
            return f"has the invisible character U+{ord(character):04X}"
    if name != name.strip():
        return "begins or ends with a blank"
    return f"is longer than {MAX_LENGTH} characters" if len(name) > MAX_LENGTH else None


_HARMFUL_RANGES = (
    r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e"
    r"\u2066-\u2069\ufeff"
)
"""The control characters besides tab, line feed and carriage return, and the format characters
that change the direction or the lines of a text. Notes may have other format characters, which
emoji and some scripts need."""
_HARMFUL = re.compile(f"[{_HARMFUL_RANGES}]")
NOTE_PATTERN = f"^[^{_HARMFUL_RANGES}]*$"
"""The pattern of a note, for JSON Schema."""
_TAG_OR_TEXT = re.compile("<[^>]*>|[^<]+")


def note_problem(note: str) -> str | None:
    """Return why a note is invalid, as a clause; None if it is valid. It may have several lines.

    >>> note_problem("moves in May\\nback in June")
    >>> note_problem("moves\\x07")
    'has the control or format character U+0007'
    """
    found = _HARMFUL.search(note)
    return f"has the control or format character U+{ord(found[0]):04X}" if found else None


def visible_page(page: str) -> str:
    """Return a web page with the harmful characters of its text escaped.

    Attributes are not changed, so that a form sends the name that the database has.

    >>> visible_page("<b title='us\\x07'>us\\x07</b>") == "<b title='us\\x07'>us\\\\x07</b>"
    True
    """
    if not _HARMFUL.search(page):  # the common case
        return page
    return _TAG_OR_TEXT.sub(
        lambda part: part[0] if part[0][0] == "<" else _HARMFUL.sub(_escaped, part[0]), page
    )


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def printable(text: str, keep: str = "") -> str:
    """Return a text with each character escaped that a terminal or a spreadsheet may act on.

    :param keep: characters not to escape, because the format of the output quotes them

    >>> printable("us\\u001b[31m\\u202eeast")
    'us\\\\x1b[31m\\\\u202eeast'
    """
    if text.isprintable():  # the common case
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


_FORMULA = re.compile("(?:^|(?<=[;\t\r\n]))(?=[\t\r\n]|\\s*[=+@\uff1d\uff0b\uff20\uff0d-])")
"""The places before text that a spreadsheet may take for a formula: at the beginning of a cell,
and after characters at which it may split a cell (in some languages it expects semicolons). Blanks
may precede the sign, and the sign may have full width."""


def csv_cell(cell: str) -> str:
    """Return a cell of CSV without characters that a terminal or a spreadsheet would act on.

    Control and format characters are escaped. A formula is prefixed with an apostrophe. Usual
    names of zones and hosts do not change.

    >>> csv_cell("=1+1")
    "'=1+1"
    """
    if cell[:1].isalnum() and ";" not in cell and cell.isprintable():  # the common case
        return cell
    return _FORMULA.sub("'", printable(cell, keep="\t\r\n"))
