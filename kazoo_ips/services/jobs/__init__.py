"""Jobs: work on all addresses of a host."""
