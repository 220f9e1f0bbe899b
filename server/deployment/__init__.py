"""The server as real processes: its folder, certificates, Flower's SuperLink and superexec, and runs on them."""
