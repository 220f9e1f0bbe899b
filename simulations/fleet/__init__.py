"""Fleets that live in virtual time: what devices cost in seconds and joules, without waiting for any of them."""
