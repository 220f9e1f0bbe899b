"""The search for the best student of a device class."""

MOST_TRIALS = 100_000
"""Students that a search tries at most."""
LEAST_STEPS = 16
"""Optimizer steps of a candidate's distillation at least: what took fewer tells nothing about a student."""
