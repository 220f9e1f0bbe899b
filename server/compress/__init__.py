"""Smaller students: channels taken away while they distil, and the figures that a search of them compares."""
