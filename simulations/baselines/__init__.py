"""Rival methods that run in the same harness: same data, seeds, students, engines, bytes and tables."""
