"""What the worker processes of one machine share: memory, and which of them live."""
