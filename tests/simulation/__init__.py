"""The real services on a simulated CouchDB cluster, each run decided by one number, its seed."""
