"""A device lab on one machine: a real server and real devices as containers, each with its class's memory and CPU."""
