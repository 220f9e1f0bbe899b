"""Enrolment: how a device becomes one of the fleet, and how it leaves it."""
