"""Runs many clients on a real cluster while its parts fail, and checks every reply.

`make chaos` calls `python -m tests.chaos`. `docs/chaos.md` describes it.
"""
