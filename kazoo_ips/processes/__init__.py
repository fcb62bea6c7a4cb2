"""State shared by the worker processes of one machine, and whether a process is alive."""
