"""The agent: the long-lived process that holds a device's data, student and state, and answers the ClientApp."""

PROTOCOL = 1
"""Version of what ClientApp and agent say to each other; the agent refuses any other."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of a message between them."""
