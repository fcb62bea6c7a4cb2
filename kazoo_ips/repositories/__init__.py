"""Repositories: documents to models and back. No other package sees documents."""
