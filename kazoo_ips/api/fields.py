"""marshmallow fields with the error texts of Crossbar (`kz_json_schema.erl`)."""

import base64
import json
import math
import re
from collections.abc import Callable
from typing import Any

from marshmallow import ValidationError, fields

from kazoo_ips.model import addresses, names
from kazoo_ips.model.timelines import EventPosition
from kazoo_ips.services.history import times

MAX_ADDRESSES = 1000
"""The maximum number of addresses in one request."""

LABEL_KEY = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$")
"""The pattern of the key of a label: at most 63 characters, and no colon."""
_HIGHEST = 999_999_999
# Client generators ignore the keywords after `type`, so generated clients have a string.
_AN_ADDRESS = {
    "type": "string",
    "if": {"pattern": ":"},
    "then": {"format": "ipv6"},
    "else": {"format": "ipv4"},
}
_USABLE = {
    # Without 0/8, 127/8, 169.254/16 and 224/3.
    "ipv4": r"^(?!0\.|127\.|169\.254\.|22[4-9]\.|2[3-5][0-9]\.)",
    # Without fe80::/10, ff00::/8 and ::/96. The service refuses unusable IPv4-mapped ones as well.
    "ipv6": r"^(?!([Ff][Ee][89ABab][0-9A-Fa-f]|[Ff]{2}[0-9A-Fa-f]{2}):"
    r"|[0:]*([0-9A-Fa-f]{1,4}:)?[0-9A-Fa-f]{0,4}$|[0:]*[0-9]+\.)",
}
"""Patterns of the addresses that proxies can have, for each format."""
_A_USABLE_ADDRESS = {
    **_AN_ADDRESS,
    "then": {"format": "ipv6", "pattern": _USABLE["ipv6"]},
    "else": {"format": "ipv4", "pattern": _USABLE["ipv4"]},
}
_DIGITS = re.compile(r"[0-9]{1,9}")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def broken(rule: str, message: str, **more: Any) -> ValidationError:
    """Return an error for one broken rule, in Crossbar's form.

    :param rule: the name of the rule, for example `minLength`
    :param more: details, for example the limit (`target`) and the value that was sent (`value`)
    """
    return ValidationError({rule: {"message": message, **more}})


class Field(fields.Field[Any]):
    """A field with Crossbar's error texts."""

    type_name = "string"

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        """Return the error for a missing value or a null. marshmallow detects only these two."""
        if key == "required":
            return broken("required", "Field is required but missing", value=self.name)
        return self.wrong_type(None)

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": self.type_name}

    def wrong_type(self, value: Any) -> ValidationError:
        """Return the error for a value of another type."""
        return broken(
            "type",
            f"Value did not match type(s): {self.type_name}",
            target=self.type_name,
            value=value,
        )


class Text(Field):
    """A string, with limits of its length or a list of the values that are allowed."""

    def __init__(
        self, least: int = 1, most: int | None = None, one_of: tuple[str, ...] = (), **more: Any
    ) -> None:
        super().__init__(**more)
        self._least, self._most, self._one_of = least, most, one_of

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        rules = {
            "minLength": self._least or None,
            "maxLength": self._most,
            "enum": list(self._one_of) or None,
        }
        return {"type": "string", **{k: v for k, v in rules.items() if v is not None}}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong_type(value)
        if self._one_of and value not in self._one_of:
            raise broken(
                "enum", "Value not found in enumerated list", target=self._one_of, value=value
            )
        if len(value) < self._least:
            raise broken(
                "minLength",
                f"String must be at least {self._least} characters",
                target=self._least,
                cause=value,
                value=value,
            )
        if self._most is not None and len(value) > self._most:
            raise broken(
                "maxLength",
                f"String must not be more than {self._most} characters",
                target=self._most,
                cause=value,
                value=value,
            )
        return value


class Name(Text):
    """The name of a zone or host, or other text of one line."""

    def __init__(self, most: int = names.MAX_LENGTH, **more: Any) -> None:
        super().__init__(most=most, **more)

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {**super().json_schema(), "pattern": names.PATTERN}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        name = super()._deserialize(value, *args, **kwargs)
        problem = names.problem(name)
        if problem:
            raise broken(
                "pattern",
                f"Failed to match pattern '{names.PATTERN}'",
                target=names.PATTERN,
                cause=problem,
                value=value,
            )
        return name


class Note(Text):
    """A text of several lines, without characters that terminals act on or that hide text."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {**super().json_schema(), "pattern": names.NOTE_PATTERN}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        note = super()._deserialize(value, *args, **kwargs)
        problem = names.note_problem(note)
        if problem:
            raise _mismatch(names.NOTE_PATTERN, value, cause=problem)
        return note


class Labels(Field):
    """The labels of an address that a request changes: a value, or null, for each key."""

    type_name = "object"

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        value = {
            "type": ["string", "null"],
            "maxLength": names.MAX_LENGTH,
            "pattern": names.PATTERN,
        }
        return {
            "type": "object",
            "propertyNames": {"pattern": LABEL_KEY.pattern},
            "additionalProperties": value,
        }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str | None]:
        if not isinstance(value, dict):
            raise self.wrong_type(value)
        errors: dict[str, Any] = {}
        for key, label in value.items():
            if not LABEL_KEY.fullmatch(key):
                errors[key] = _mismatch(LABEL_KEY.pattern, key).messages
            elif not isinstance(label, str | None):
                errors[key] = Text().wrong_type(label).messages
            elif label is not None and (problem := names.problem(label)):
                errors[key] = _mismatch(names.PATTERN, label, cause=problem).messages
        if errors:
            raise ValidationError(errors)
        return dict(value)


class Label(Field):
    """A label in a query: `key:value`."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": "string", "pattern": "^[^:]+:.+$"}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        key, _colon, label = value.partition(":")
        if not (LABEL_KEY.fullmatch(key) and label):
            raise broken("wrong_format", "Field is not in the correct format", value=value)
        return str(value)


def _mismatch(pattern: str, value: str, **more: Any) -> ValidationError:
    text = f"Failed to match pattern '{pattern}'"
    return broken("pattern", text, target=pattern, value=value, **more)


class Number(Field):
    """An integer that is not negative, in a query or a body. By default it is positive."""

    type_name = "integer"

    def __init__(self, most: int | None = None, least: int = 1, **more: Any) -> None:
        super().__init__(**more)
        self._least, self._most = least, most

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema. A query has the digits as a string."""
        return {"type": "integer", "minimum": self._least, "maximum": self._most or _HIGHEST}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        number = value
        if isinstance(value, str) and _DIGITS.fullmatch(value):  # in a query
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool):
            raise self.wrong_type(value)
        if number < self._least:
            least = self._least
            raise broken("minimum", f"Value must be at least {least}", target=least, value=number)
        most = self._most or _HIGHEST
        if number > most:
            raise broken("maximum", f"Value must be at most {most}", target=most, value=number)
        return number


class Flag(Field):
    """A boolean, in a query or a body.

    :param blank: whether an empty text means false
    """

    type_name = "boolean"

    def __init__(self, *, blank: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self._words = {**_WORDS, "": False} if blank else _WORDS

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        word = str(value).lower()
        if word not in self._words:
            raise self.wrong_type(value)
        return self._words[word]


class Address(Field):
    """An IPv4 or IPv6 address that a proxy can have, in any spelling.

    Its value is the canonical form.
    """

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        """Return the error for a missing value, or for a null, which is not an address."""
        return super().make_error(key, **kwargs) if key == "required" else _not_an_address(None)

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return dict(_A_USABLE_ADDRESS)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        canonical = addresses.canonical(value)
        if canonical is None:
            raise _not_an_address(value)
        unusable = addresses.unusable(canonical)
        if unusable:
            raise _not_an_address(value, cause=unusable)
        return canonical


class Network(Field):
    """A CIDR block of any size, or one address. Its value is a range of sort keys."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]+)?$"}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, str]:
        try:
            return addresses.parse_network(value).sort_keys
        except ValueError as error:
            raise _not_an_address(value, cause=str(error)) from error


class Family(Field):
    """A version of IP addresses, 4 or 6, in a query. Its value is a range of sort keys."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema. A query has the digit as a string."""
        return {"type": "integer", "enum": [4, 6]}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, str]:
        if value not in ("4", "6"):
            raise broken("enum", "Value not found in enumerated list", target=[4, 6], value=value)
        return value, f"{value}g"  # g comes after the hexadecimal digits


class Time(Field):
    """A time in a query, in Gregorian seconds or ISO 8601. Its value is in Gregorian seconds.

    Without an offset, ISO 8601 is in UTC.

    :param rounding: makes whole seconds of a time with a fraction
    """

    def __init__(self, rounding: Callable[[float], int] = math.ceil, **more: Any) -> None:
        super().__init__(**more)
        self._rounding = rounding

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema. A date without a time is accepted too."""
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": times.LATEST},
                {"type": "string", "format": "date-time"},
            ]
        }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        try:
            return times.parse(value, self._rounding)
        except ValueError:
            cause = f"{times.NEITHER} (in a URL, + is %2B)"
            raise broken(
                "wrong_format", "Field is not in the correct format", cause=cause, value=value
            ) from None


class Addresses(Field):
    """A list of different addresses. Its value keeps the spellings of the request."""

    type_name = "array"

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {
            "type": "array",
            "items": {"description": "IP address", **_AN_ADDRESS},
            "minItems": 1,
            "maxItems": MAX_ADDRESSES,
            "uniqueItems": True,
        }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        _check_length(self, value)
        errors, seen = {}, set()
        for index, item in enumerate(value):
            canonical = addresses.canonical(item)
            if canonical is None:
                errors[index] = _not_an_address(item).messages
            elif canonical in seen:
                errors[index] = repeated(item).messages
            seen.add(canonical)
        if errors:
            raise ValidationError(errors)
        return tuple(value)


class Items(Field):
    """A list of one to `MAX_ADDRESSES` items of any type."""

    type_name = "array"

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": "array", "minItems": 1, "maxItems": MAX_ADDRESSES}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        _check_length(self, value)
        return list(value)


class _Key(Field):
    """A `start_key`: the `next_start_key` of the previous page, which is opaque to clients."""

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {"type": "string", "minLength": 1}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        try:
            parts = json.loads(base64.urlsafe_b64decode(value.encode()))
            position = self._position(*parts)
            if position is not None:
                json.dumps(parts, ensure_ascii=False).encode()  # CouchDB refuses lone surrogates
                return position
        except (TypeError, ValueError, RecursionError):
            pass
        raise broken("wrong_format", "Field is not in the correct format", value=value)

    def _position(self, *parts: Any) -> Any:
        """Return the position that the parts of a key name; None if they name none.

        :raises TypeError: the key has more or fewer parts
        """
        raise NotImplementedError


class StartKey(_Key):
    """The key of a list of addresses.

    The fourth part, the account, is only in a list of several accounts.
    """

    def _position(self, zone: Any, order: Any, last: Any, *account: Any) -> Any:
        parts = (zone, order, last, *account)
        is_valid = all(isinstance(part, str) for part in parts) and len(account) <= 1
        return parts if is_valid else None


class EventKey(_Key):
    """The key of a list of events."""

    def _position(self, at: Any, generation: Any, last: Any) -> EventPosition | None:
        is_valid = all(type(n) is int and 0 <= n <= times.LATEST for n in (at, generation))
        return EventPosition(at, generation, str(last)) if is_valid else None


class NameKey(_Key):
    """The key of a list of names."""

    def _position(self, name: Any) -> str | None:
        return name if isinstance(name, str) else None


class JobKey(_Key):
    """The key of the addresses of a job."""

    def _position(self, part: Any, index: Any) -> tuple[int, int] | None:
        is_valid = all(type(n) is int and 0 <= n <= _HIGHEST for n in (part, index))
        return (part, index) if is_valid else None


class ShortListKey(_Key):
    """The key of a list that is read as a whole: the number that orders it, and an id."""

    def _position(self, number: Any, id_: Any) -> tuple[int, str] | None:
        return (number, id_) if type(number) is int and isinstance(id_, str) else None


def _check_length(field: Field, value: Any) -> None:
    if not isinstance(value, list):
        raise field.wrong_type(value)
    if not value:
        raise broken("minItems", "The list must have at least 1 items", target=1, value=value)
    if len(value) > MAX_ADDRESSES:
        raise broken(
            "maxItems",
            f"The list must have at most {MAX_ADDRESSES} items",
            target=MAX_ADDRESSES,
            value=len(value),
        )


def repeated(item: Any) -> ValidationError:
    """Return the error for an item that occurs a second time in a list."""
    return broken("uniqueItems", "List of items is not unique", value=item)


def _not_an_address(value: Any, **more: Any) -> ValidationError:
    return broken("not_one_schema_valid", "failed to validate", value=value, **more)


def start_key(after: tuple[object, ...]) -> str:
    """Return the `next_start_key` of a page that is not the last, safe in a URL."""
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode()
