"""The command line: `python3 -m deploy [--root DIR] deploy WHEEL | rollback | undeploy`."""

import argparse
import os
import sys
from pathlib import Path

from deploy import actions
from deploy.host import Failed, Host, exclusive


def main() -> None:
    """Run one action. No other action runs at the same time. An error is printed in one line."""
    parser = argparse.ArgumentParser(prog="deploy")
    parser.add_argument("--root", type=Path, default=Path("/"))
    names = parser.add_subparsers(dest="action", required=True)
    names.add_parser("deploy").add_argument("wheel", type=Path)
    names.add_parser("rollback")
    names.add_parser("undeploy").add_argument("--purge", action="store_true")
    arguments = parser.parse_args()
    os.umask(0o022)
    host = Host(arguments.root.resolve())
    if host.is_system and os.geteuid() != 0:
        sys.exit("this needs root; without root, set KAZOO_IPS_ROOT to a directory of your own")
    try:
        with exclusive(host):
            if arguments.action == "deploy":
                actions.deploy(host, arguments.wheel)
            elif arguments.action == "rollback":
                actions.rollback(host)
            else:
                actions.undeploy(host, arguments.purge)
    except (Failed, OSError) as error:
        sys.exit(f"{arguments.action}: {error}")


if __name__ == "__main__":
    main()
