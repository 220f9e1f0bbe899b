"""The delivery of releases: what each device gets, how it gets there, and what devices tell about it."""
