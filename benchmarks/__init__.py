"""Every published figure: its command, its configuration, its log, and the rival's case."""
