"""Dedicated IP addresses for Kazoo accounts: Crossbar's IPs API over CouchDB."""
