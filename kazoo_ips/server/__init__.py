"""gunicorn and its processes: configuration, worker, sockets, release switch."""
