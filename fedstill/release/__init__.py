"""What both sides of a release need: its manifest, trust in it, and its self-test; nothing here imports torch."""
