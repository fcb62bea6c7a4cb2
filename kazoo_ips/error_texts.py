"""The words for input that the standard library refuses. Clients and operators read only these.

The texts of Python's own exceptions name functions, codecs and limits of Python. No module shows
them; a test looks for them in whatever the service and the commands answer to bad input.
"""

import os
from json import JSONDecodeError


def of_os_error(error: BaseException) -> str:
    """Say what the operating system refused, in its own words where it has any."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if type(error).__module__ == "ssl":  # its numbers are not those of the operating system
        reason = str(getattr(error, "reason", None) or "no handshake").replace("_", " ").lower()
        return f"TLS failed: {getattr(error, 'verify_message', None) or reason}"
    number = getattr(error, "errno", None)
    if number is None or number <= 0:  # negative numbers are the resolver's
        return "the name is unknown" if number else "it cannot be used"
    return os.strerror(number)


def of_encoding(error: UnicodeDecodeError) -> str:
    """Say where bytes are not UTF-8, and which encoding they probably have.

    :param error: as decoding a whole line or body has raised it
    """
    raw = error.object
    before = raw[: error.start].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    is_one_line = b"\n" not in raw.rstrip(b"\r\n")
    place = f"column {column}" if is_one_line else f"line {line}, column {column}"
    likely = _likely_encoding(raw)
    probably = f"; probably it is {likely}" if likely else ""
    return f"not UTF-8: byte 0x{raw[error.start]:02x} in {place}{probably}"


def _likely_encoding(raw: bytes) -> str:
    if b"\0" in raw:
        return "UTF-16"
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "Windows-1252"


def of_json(error: ValueError | RecursionError) -> str:
    """Say why a text is not JSON.

    :param error: as decoding, parsing or encoding has raised it
    """
    match error:
        case UnicodeDecodeError():
            return of_encoding(error)
        case UnicodeEncodeError():
            return "a string has half of a surrogate pair"
        case JSONDecodeError():
            return f"not JSON: line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "nested too deeply"
    return "a number has too many digits, or is beyond all numbers of JSON"
