"""Messages to Kazoo's nodes about changes that this service makes in their databases."""
