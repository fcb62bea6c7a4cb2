"""The release switch, under the name in the systemd unit: `python -m kazoo_ips.supervisor`."""

import sys

from kazoo_ips.server.release_switch import main

if __name__ == "__main__":
    main(sys.argv[1:])
