"""The pool of addresses: adding, importing, deleting and listing."""
