"""What server and devices must agree on: soft labels, packets, caches, consensus, losses, models, configuration."""

import os

__version__ = "0.1.0"

# No call leaves for hosts that the user did not name. From 1.29 on ONNX Runtime's own builds tell their maker of every
# process and session, unless this stands in the environment before it is imported; what we start inherits it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
