"""What server and devices must agree on: soft labels, packets, caches, consensus, losses, models, configuration."""

__version__ = "0.1.0"
