"""CouchDB from Python: the driver on a short lead, and design documents from files."""
