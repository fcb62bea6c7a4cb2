"""The command line: `python3 -m deploy [--root DIR] ACTION …`, called by `run.sh`."""

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
    deploy = names.add_parser("deploy")
    deploy.add_argument("wheel", type=Path)
    deploy.add_argument("sources", nargs="?", default="")
    names.add_parser("serves").add_argument("sources")
    names.add_parser("rollback")
    names.add_parser("undeploy").add_argument("--purge", action="store_true")
    arguments = parser.parse_args()
    os.umask(0o022)
    host = Host(arguments.root.resolve())
    if host.is_system and os.geteuid() != 0:
        sys.exit("this needs root; without root, set KAZOO_IPS_ROOT to a directory of your own")
    if arguments.action == "serves":
        sys.exit(0 if actions.serves_already(host, arguments.sources) else 1)
    try:
        with exclusive(host):
            if arguments.action == "deploy":
                actions.deploy(host, arguments.wheel, arguments.sources)
            elif arguments.action == "rollback":
                actions.rollback(host)
            else:
                actions.undeploy(host, arguments.purge)
    except (Failed, OSError) as error:
        sys.exit(f"{arguments.action}: {error}")


if __name__ == "__main__":
    main()
