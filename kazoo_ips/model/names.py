"""Names of zones and hosts: validation, and escaping for output."""

import unicodedata
from functools import lru_cache

MAX_LENGTH = 255
"""Maximum number of characters of a name."""

_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format, half of a surrogate pair, line and paragraph separator."""

_FORBIDDEN_RANGES = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
)
"""The characters of these categories up to U+FFFF, for regular expressions."""

PATTERN = rf"^[^\s{_FORBIDDEN_RANGES}]([^{_FORBIDDEN_RANGES}]*[^\s{_FORBIDDEN_RANGES}])?$"
"""The pattern of a name, for JSON Schema. `problem` checks characters beyond U+FFFF as well."""


@lru_cache(maxsize=1024)
def problem(name: str) -> str | None:
    """Return why the name of a zone or host is invalid, or None if it is valid.

    >>> problem("us-east")
    >>> problem("us\\u202eeast")
    'has the control or format character U+202E'
    """
    if not name:
        return "is empty"
    for character in name:
        if unicodedata.category(character) in _FORBIDDEN:
            return f"has the control or format character U+{ord(character):04X}"
    if name != name.strip():
        return "begins or ends with a blank"
    return f"is longer than {MAX_LENGTH} characters" if len(name) > MAX_LENGTH else None


def printable(text: str, keep: str = "") -> str:
    """Return a text with each character escaped that terminals and spreadsheets may act on.

    :param keep: characters that the format of the output quotes by itself

    >>> printable("us\\u001b[31m\\u202eeast")
    'us\\\\x1b[31m\\\\u202eeast'
    """
    if text.isprintable():  # the common case
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
