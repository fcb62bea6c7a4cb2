"""gunicorn and the processes: configuration, worker, sockets, the switch of releases."""
