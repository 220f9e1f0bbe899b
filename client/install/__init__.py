"""A device as a part of its system: users of its own, a folder where each sees what it needs, a service."""
