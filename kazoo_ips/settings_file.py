"""Runs a command with settings of a file: `python -m kazoo_ips.settings_file FILE COMMAND ...`."""

import sys

from kazoo_ips.server.settings_file import main

if __name__ == "__main__":
    main(sys.argv[1:])
