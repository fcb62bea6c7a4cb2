"""The pool of addresses: adding, importing, deleting, listing."""
