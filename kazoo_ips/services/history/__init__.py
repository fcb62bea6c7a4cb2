"""The history of addresses: what is read from the archive and from the documents of the pool."""
