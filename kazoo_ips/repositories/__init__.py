"""Repositories: convert documents to models and back. No other package handles documents."""
