"""Convert documents to models and back. No other package handles documents."""
