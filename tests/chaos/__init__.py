"""Many clients on a real cluster while its parts fail, and a check of all that they were told.

`python -m tests.chaos`, as `make chaos` calls it; `docs/chaos.md` tells how.
"""
