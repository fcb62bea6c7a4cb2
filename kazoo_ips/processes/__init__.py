"""What the worker processes of one machine share: memory, and knowledge of which are alive."""
