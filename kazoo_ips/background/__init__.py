"""Background work: one thread in each worker process that runs without a request."""
