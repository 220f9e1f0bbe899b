"""Containers, compose, systemd and the device lab. Nothing is here yet: the deployment is not built."""
