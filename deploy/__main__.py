"""The command line: `python3 -m deploy [--root DIR] deploy WHEEL | rollback | undeploy`."""

import argparse
import os
import sys
from pathlib import Path

from deploy import actions
from deploy.host import Failed, Host, alone


def main() -> None:
    """Run one action, alone on the machine; what goes wrong is one line."""
    parser = argparse.ArgumentParser(prog="deploy")
    parser.add_argument("--root", type=Path, default=Path("/"))
    names = parser.add_subparsers(dest="action", required=True)
    names.add_parser("deploy").add_argument("wheel", type=Path)
    names.add_parser("rollback")
    names.add_parser("undeploy").add_argument("--purge", action="store_true")
    asked = parser.parse_args()
    os.umask(0o022)
    host = Host(asked.root.resolve())
    if host.whole and os.geteuid() != 0:
        sys.exit("only root can do this, or whoever owns the folder that KAZOO_IPS_ROOT names")
    try:
        with alone(host):
            if asked.action == "deploy":
                actions.deploy(host, asked.wheel)
            elif asked.action == "rollback":
                actions.rollback(host)
            else:
                actions.undeploy(host, asked.purge)
    except (Failed, OSError) as error:
        sys.exit(f"{asked.action}: {error}")


if __name__ == "__main__":
    main()
