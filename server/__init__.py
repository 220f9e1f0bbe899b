"""The cloud: ServerApp, teacher, class students, releases and checkpoints."""
