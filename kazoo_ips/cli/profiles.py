"""The file of profiles: services at URLs, each with the token of the last login.

The file is `kazoo-ips/profiles.ini` in XDG_CONFIG_HOME, or else in `~/.config`. Only its owner can
read it, because tokens are secrets.
"""

import configparser
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from kazoo_ips import error_texts
from kazoo_ips.config import BadSetting
from kazoo_ips.remote.client import Service

DEFAULT = "default"
_NAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True, slots=True)
class Profile:
    """A service, and the account that the token is for.

    :param account: the name of the account
    :param account_id: its id
    """

    url: str
    token: str = field(default="", repr=False)
    account: str = ""
    account_id: str = ""
    ca_file: str = ""

    def service(self) -> Service:
        """Return the service, with the token."""
        return Service(self.url, self.token, self.ca_file or None)


def path() -> Path:
    """Return the path of the file, which does not have to exist."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(folder) / "kazoo-ips" / "profiles.ini"


def check_name(name: str) -> None:
    """Check the name of a profile.

    :raises BadSetting: it has other characters than letters, digits, `_`, `.`, `@` and `-`
    """
    if not _NAME.fullmatch(name):
        raise BadSetting(
            f"{name!r} is not a valid name of a profile: use letters, digits, _ . @ and -"
        )


def load() -> dict[str, Profile]:
    """Return all profiles by name, in the order of the file.

    :raises BadSetting: the file cannot be read, others than its owner can read it, or its content
        is not as this module writes it
    """
    file = path()
    try:
        with file.open(encoding="utf-8") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise BadSetting(f"{file}: others can read the tokens in it; run chmod 600 {file}")
            parser = _parser()
            parser.read_file(opened)
    except FileNotFoundError:
        return {}
    except OSError as error:
        reason = error_texts.of_os_error(error)
        raise BadSetting(f"{file} cannot be read: {reason}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise BadSetting(f"{file} is not a file of profiles") from error
    names = [each.name for each in fields(Profile)]
    return {
        section: Profile(**{name: parser[section].get(name, "") for name in names})
        for section in parser.sections()
    }


def save(name: str, profile: Profile) -> None:
    """Write a profile to the file, in place of one with the same name.

    :raises BadSetting: the file cannot be read or written
    """
    check_name(name)
    _write({**load(), name: profile})


def remove(name: str) -> bool:
    """Remove a profile; return whether there was one.

    :raises BadSetting: the file cannot be read or written
    """
    profiles = load()
    found = profiles.pop(name, None) is not None
    if found:
        _write(profiles)
    return found


def _write(profiles: Mapping[str, Profile]) -> None:
    """Replace the file at once, so that no reader sees a part of it. Its mode is 0600."""
    parser = _parser()
    for name, profile in profiles.items():
        parser[name] = {key: value for key, value in asdict(profile).items() if value}
    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` creates the file with mode 0600.
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".profiles-")
        try:
            with open(descriptor, "w", encoding="utf-8") as opened:
                parser.write(opened)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        reason = error_texts.of_os_error(error)
        raise BadSetting(f"{file} cannot be written: {reason}") from error


def _parser() -> configparser.ConfigParser:
    # Without a section of defaults for all other sections, and without `%` as a special character.
    return configparser.ConfigParser(default_section="\n", interpolation=None)
