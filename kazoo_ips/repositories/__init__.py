"""From documents to models and back: the only room that sees documents."""
