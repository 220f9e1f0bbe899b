"""The deployment's containers: images, compose, Kubernetes, and the device lab."""
