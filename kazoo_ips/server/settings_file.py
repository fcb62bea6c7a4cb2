"""Run a command with the settings of a file.

    python -m kazoo_ips.settings_file FILE COMMAND [ARGUMENT...]

The file has lines `NAME=value`, in the format of systemd's EnvironmentFile: comments begin with #
or ;, and a value may be quoted. Variables are not expanded, so a password may contain any
character.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kazoo_ips import error_texts
from kazoo_ips.config import BadSetting

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read(path: Path) -> dict[str, str]:
    """Return the settings of a file by name.

    :raises BadSetting: the file cannot be read, or a line is malformed; the message does not quote
        the line, which may contain a password
    """
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise BadSetting(f"{path}, line {number}: not UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadSetting(f"{path}: {error_texts.of_os_error(error)}") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] in "#;":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadSetting(f"{path}, line {number}: not NAME=value")
        name, value = match[1], match[2].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the command. Settings in the file override the environment."""
    file, *command = arguments or [""]
    if not command:
        sys.exit("usage: python -m kazoo_ips.settings_file FILE COMMAND [ARGUMENT...]")
    try:
        os.execve(command[0], command, {**os.environ, **read(Path(file))})
    except BadSetting as error:
        sys.exit(str(error))
    except (OSError, ValueError) as error:  # ValueError: a NUL in a setting
        sys.exit(f"{command[0]}: {error_texts.of_os_error(error)}")


if __name__ == "__main__":
    main(sys.argv[1:])
