"""What Kazoo's nodes are told of changes that this service makes in their databases."""
