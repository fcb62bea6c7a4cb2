"""The real services on a simulated CouchDB cluster. A number, the seed, determines each run."""
