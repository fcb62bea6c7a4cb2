"""State shared by the worker processes of one machine: memory, and which processes are alive."""
