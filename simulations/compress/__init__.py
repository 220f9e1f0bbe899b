"""The search for the best student of a device class."""

MOST_TRIALS = 100_000
"""Students that a search tries at most."""
