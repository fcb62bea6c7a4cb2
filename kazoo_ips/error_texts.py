"""The error texts for input that the standard library refuses.

The texts of Python's exceptions name functions, codecs and limits of Python. Clients and operators
see the texts of this module instead. A test searches replies and output for texts of exceptions.
"""

import os
from json import JSONDecodeError


def of_os_error(error: BaseException) -> str:
    """Return the error of the operating system, by its own text if it has one."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if type(error).__module__ == "ssl":  # its numbers are not those of the operating system
        reason = str(getattr(error, "reason", None) or "no handshake").replace("_", " ").lower()
        return f"TLS failed: {getattr(error, 'verify_message', None) or reason}"
    number = getattr(error, "errno", None)
    if number is None or number <= 0:  # negative numbers are the resolver's
        return "the host name is unknown" if number else "it cannot be used"
    return os.strerror(number)


def of_encoding(error: UnicodeDecodeError) -> str:
    """Return a text that says where bytes are not UTF-8, and which encoding is likely.

    :param error: the error of decoding a whole line or body
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
    """Return a text that says why a text is not JSON.

    :param error: the error of decoding, parsing or encoding it
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
