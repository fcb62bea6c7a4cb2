"""Installs the service on a machine: `make deploy`, `make rollback`, `make undeploy`.

`run.sh` copies this package to the machine, where it runs with the machine's own Python (3.11 or
newer) and the standard library only. It installs releases and selects one. The supervisor
(`kazoo_ips/server/release_switch.py`) starts it, checks its health, and switches to it.
"""
