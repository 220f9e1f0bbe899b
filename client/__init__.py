"""The edge: the ClientApp, the devices that it serves, and how they learn."""
