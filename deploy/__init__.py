"""Puts the service into production: `make deploy`, `make rollback`, `make undeploy`.

Runs on the target, on the machine's own Python (3.11 or newer), with nothing but the standard
library; `run.sh` brings it there. Knows nothing of the API: the release's own supervisor
(`kazoo_ips/server/release_switch.py`) starts, tries and changes releases, this tells it which.
"""
