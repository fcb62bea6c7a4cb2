"""What runs without a request: one thread in each worker process."""
