"""The search for the best student of a device class."""
